"""A process that compares two builds of the library: reads one JSON job from standard input, writes JSON lines.

job:   {"other": path, "shapes": [[n,k,d], ...], "presets", "types", "rounds"}; this build is that of FLASHNCE_LIBRARY
lines: {"builds": {"this", "other"}}, then {"cell": {"shape", "preset", "type", "threads", "isa": {"this", "other"},
       "lacks": {"this" | "other": why}, and unless one lacks it, "ms": {"this": spread, "other": spread}, "ratios": of
       each round, "results": in words, how much the two differ}}

The builds take turns with the same inputs, the same seeds and the same workspace, so that where memory lies helps
neither.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from .worker import emit, log, pin

# After a call the workers of a build look for more work for less than a millisecond before they sleep.
PAUSE = 0.002


def load(path: Path, folder: Path):
    """The other build; a copy of it where it is the same file as this one, which the loader would not load again."""
    from .loaded import Loaded, own

    other = Loaded(path)
    if not other.is_another_than(own()):
        other = Loaded(Path(shutil.copy(path, folder / "copy.so")))
    if not other.is_another_than(own()):
        raise RuntimeError("the loader gave one library for two files")
    return other


def paired_times(peers: list, rounds: int, threads: int) -> tuple[list[float], list[float]]:
    """Milliseconds of both in each round; who is first alternates."""
    from .measure import Timer

    timers = [Timer(peer.step, rounds, threads) for peer in peers]
    times: tuple[list[float], list[float]] = ([], [])
    repeats, count = max(t.repeats for t in timers), max(t.rounds for t in timers)
    for timer in timers:
        timer.repeats, timer.rest = repeats, partial(time.sleep, PAUSE) if threads > 1 else None
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                peers[side].args.seed = 1000 * number
                times[side].append(timers[side].milliseconds())
    finally:
        gc.enable()
    return times


def difference(peers: list) -> str:
    """Of the results with one seed."""
    import torch

    (loss, dq), (other_loss, other_dq) = (peer.run() for peer in peers)
    if torch.equal(loss, other_loss) and torch.equal(dq, other_dq):
        return "same bits"
    of_loss = ((loss - other_loss) / other_loss).abs().item()
    return f"loss differs by {of_loss:.0e}, dq by {((dq - other_dq).norm() / other_dq.norm()).item():.0e}"


def make(builds: dict, given, preset: str) -> tuple[dict, dict[str, str]]:
    """The call of each build, and why a build has none. A forced instruction set that a build does not know, or a type
    that it does not have, is no error of this program."""
    from .ours import CInterface
    from .loaded import Unsupported

    made, lacks = {}, {}
    for who, build in builds.items():
        try:
            made[who] = CInterface(given, preset, loaded=build)
            made[who].step()
        except (Unsupported, RuntimeError) as error:
            lacks[who] = str(error)
    return made, lacks


def share_workspace(peers: list) -> None:
    widest = max(peers, key=lambda peer: peer.workspace_bytes)
    for peer in peers:
        peer.buffer, peer.workspace = widest.buffer, widest.workspace


def cell(builds: dict, inputs, preset: str, element: str, job: dict, threads: int) -> dict:
    import torch

    from .measure import spread

    given = inputs.of_type(getattr(torch, element))
    isa = {who: build.instruction_set() for who, build in builds.items()}
    shape = [inputs.shape.n, inputs.shape.k, inputs.shape.d]
    made, lacks = make(builds, given, preset)
    found = {"shape": shape, "preset": preset, "type": element, "threads": threads, "isa": isa, "lacks": lacks}
    if lacks:
        return found
    peers = [made["this"], made["other"]]
    share_workspace(peers)
    times = paired_times(peers, job["rounds"], threads)
    return found | {
        "ms": {"this": spread(times[0]), "other": spread(times[1])},
        "ratios": [this / other for this, other in zip(*times)],
        "results": difference(peers),
    }


def main() -> None:
    threads = int(sys.argv[1])
    pin(threads)
    job = json.load(sys.stdin)
    import torch

    from .loaded import own
    from .steps import Inputs, Shape

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        builds = {"this": own(), "other": load(Path(job["other"]), Path(folder))}
        emit(builds={who: build.build_info() for who, build in builds.items()})
        for sizes in job["shapes"]:
            start = time.perf_counter()
            inputs = Inputs(Shape(*sizes))
            for element in job["types"]:
                for preset in job["presets"]:
                    emit(cell=cell(builds, inputs, preset, element, job, threads))
            log(f"{'x'.join(map(str, sizes))}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
