"""Measures the library beside other implementations of the same training step, and prints the table.

Each number of threads has a process of its own, pinned to as many CPUs, in which all implementations take turns. Needs
PyTorch, NumPy, the flashnce package and, in FLASHNCE_LIBRARY, the library to measure; `./dev bench` provides all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import record as records
from peers import software
from peers.steps import TEMPERATURE, Shape
from table import ROWS

BENCH = Path(__file__).resolve().parent
SHAPES = ["256x65536x128", "32x65536x128", "1024x65536x128", "256x4096x128"]
ROUNDS, QUICK_ROUNDS = 11, 3
# What every BLAS and OpenMP that may be there reads.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
# Settings of the caller's environment that could make a BLAS choose other kernels than it would by itself, such as
# OPENBLAS_CORETYPE=Haswell, or wait otherwise, do not reach the measurement.
TUNING_VARIABLES = re.compile(r"(OPENBLAS|GOTO|MKL|BLIS|OMP|GOMP|KMP|DNNL|ONEDNN|ATEN)_")


def options_of(arguments: list[str]) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}, no memory")
    parser.add_argument("--rounds", type=int, metavar="R", help="so many rounds")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="NxKxD", help=f"default: {' '.join(SHAPES)}")
    parser.add_argument(
        "--threads", nargs="+", type=int, default=sorted({1, cores}), metavar="T", help="default: 1 and all cores"
    )
    parser.add_argument("--without", nargs="+", default=[], metavar="PEER", choices=sorted(set(ROWS) - set(records.GEMMS)),
                        help="leave out some: " + ", ".join(sorted(set(ROWS) - set(records.GEMMS))))  # fmt: skip
    parser.add_argument(
        "--memory-shape", default=SHAPES[0], metavar="NxKxD", help=f"where memory is measured; default: {SHAPES[0]}"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument(
        "--record", nargs="?", const="", metavar="FILE",
        help="also write a record: FILE, default bench/records/<date>-<cpu>.json",
    )  # fmt: skip
    parser.add_argument(
        "--c-api", nargs=argparse.REMAINDER, metavar="OPTION",
        help="instead run the Google Benchmark program of the C interface; all that follows goes to it",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        options.shapes = [Shape.parse(text) for text in options.shapes]
        options.memory_shape = Shape.parse(options.memory_shape)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    for threads in options.threads:
        if not 1 <= threads <= cores:
            parser.error(f"--threads {threads}: there are {cores} CPUs")
    return options


def run_c_api(arguments: list[str]) -> None:
    """The program stands beside the library in the build tree."""
    program = Path(os.environ["FLASHNCE_LIBRARY"]).resolve().parent.parent / "bench" / "flashnce_bench"
    if not program.is_file():
        sys.exit("run.py: flashnce_bench is not in the build of FLASHNCE_LIBRARY: configure with -DFLASHNCE_BENCH=ON")
    os.execv(program, [str(program), *arguments])


def work(threads: int, options: argparse.Namespace, with_memory: bool):
    """The lines of a worker process, as they come."""
    memory_shape = options.memory_shape if with_memory else None
    job = {
        "threads": threads,
        "shapes": [[s.n, s.k, s.d] for s in options.shapes],
        "rounds": options.rounds,
        "without": options.without,
        "memory_shape": [memory_shape.n, memory_shape.k, memory_shape.d] if memory_shape else None,
    }
    environment = {name: value for name, value in os.environ.items() if not TUNING_VARIABLES.match(name)}
    environment |= {name: str(threads) for name in THREAD_VARIABLES}
    # torch.compile would start processes for it that stay.
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    worker = subprocess.Popen(
        [sys.executable, "-m", "peers.worker"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    worker.stdin.write(json.dumps(job))
    worker.stdin.close()
    for line in worker.stdout:
        yield json.loads(line)
    if worker.wait() != 0:
        sys.exit(f"run.py: the measurement on {threads} threads ended with status {worker.returncode}")


def print_cell(cell: dict) -> None:
    n, k, d = cell["shape"]
    print(f"\nN={n} K={k} D={d}, {cell['threads']} thread{'s' * (cell['threads'] > 1)}")
    head = f"  {'':34}{'ms':>9}{'min':>9}{'max':>9}  {'/ torch mm':>10}  {'/ numpy mm':>10}  {'/ faster, min .. max':>22}"
    print(head + f"  {'loss err':>8}  {'dq err':>8}")
    for name, peer in cell["peers"].items():
        ms, ratios = peer["ms"], peer["ratios"]
        faster = ratios[cell["gemms"]]
        line = f"  {ROWS[name]:34}{ms['median']:9.3f}{ms['min']:9.3f}{ms['max']:9.3f}"
        line += "".join(f"  {ratios[base]['median']:10.3f}" for base in records.GEMMS)
        line += f"  {faster['median']:8.3f} {faster['min']:6.2f} ..{faster['max']:5.2f}"
        line += "".join(f"  {peer[error]:8.1e}" for error in ("loss_error", "dq_error") if error in peer)
        print(line)
    for name, reason in cell["skipped"].items():
        print(f"  {ROWS[name]:34}  skipped: {reason}")
    for name, ratio in cell["comparisons"].items():
        print(f"  {name:34}{ratio['median']:9.3f}{ratio['min']:9.3f}{ratio['max']:9.3f}")
    sys.stdout.flush()


def print_memory(memory: dict) -> None:
    n, k, d = memory["shape"]
    print(f"\nPeak memory of a step beyond its inputs, N={n} K={k} D={d}, {memory['threads']} threads, MiB")
    for name, extra in memory["extra_mib"].items():
        print(f"  {ROWS[name]:34}{extra:9.1f}")
    sys.stdout.flush()


def write_record(record: dict, file: str) -> None:
    slug = re.sub(r"[^a-z0-9]+", "-", record["machine"]["cpu"].lower()).strip("-")
    path = Path(file) if file else BENCH / "records" / f"{record['date']}-{slug}.json"
    try:
        records.validate(record)
    except records.RecordError as error:
        sys.exit(f"run.py: no record written: {error}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"record: {path.name}")


def main() -> None:
    options = options_of(sys.argv[1:])
    if options.c_api is not None:
        run_c_api(options.c_api)
    start = time.monotonic()
    command = shlex.join(["./dev", "bench", *sys.argv[1:]])
    if options.record:
        command = command.replace(shlex.quote(options.record), Path(options.record).name)
    record = {
        "schema": records.SCHEMA,
        "date": software.today(),
        "command": command,
        "commit": software.commit(BENCH.parent),
        "machine": software.machine(),
        "software": None,
        "settings": {"rounds": options.rounds, "temperature": TEMPERATURE},
        "cells": [],
        "memory": None,
    }
    if record["machine"]["load"] > 0.5:
        print(f"this machine is not quiet: load {record['machine']['load']}; expect noise")
    for threads in options.threads:
        with_memory = not (options.quick or options.no_memory) and threads == max(options.threads)
        for line in work(threads, options, with_memory):
            if "cell" in line:
                record["cells"].append(line["cell"])
                print_cell(line["cell"])
            elif line.get("memory"):
                memory_shape = options.memory_shape
                sizes = [memory_shape.n, memory_shape.k, memory_shape.d]
                record["memory"] = {"shape": sizes, "threads": threads, "extra_mib": line["memory"]}
                print_memory(record["memory"])
            record["software"] = line.get("software", record["software"])
    print(f"\n{', '.join(f'{name} {value}' for name, value in record['software'].items())}")
    print(f"{time.monotonic() - start:.0f} s")
    if options.record is not None:
        write_record(record, options.record)


if __name__ == "__main__":
    main()
