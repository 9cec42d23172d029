"""Compares two builds of the library: both in one process, turn by turn, their ratio taken in every round.

`ratio` is this build's time over the other's. Beside its median stands an interval that holds the true median with a
probability of 95 % or more, whatever the noise is distributed like, and how probable a sign test finds ratios as
one-sided as these if the builds were equally fast. A build compared with itself shows what remains.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

from session import sizes, work

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from revisions import NAMES, RevisionError, build, commit_of, configure, library_in  # noqa: E402

PRESETS = ("moco", "ft", "ft-elementwise")
TYPES = ("float32", "bfloat16", "float16")
ROUNDS, QUICK_ROUNDS = 21, 7
CONFIDENCE = 0.95


def sign_test(ratios: list[float]) -> float:
    """Probability of so few ratios on one side of 1, or fewer, if both were as likely; two-sided, without ties."""
    above, below = sum(r > 1 for r in ratios), sum(r < 1 for r in ratios)
    count = above + below
    tail = sum(math.comb(count, i) for i in range(min(above, below) + 1)) / 2**count
    return min(1.0, 2 * tail)


def median_interval(values: list[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median of the distribution with that probability; where all
    values are too few for it, the smallest and the largest."""
    ordered, count = sorted(values), len(values)
    depth, outside = 0, 1 / 2**count  # of the distribution below ordered[depth], one side
    while 2 * (outside + math.comb(count, depth + 1) / 2**count) <= 1 - confidence:
        depth += 1
        outside += math.comb(count, depth) / 2**count
    return ordered[depth], ordered[count - 1 - depth]


def built(revision: str) -> Path:
    """The library of a commit, from a build folder of its own that is kept."""
    commit = commit_of(revision)
    folder = ROOT / "build" / f"compare-{commit[:12]}"
    library = library_in(folder)
    if library is not None:
        return library
    print(f"building {revision} ({commit[:12]})", flush=True)
    configure(revision, folder, ["-DFLASHNCE_TESTS=OFF", "-DFLASHNCE_BENCH=OFF"])
    build(revision, folder, "flashnce")
    library = library_in(folder)
    if library is None:
        raise RevisionError(f"the build of {revision} has made no {NAMES[0]}")
    return library


def library_of(other: str) -> Path:
    """The library that `other` names: a file, a build folder, or else a revision."""
    path = Path(other)
    if path.is_file():
        return path.resolve()
    if path.is_dir():
        library = library_in(path)
        if library is None:
            raise RevisionError(f"{other} has no {NAMES[0]}, nor have its src and lib")
        return library.resolve()
    return built(other)


def summary(ratios: list[float]) -> dict:
    low, high = median_interval(ratios)
    return {
        "median": statistics.median(ratios),
        "low": low,
        "high": high,
        "min": min(ratios),
        "max": max(ratios),
        "p": sign_test(ratios),
    }


def verdict(ratio: dict) -> str:
    if ratio["low"] > 1:
        return "slower"
    return "faster" if ratio["high"] < 1 else "no difference seen"


HEAD = (
    f"  {'N, K, D':20}{'preset':15}{'type':9}{'isa':>19} {'threads':>7}{'this ms':>10}{'other ms':>10}"
    f"{'ratio':>8}  {'95 % interval':>15}  {'min .. max':>15}  {'sign test':>9}  "
)


def print_cell(cell: dict) -> None:
    line = f"  {', '.join(map(str, cell['shape'])):20}{cell['preset']:15}{cell['type']:9}"
    line += f"{'/'.join(dict.fromkeys(cell['isa'].values())):>19} {cell['threads']:7}"
    if cell["lacks"]:
        reasons = "; ".join(f"{who} build: {why}" for who, why in cell["lacks"].items())
        print(f"{line}  not compared: {reasons}", flush=True)
        return
    ratio = cell["ratio"]
    line += f"{cell['ms']['this']['median']:10.3f}{cell['ms']['other']['median']:10.3f}{ratio['median']:8.3f}"
    line += f"  {ratio['low']:6.3f} .. {ratio['high']:5.3f}  {ratio['min']:6.3f} .. {ratio['max']:5.3f}"
    print(f"{line}  {ratio['p']:9.2g}  {verdict(ratio)}; {cell['results']}", flush=True)


def measured(options: argparse.Namespace, other: Path) -> list[dict]:
    """All cells, printed as they come."""
    job = {
        "other": str(other),
        "shapes": [sizes(shape) for shape in options.shapes],
        "presets": options.presets,
        "types": options.types,
        "rounds": options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
    }
    cells = []
    for isa in options.isa or [None]:
        for threads in options.threads:
            for line in work("peers.pairs", threads, isa, [job]):
                if "builds" in line:
                    if not cells:
                        print(f"this  {line['builds']['this']}\nother {line['builds']['other']}\n{HEAD}")
                    continue
                cell = line["cell"]
                if not cell["lacks"]:
                    cell["ratio"] = summary(cell["ratios"])
                cells.append(cell)
                print_cell(cell)
    return cells


def run(options: argparse.Namespace) -> int:
    """The exit status."""
    try:
        other = library_of(options.compare)
    except RevisionError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    cells = measured(options, other)
    if options.json:
        Path(options.json).write_text(json.dumps(cells, indent=1) + "\n")
    both = [cell for cell in cells if not cell["lacks"]]
    if not both:
        print("run.py: the builds have none of these cells in common", file=sys.stderr)
        return 2
    medians = [cell["ratio"]["median"] for cell in both]
    mean = math.exp(statistics.fmean(map(math.log, medians)))
    print(f"\n{len(both)} of {len(cells)} cells compared; ratio this/other {min(medians):.3f} to {max(medians):.3f}, "
          f"geometric mean {mean:.3f}")  # fmt: skip
    if options.fail_above is None:
        return 0
    slow = [cell for cell in both if cell["ratio"]["low"] > options.fail_above]
    for cell in slow:
        print(f"above {options.fail_above:g} beyond the noise: {', '.join(map(str, cell['shape']))} {cell['preset']} "
              f"{cell['type']} on {cell['threads']}: {cell['ratio']['low']:.3f} at least")  # fmt: skip
    return 1 if slow else 0
