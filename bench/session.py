"""The processes that measure: one for each number of threads and instruction set, fed with jobs, read line by line."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator

import limits
from peers.steps import Shape


def work(module: str, threads: int, isa: str | None, jobs: list[dict]) -> Iterator[dict]:
    """The lines of a worker process, as they come."""
    worker = subprocess.Popen(
        [sys.executable, "-m", module, str(threads)],
        env=limits.environment(threads, isa),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        worker.stdin.write("".join(json.dumps(job) + "\n" for job in jobs))
        worker.stdin.close()
        for line in worker.stdout:
            yield json.loads(line)
    finally:
        worker.stdout.close()
        if worker.poll() is None and sys.exc_info()[0] is not None:
            worker.kill()
        status = worker.wait()
    if status != 0:
        sys.exit(f"run.py: the measurement on {threads} threads ended with status {status}")


def sizes(shape: Shape) -> list[int]:
    return [shape.n, shape.k, shape.d]


def plan(options: argparse.Namespace) -> list[tuple[int, str | None, list[dict]]]:
    """(threads, instruction set or None, jobs) of each process."""
    found = []
    shapes = {"steps": options.shapes, "types": options.shapes, "isa": options.shapes, "shapes": options.grid}
    shapes["pages"] = options.pages
    for isa in [None, *options.isa]:
        for threads in options.threads:
            jobs = []
            if isa is None and "memory" in options.tables and threads == max(options.threads):
                jobs.append({"memory": sizes(options.memory_shape), "without": options.without})
            for table in options.tables:
                if table != "memory" and (table == "isa") == (isa is not None):
                    jobs.append({
                        "table": table,
                        "shapes": [sizes(shape) for shape in shapes[table]],
                        "rounds": options.rounds if table == "steps" else -(-options.rounds // 2),
                        "without": options.without,
                    })  # fmt: skip
            if jobs:
                found.append((threads, isa, jobs))
    return found
