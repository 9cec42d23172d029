"""The command line of `./dev verify-gpu`.

Exit code: 0 all chosen stages passed (or could not run here and are not required), 1 something failed or something
required did not run, 3 the budget ended first and nothing has failed so far: run it again, 77 no device (1 where
FLASHNCE_REQUIRE_GPU=1).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import build, machine, record, render
from .runner import FAILED, STATUSES, TIMEOUT, Context, State, run_stages, say, verdict
from .stages import STAGES, named

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "bench" / "records" / "gpu"
UNFINISHED, NO_DEVICE = 3, 77


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev verify-gpu", description="Verifies everything on a GPU, in stages.")
    parser.add_argument("--stage", action="append", metavar="NAME", help="only this one (NAME* for several)")
    parser.add_argument("--list", action="store_true", help="name the stages")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "verify-gpu", help="state and logs")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where the record goes")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="pass over stages for which too little is left")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--failed", action="store_true", help="also what failed")
    parser.add_argument("--carried", type=Path, default=os.environ.get("FLASHNCE_CARRIED") or None,
                        help="folder of a carried build (or FLASHNCE_CARRIED)")  # fmt: skip
    parser.add_argument("--prepare", action="store_true", help="make build/carry for a machine without nvcc, and stop")
    parser.add_argument("--archs", default=build.CARRIED_ARCHITECTURES, help="of --prepare: FLASHNCE_CUDA_ARCHS")
    parser.add_argument("--jobs", type=int, help="of --prepare: compilers at a time")
    return parser.parse_args(arguments)


def without_device(why: str) -> int:
    say(f"SKIP: {why}; nothing was verified")
    return 1 if os.environ.get("FLASHNCE_REQUIRE_GPU") == "1" else NO_DEVICE


def commit_of(context: Context) -> dict:
    """Of this tree, or where it is no repository, of the tree that the carried build was made from."""
    found = machine.commit(ROOT)
    if found["id"] is None:
        found = context.data_of("build").get("commit", found)
    return found


def verify(options: argparse.Namespace, device: dict) -> int:
    stages = named(options.stage) if options.stage else STAGES
    carried = Path(options.carried).resolve() if options.carried else None
    context = Context(ROOT, options.out.resolve(), device, carried)
    sources = machine.sources_hash(ROOT)
    key = {"sources": sources, "device": f"{device['name']} {device['driver']}", "carried": carried is not None}
    state = State(context.out / "state.json", key)
    context.state = state
    say(f"{device['name']}, compute capability {device['capability']}; state and logs: {context.out}")
    if state.results:
        say(f"going on: {len(state.results)} stages have a result")
    command = "./dev verify-gpu" + "".join(f" --stage {name}" for name in options.stage or [])
    written: list[Path] = []

    def write() -> None:
        context.environment = build.environment_of(build.programs_of(context), ROOT)
        facts = {"command": command, "commit": commit_of(context), "sources": sources, "device": device}
        made = record.assemble(STAGES, state.results, {**facts, "host": machine.host()})
        record.validate(made)
        path = record.path_of(made, options.records)
        render.write(made, path)
        written[:] = [path]

    def write_or_say() -> None:
        """A page that cannot be made does not end the run: the state is kept, and the last attempt says what it was."""
        try:
            write()
        except Exception as error:
            say(f"the record could not be written: {type(error).__name__}: {error}")

    write()
    again = STATUSES if options.again else (FAILED, TIMEOUT) if options.failed else ()
    finished = run_stages(stages, context, state, again=again, budget=options.budget, after=write_or_say)
    write()
    say(f"record: {written[0]}")
    outcome = verdict(stages, state.results)
    if options.stage:
        say(f"{outcome.upper()}, of the chosen stages; of all of them the verdict is {verdict(STAGES, state.results)}")
    else:
        say(f"{outcome.upper()}: {render.WORDS[outcome].split(': ', 1)[1]}")
    if outcome == "failed":
        return 1
    if not finished:
        return UNFINISHED
    return 0 if outcome == "passed" else 1


def main(arguments: list[str]) -> int:
    options = options_of(arguments)
    try:
        if options.list:
            for stage in STAGES:
                say(f"{stage.name:<24} {'' if stage.required else '(not required) '}{stage.what}")
            return 0
        if options.prepare:
            return build.prepare(ROOT, options.archs, options.jobs)
        named(options.stage or [])
        device, why = machine.find_device()
        return without_device(why) if device is None else verify(options, device)
    except ValueError as error:
        print(f"verify-gpu: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
