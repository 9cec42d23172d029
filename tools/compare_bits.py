"""Compares the results of two builds of the library bit for bit.

usage: compare_bits.py [--this FOLDER] OTHER

One program, tests/bits/result_bits of this tree, prints a digest of every array that a few hundred cases write: the
covering array of the options, sizes that reach several chunks and row blocks, random cases, values that are not finite,
each through the loss and its steps; the queue, the backward pass. It runs with this tree's library and with the other
one in its place, once per instruction set of this machine and per family of kernels on the harness of tests/hostcuda.

OTHER is a revision, which is built in a folder of its own, or a build folder. Ends with 0 where no bit differs, with 1
where one does or where only one of the builds can run something, with 2 where there is nothing to compare.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from revisions import ROOT, RevisionError, build, commit_of, configure, library_in

SKIPPED = 77
LISTED = 20  # cases of a run that are named
ISAS = ("baseline", "avx2", "avx512", "avx512_bf16", "amx", "neon")
# What chooses: nothing of the caller's environment may reach one run and not another.
CHOICES = ("FNCE_CPU_ISA", "FNCE_BACKEND", "FNCE_MULTIPROCESSORS", "FNCE_TEST_DEVICE", "FNCE_TEST_HOSTCUDA")
HARNESS = {"FNCE_TEST_DEVICE": "cuda", "FNCE_TEST_HOSTCUDA": "1"}


@dataclass(frozen=True)
class Run:
    """One run of the program: what it is called, in which folder of a build its library lies, and what chooses."""

    name: str
    folder: str
    choices: dict[str, str]


CPU_RUNS = [Run(f"cpu {isa}", "src", {"FNCE_CPU_ISA": isa}) for isa in ISAS]
HARNESS_RUNS = [
    Run("harness sm80", "tests/cuda/hostcuda", HARNESS),
    # As for a GPU of one multiprocessor: many queries then take the largest tiles.
    Run("harness sm80 large tiles", "tests/cuda/hostcuda", {**HARNESS, "FNCE_MULTIPROCESSORS": "1"}),
    Run("harness plain", "tests/cuda/hostcuda", {**HARNESS, "FNCE_BACKEND": "plain"}),
]


class Unusable(Exception):
    """A build cannot do a run: it lacks it, or this machine does."""


class Broken(Exception):
    """The program did not come to its end."""


def digests(program: Path, folder: Path, run: Run) -> dict[str, dict[str, str]]:
    """{words of a case: {array: digest}}."""
    library = library_in(folder, (run.folder,))
    if library is None:
        raise Unusable(f"{folder} has no {run.folder}")
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    environment |= {"LD_LIBRARY_PATH": str(library.parent), **run.choices}
    done = subprocess.run([str(program)], env=environment, capture_output=True, text=True)
    if done.returncode == SKIPPED:
        raise Unusable(done.stderr.strip())
    if done.returncode != 0:
        where = done.stdout.splitlines()[-1:] or ["the start"]
        raise Broken(f"{library} ends with {done.returncode} after {where[0][:160]} {done.stderr[-1000:]}".rstrip())
    first, *lines = done.stdout.splitlines()
    loaded = Path(first.removeprefix("library "))
    if not loaded.samefile(library):
        raise RevisionError(f"{run.name}: {loaded} was loaded in place of {library}")
    cases = {}
    for line in lines:
        words, _, rest = line.partition(" |")
        cases[words] = dict(pair.split("=", 1) for pair in rest.split())
    if len(cases) != len(lines):
        raise RevisionError(f"{run.name}: two cases have the same words")
    return cases


def differences(this: dict, other: dict) -> list[str]:
    """A line for every case with arrays that differ, or that one of them has not written."""
    found = []
    for words in sorted({*this, *other}):
        a, b = this.get(words, {}), other.get(words, {})
        names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
        if names or not a or not b:
            found.append(f"{words}\n      {', '.join(names) or 'no case'}")
    return found


def compared(program: Path, folders: tuple[Path, Path], run: Run) -> tuple[int, bool]:
    """Prints what a run found: the number of cases, and whether the builds agree."""
    results, reasons, failures = [], [], []
    with ThreadPoolExecutor() as threads:
        for future in [threads.submit(digests, program, folder, run) for folder in folders]:
            try:
                results.append(future.result())
            except Unusable as reason:
                reasons.append(str(reason))
            except Broken as failure:
                failures.append(str(failure))
    if failures:
        print(f"  {run.name:26} FAILED: {'; '.join(failures)}", flush=True)
        return 0, False
    if len(reasons) == 2:
        print(f"  {run.name:26} not here: {reasons[0]}", flush=True)
        return 0, True
    if reasons:
        print(f"  {run.name:26} in one build only: {reasons[0]}", flush=True)
        return 0, False
    found = differences(*results)
    cases, arrays = len(results[0]), sum(map(len, results[0].values()))
    verdict = f"{len(found)} cases differ" if found else "none differ"
    print(f"  {run.name:26} {verdict} of {cases} cases, {arrays} arrays")
    for line in found[:LISTED]:
        print(f"    {line}")
    if len(found) > LISTED:
        print(f"    and {len(found) - LISTED} more")
    sys.stdout.flush()
    return cases, not found


def built(revision: str) -> Path:
    """The build folder of a revision with the libraries that the runs take, as far as the revision has them."""
    commit = commit_of(revision)
    folder = ROOT / "build" / f"bits-{commit[:12]}"
    if library_in(folder, ("src",)) is None:
        print(f"building {revision} ({commit[:12]})", flush=True)
        configure(revision, folder, ["-DFLASHNCE_TESTS=ON", "-DFLASHNCE_BENCH=OFF", "-DFLASHNCE_CUDA=OFF"])
        build(revision, folder, "flashnce")
    if library_in(folder, ("tests/cuda/hostcuda",)) is None:
        try:
            build(revision, folder, "flashnce_hostcuda")
        except RevisionError as error:
            print(f"{revision} has no library of the harness: {str(error).splitlines()[-1]}", flush=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", metavar="OTHER", help="a revision or a build folder")
    parser.add_argument("--this", type=Path, default=ROOT / "build" / "release", help="the build folder of this tree")
    options = parser.parse_args()
    try:
        other = Path(options.other).resolve() if Path(options.other).is_dir() else built(options.other)
        folders = (options.this.resolve(), other)
        program = folders[0] / "tests" / "bits" / "result_bits"
        if not program.is_file():
            raise RevisionError(f"{folders[0]} has no result_bits")
        if library_in(other, ("src",)) is None:
            raise RevisionError(f"{other} has no library")
        print(f"this {folders[0]}, other {other}", flush=True)
        outcomes = [compared(program, folders, run) for run in CPU_RUNS + HARNESS_RUNS]
    except RevisionError as error:
        print(f"compare_bits.py: {error}", file=sys.stderr)
        return 2
    cases, agree = sum(count for count, _ in outcomes), all(same for _, same in outcomes)
    if not agree:
        print(f"bits: SOME DIFFER ({cases} cases compared)")
        return 1
    print(f"bits: none differ ({cases} cases)")
    return 0 if cases else 2


if __name__ == "__main__":
    sys.exit(main())
