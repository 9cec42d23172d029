"""A process that measures with one number of threads and one set of instructions: reads JSON jobs from standard input,
one a line, and writes JSON lines.

jobs:  {"table": one of tables.TABLES, "threads", "shapes": [[n,k,d], ...], "rounds", "without": [peer, ...]}
       {"memory": [n,k,d], "without": [peer, ...]}, which must be the first
lines: {"table", "cell"} and {"left_out"} as in a record, {"memory": {peer: MiB}}, {"software"}, as they are ready.
"""

from __future__ import annotations

import json
import os
import sys


def pin(threads: int) -> None:
    """Onto as many CPUs as threads: before any library has started some."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[-threads:])


def emit(**line) -> None:
    print(json.dumps(line), flush=True)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def memory(shape, without: list[str]) -> dict[str, float]:
    from functools import partial

    from . import tables
    from .memory import extra_memory, measurable
    from .steps import Inputs

    if not measurable():
        log("this kernel does not let a process reset its peak memory: memory is not measured")
        return {}
    found = {}
    peers, _ = tables.all_steps({"without": without}, None)
    for name, make in peers.items():
        missing = getattr(make, "missing", lambda: None)()
        extra = None if missing else extra_memory(partial(Inputs, shape), make)
        if extra is not None:
            found[name] = extra
    return found


def measure_table(job: dict) -> None:
    from .cells import cell, left_out
    from .steps import Shape

    for sizes in job["shapes"]:
        words = f"{job['table']} {'x'.join(map(str, sizes))}, {job['threads']} thread{'s' * (job['threads'] > 1)}"
        reason = left_out(Shape(*sizes), job["threads"]) if job["table"] == "shapes" else None
        if reason:
            log(f"{words}: left out, {reason}")
            entry = {"table": job["table"], "shape": sizes, "threads": job["threads"], "reason": reason}
            emit(left_out=entry)
        else:
            log(words)
            emit(table=job["table"], cell=cell(job, Shape(*sizes)))


def main() -> None:
    threads = int(sys.argv[1])
    pin(threads)
    import torch

    from .software import describe
    from .steps import Shape

    torch.set_num_threads(threads)
    for line in sys.stdin:
        job = json.loads(line)
        if "memory" in job:
            log(f"memory at {'x'.join(map(str, job['memory']))}")
            emit(memory=memory(Shape(*job["memory"]), job["without"]))
        else:
            measure_table(job | {"threads": threads})
    emit(software=describe())


if __name__ == "__main__":
    main()
