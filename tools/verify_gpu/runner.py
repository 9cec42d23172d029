"""Runs stages: one after the other, each within its time, all of it resumable.

A stage is a function of a context that gives a Result. What came of each is kept in state.json of the output folder
after every stage, so that a run that was cut off goes on where it stopped. The state belongs to one device and one tree
of sources; for another it starts anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

LIMIT = 480.0  # seconds of one stage, at most
PASSED, FAILED, SKIPPED, REFUSED, TIMEOUT = "passed", "failed", "skipped", "refused", "timeout"
STATUSES = (PASSED, FAILED, SKIPPED, REFUSED, TIMEOUT)
SKIP_CODE = 77


@dataclass
class Result:
    """status: passed | failed | skipped (it cannot run here) | refused (the machine forbids a tool) | timeout."""

    status: str
    detail: str = ""  # one sentence
    data: dict = field(default_factory=dict)  # what the record keeps
    seconds: float = 0.0


@dataclass
class Done:
    """A program that ran. code is None where its time was up."""

    code: int | None
    output: str

    def tail(self, lines: int = 3) -> str:
        return " | ".join(line.strip() for line in self.output.strip().splitlines()[-lines:])[:600]


@dataclass
class Context:
    """What stages work with. Everything that they start is logged in `log`, and ends at `deadline`."""

    root: Path
    out: Path
    device: dict
    carried: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    deadline: float = 0.0
    log: Path | None = None
    state: State | None = None

    def data_of(self, stage: str) -> dict:
        """What an earlier stage left."""
        result = self.state.results.get(stage) if self.state else None
        return result.data if result else {}

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Done:
        """Runs a program in a process group of its own; both streams go to the log and into Done.output."""
        words = [str(word) for word in command]
        with open(self.log, "a+") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                words, cwd=cwd or self.root, env={**os.environ, **self.environment, **(env or {})},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(max(self.left(), 0.1))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            log.seek(start)
            return Done(code, log.read())


def judged(done: Done, data: dict | None = None) -> Result:
    """The result of a stage that is one program: by its exit code."""
    if done.code is None:
        return Result(TIMEOUT, f"its time was up: {done.tail()}", data or {})
    if done.code == 0:
        return Result(PASSED, "", data or {})
    if done.code == SKIP_CODE:
        return Result(SKIPPED, done.tail(1), data or {})
    ended = f"signal {-done.code}" if done.code < 0 else f"exit status {done.code}"
    return Result(FAILED, f"{ended}: {done.tail()}", data or {})


@dataclass(frozen=True)
class Stage:
    """`required`: without it nothing is verified; of the others it is enough that they did not fail. `gate`: where it
    fails nothing else is run. Seconds: killed after `limit`, several times what it should take; not started with less
    than `least` of a budget, about what it should take (estimates, until a record tells)."""

    name: str
    what: str
    run: Callable[[Context], Result]
    required: bool = True
    limit: float = LIMIT
    least: float = 60.0
    gate: bool = False


class State:
    """Results by stage, in a file. `key` says what they are of."""

    def __init__(self, path: Path, key: dict) -> None:
        self.path, self.key, self.results, self.fresh = path, key, {}, True
        if path.is_file():
            kept = json.loads(path.read_text())
            if kept["key"] == key:
                self.results = {name: Result(**values) for name, values in kept["results"].items()}
                self.fresh = False

    def put(self, name: str, result: Result) -> None:
        self.results[name] = result
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        results = {name: asdict(result) for name, result in self.results.items()}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"key": self.key, "results": results}, indent=1) + "\n")
        new.replace(self.path)


def say(text: str) -> None:
    print(text, flush=True)


def run_stage(stage: Stage, context: Context, seconds: float) -> Result:
    """Runs one stage in at most `seconds`; an error in it is a failure of it, not of the run."""
    start = time.monotonic()
    context.deadline = start + seconds
    context.log = context.out / "logs" / f"{stage.name}.log"
    context.log.parent.mkdir(parents=True, exist_ok=True)
    context.log.write_text("")
    try:
        result = stage.run(context)
    except Exception as error:
        result = Result(FAILED, f"{type(error).__name__}: {error}")
    result.seconds = round(time.monotonic() - start, 2)
    return result


def run_stages(
    stages: list[Stage], context: Context, state: State, *, again: tuple[str, ...] = (), budget: float | None = None,
    after: Callable[[], None] = lambda: None,
) -> bool:  # fmt: skip
    """Runs the stages that have no result yet, or one whose status is in `again`; `after` follows each. False where the
    budget (seconds) or a gate ended the run; a stage that the rest of a budget does not suffice for is passed over."""
    end = None if budget is None else time.monotonic() + budget
    finished = True
    for number, stage in enumerate(stages, 1):
        head = f"[{number}/{len(stages)}] {stage.name}"
        before = state.results.get(stage.name)
        if before is not None and before.status not in again:
            say(f"{head:<28} {before.status} before")
            if stage.gate and before.status in (FAILED, TIMEOUT):
                return False
            continue
        limit = min(stage.limit, LIMIT)
        if end is not None:
            left = end - time.monotonic()
            if left < min(stage.least, limit):
                say(f"{head:<28} not started: {max(left, 0):.0f} s of the budget are left")
                if stage.gate:
                    return False
                finished = False
                continue
            limit = min(limit, left)
        say(f"{head:<28} {stage.what} (at most {limit:.0f} s)")
        result = run_stage(stage, context, limit)
        if result.status == TIMEOUT and limit < stage.limit:
            # It had less than its own time: that says nothing about it.
            say(f"{head:<28} cut off by the budget after {result.seconds:.0f} s")
            return False
        state.put(stage.name, result)
        detail = f": {result.detail}" if result.detail else ""
        say(f"{head:<28} {result.status.upper()} in {result.seconds:.1f} s{detail}")
        after()
        if stage.gate and result.status in (FAILED, TIMEOUT):
            say("nothing else is run")
            return False
    return finished


def verdict(stages: list[Stage], results: Mapping[str, Result]) -> str:
    """passed: every required stage passed and no other failed; failed; incomplete: something required has not run."""
    statuses = {stage: results[stage.name].status for stage in stages if stage.name in results}
    if any(status in (FAILED, TIMEOUT) for status in statuses.values()):
        return "failed"
    if any(stage.required and statuses.get(stage) != PASSED for stage in stages):
        return "incomplete"
    return "passed" if len(statuses) == len(stages) else "incomplete"
