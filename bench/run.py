"""Measures the library beside other implementations of the same training step, and prints the tables.

Each number of threads has a process of its own, pinned to as many CPUs, in which all implementations take turns. Needs
PyTorch, NumPy, the flashnce package and, in FLASHNCE_LIBRARY, the library to measure; `./dev bench` provides all of it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from pathlib import Path

import compare
import grid
import limits
import record as records
import report
from peers import kernels, software
from peers.steps import TEMPERATURE, Shape
from record_text import text_of
from session import plan, sizes, work

BENCH = Path(__file__).resolve().parent
ROUNDS, QUICK_ROUNDS = 11, 3


def parser_of(cores: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n\n")[0])
    peers = sorted(set(records.STEPS) - set(records.GEMMS))
    add = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}; only the steps")
    add("--tables", nargs="+", choices=[*grid.TABLES, "memory"], metavar="TABLE",
        help="of steps, shapes, types, isa, pages, memory; default: steps and memory, with --record all")  # fmt: skip
    add("--rounds", type=int, metavar="R", help="so many rounds; half as many in the tables beside that of steps")
    add("--shapes", nargs="+", metavar="NxKxD", help=f"of all tables but `shapes`; default: {' '.join(grid.SHAPES)}")
    add("--grid", nargs="+", default=grid.GRID, metavar="NxKxD", help="of the table `shapes`")
    add("--threads", nargs="+", type=int, default=sorted({1, cores}), metavar="T", help="default: 1 and all cores")
    add("--isa", nargs="+", choices=sorted(limits.ISA), metavar="SET",
        help="limit the library and its peers to each of these instruction sets: " + ", ".join(limits.ISA))  # fmt: skip
    add("--without", nargs="+", default=[], metavar="PEER", choices=peers, help="leave out some: " + ", ".join(peers))
    add("--memory-shape", default=grid.SHAPES[0], metavar="NxKxD", help=f"default: {grid.SHAPES[0]}")
    add("--no-memory", action="store_true", help="do not measure memory")
    add("--record", nargs="?", const="", metavar="FILE",
        help="also write a record: FILE, default bench/records/<date>-<cpu>.json")  # fmt: skip
    add("--compare", metavar="OTHER",
        help="instead compare this build with another: the path of a libflashnce.so, a build folder, or a git "
        "revision, which is built first")  # fmt: skip
    add("--presets", nargs="+", default=list(compare.PRESETS), choices=compare.PRESETS, metavar="PRESET",
        help="of --compare; default: all")  # fmt: skip
    add("--types", nargs="+", default=["float32"], choices=compare.TYPES, metavar="TYPE",
        help="of --compare, the element type of features and queue: " + ", ".join(compare.TYPES))  # fmt: skip
    add("--fail-above", type=float, metavar="R",
        help="of --compare: exit status 1 where this build takes over R times as long beyond the noise")  # fmt: skip
    add("--json", metavar="FILE", help="of --compare: write all of it there")
    add("--c-api", nargs=argparse.REMAINDER, metavar="OPTION",
        help="instead run the Google Benchmark program of the C interface; all that follows goes to it")  # fmt: skip
    return parser


def options_of(arguments: list[str]) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = parser_of(cores)
    options = parser.parse_args(arguments)
    if options.tables is None:
        options.tables = ["steps", "memory"] if options.record is None else [*grid.TABLES, "memory"]
        if options.isa and options.record is None:
            options.tables = ["isa"]
        elif options.quick:
            options.tables = ["steps"]
    if options.no_memory:
        options.tables = [table for table in options.tables if table != "memory"]
    if options.compare is None and options.isa is None:
        options.isa = grid.instruction_sets() if "isa" in options.tables else []
    options.pages = options.shapes or grid.PAGES
    options.shapes = options.shapes or grid.SHAPES
    try:
        for name in ("shapes", "grid", "pages"):
            setattr(options, name, [Shape.parse(text) for text in getattr(options, name)])
        options.memory_shape = Shape.parse(options.memory_shape)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds is None and options.compare is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds is not None and options.rounds < 1:
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


def write_record(record: dict, file: str) -> None:
    slug = re.sub(r"[^a-z0-9]+", "-", record["machine"]["cpu"].lower()).strip("-")
    path = Path(file) if file else BENCH / "records" / f"{record['date']}-{slug}.json"
    try:
        records.validate(record)
    except records.RecordError as error:
        sys.exit(f"run.py: no record written: {error}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(record))
    print(f"record: {path.name}")


def note_line(record: dict, threads: int, options: argparse.Namespace, line: dict) -> None:
    """Takes a line of a worker into the record, and prints it."""
    if "cell" in line:
        record["tables"].setdefault(line["table"], []).append(line["cell"])
        report.print_cell(line["table"], line["cell"])
    elif "left_out" in line:
        record["left_out"].append(line["left_out"])
    elif line.get("memory"):
        shape = sizes(options.memory_shape)
        record["memory"] = {"shape": shape, "threads": threads, "extra_mib": line["memory"]}
        report.print_memory(record["memory"])


def measure(record: dict, options: argparse.Namespace) -> None:
    """Fills the record."""
    probed: set[str | None] = set()
    for threads, isa, jobs in plan(options):
        if isa not in probed and (isa is not None or options.record is not None):
            probed.add(isa)
            environment = limits.environment(1, isa)
            entry = {"limit": isa, "flashnce": software.instruction_set(environment)}
            entry["peers"] = kernels.probe(environment)
            record["instruction_sets"].append(entry)
            report.print_kernels(entry)
        for line in work("peers.worker", threads, isa, jobs):
            note_line(record, threads, options, line)
            # The software is that of a process without a limit, if there is one.
            if "software" in line and (record["software"] is None or isa is None):
                record["software"] = line["software"]


def main() -> int:
    options = options_of(sys.argv[1:])
    if options.c_api is not None:
        run_c_api(options.c_api)
    if options.compare is not None:
        return compare.run(options)
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
        "settings": {"rounds": options.rounds, "temperature": TEMPERATURE, "seconds": 0.0},
        "instruction_sets": [],
        "tables": {},
        "left_out": [],
        "memory": None,
    }
    if record["machine"]["load"] > 0.5:
        print(f"this machine is not quiet: load {record['machine']['load']}; expect noise")
    measure(record, options)
    if record["software"] is None:
        sys.exit("run.py: there is nothing to measure here")
    print(f"\n{', '.join(f'{name} {value}' for name, value in record['software'].items())}")
    record["settings"]["seconds"] = round(time.monotonic() - start, 1)
    print(f"{record['settings']['seconds']:.0f} s")
    if options.record is not None:
        write_record(record, options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
