"""What it costs and brings to move a trainer over: examples/trainers, before and after.

    python bench/trainers.py                       measures, prints a table in Markdown (a minute and a half)
    python bench/trainers.py --record NAME.json    also keeps the figures, with machine, commit and software
    python bench/trainers.py --untimed             leaves times out, on a machine that has other work
    python bench/trainers.py --from NAME.json      prints the table of a record

Changed lines are those that a diff of before.py and after.py adds and takes away. Differences of losses are over 50
steps of both, from one start, at 32 rows and 256 negatives. Time and memory are of whole training steps at the sizes of
the table, the small encoder included: the median of the steps, and what the kernel counts as resident at the peak of a
step beyond what is resident before it. Each run has a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import difflib
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peers import memory, software
from record_text import text_of
from render import measured_where, significant, table_of

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = 1
# Names, and what is measured: rows N, negatives K, features D. pytorch-metric-learning makes N x (N K) numbers.
TRAINERS = {
    "moco": ("facebookresearch/moco", (256, 65536, 128)),
    "lightly": ("lightly", (256, 65536, 128)),
    "solo_learn": ("solo-learn, two queues", (256, 65536, 128)),
    "info_nce_pytorch": ("info-nce-pytorch", (256, 65536, 128)),
    "pytorch_metric_learning": ("pytorch-metric-learning", (64, 2048, 128)),
}
SIDES = ("before", "after")
WARM, TIMED, WATCHED = 2, 4, 1


def changed_lines(name: str) -> tuple[int, int]:
    """How many lines come and go."""
    texts = [(ROOT / "examples" / "trainers" / name / f"{side}.py").read_text().splitlines() for side in SIDES]
    marks = [line[0] for line in difflib.ndiff(*texts)]
    return marks.count("+"), marks.count("-")


class Watch:
    """Stands between a trainer and its data: a step is over when the trainer asks for the next batch."""

    def __init__(self, views) -> None:
        self.views, self.seconds, self.mib = views, [], []

    def __call__(self, steps: int, batch: int):
        for step, images in enumerate(self.views(steps, batch)):
            watched = step >= WARM + TIMED
            if watched:
                gc.collect()
                ctypes.CDLL(None).malloc_trim(0)
                memory.CLEAR.write_text("5")
                before = memory.resident("VmRSS")
            start = time.perf_counter()
            yield images
            if watched:
                self.mib.append(max(0.0, memory.resident("VmHWM") - before))
            elif step >= WARM:
                self.seconds.append(time.perf_counter() - start)


def one(name: str, side: str, timed: bool) -> dict:
    """What one side of a trainer does, in this process."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    from other_trainers import example

    train = example(name, f"{side}.py")["train"]
    losses = train()
    watch = Watch(train.__globals__["views"])
    train.__globals__["views"] = watch
    rows, columns, features = TRAINERS[name][1]
    train(WARM + TIMED + (WATCHED if memory.measurable() else 0), rows, columns, features)
    return {
        "losses": losses,
        "ms": 1000 * statistics.median(watch.seconds) if timed else None,
        "mib": statistics.median(watch.mib) if watch.mib else None,
    }


def measure(timed: bool) -> list[dict]:
    """One cell per trainer."""
    cells = []
    for name, (_, shape) in TRAINERS.items():
        sides = {}
        for side in SIDES:
            command = [sys.executable, __file__, "--one", name, side, *([] if timed else ["--untimed"])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            sides[side] = json.loads(done.stdout)
        added, taken = changed_lines(name)
        losses = [sides[side].pop("losses") for side in SIDES]
        difference = max(abs(a - b) for a, b in zip(*losses, strict=True))
        cells.append(
            {"trainer": name, "shape": list(shape), "lines": [added, taken], "steps": len(losses[0]),
             "loss_difference": difference, **sides}
        )  # fmt: skip
    return cells


def table(record: dict) -> list[str]:
    """The record as Markdown."""
    rows = []
    for cell in record["cells"]:
        both = [cell[side] for side in SIDES]
        figures = ["-" if side[unit] is None else significant(side[unit]) for unit in ("ms", "mib") for side in both]
        rows.append(
            [TRAINERS[cell["trainer"]][0], "+{} −{}".format(*cell["lines"]), f"{cell['loss_difference']:.1e}",
             ", ".join(map(str, cell["shape"])), *figures]
        )  # fmt: skip
    head = ["trainer", "lines", "largest difference of a loss in 50 steps", "N, K, D", "ms a step, before", "after",
            "peak MiB a step, before", "after"]  # fmt: skip
    return [
        *table_of(head, rows),
        "",
        *measured_where(record),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="NAME.json", help="where the figures are kept")
    parser.add_argument("--from", dest="source", type=Path, metavar="NAME.json", help="a record, instead of measuring")
    parser.add_argument("--one", nargs=2, metavar=("TRAINER", "SIDE"), help="one run, printed as JSON")
    parser.add_argument("--untimed", action="store_true", help="leave times out")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one, not options.untimed)))
        return
    if options.source:
        record = json.loads(options.source.read_text())
    else:
        record = {
            "schema": SCHEMA,
            "date": software.today(),
            "command": "python bench/trainers.py --record" + (" --untimed" if options.untimed else ""),
            "commit": software.commit(ROOT),
            "machine": software.machine(),
            "software": software.describe(),
            "cells": measure(not options.untimed),
        }
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(text_of(record))
    print("\n".join(table(record)))


if __name__ == "__main__":
    main()
