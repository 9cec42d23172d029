"""One cell of a record: the peers of a table on one shape, their times, ratios and errors."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from . import ours, tables
from .errors import errors_of, errors_of_rows, reference_rows, reference_step, some_rows
from .loaded import Unsupported, own
from .measure import SLOW, measure, ratio, spread
from .steps import Inputs, Shape

# A shape is left out if the two products of a step take more operations, on one thread and on more. That is a second
# or ten a round.
MOST_OPERATIONS = (4e10, 1e12)
MOST_MEMORY = 0.7  # of what is free


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def left_out(shape: Shape, threads: int) -> str | None:
    """Why a shape of the table of shapes is not measured, if it is not."""
    most = MOST_OPERATIONS[threads > 1]
    if tables.step_of(shape) > most:
        return f"more than {most:.0e} operations a step take too long"
    needed = 4 * (shape.n * shape.k + 3 * shape.k * shape.d)
    free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    if needed > MOST_MEMORY * int(free.split()[1]) * 1024:
        return f"the scores of two GEMMs and the queue need {needed / 2**30:.1f} GiB"
    return None


def make_peers(peers: tables.Makers, inputs: Inputs) -> tuple[dict, dict[str, float], dict[str, str]]:
    """The peers that work here after one step each, the seconds that it took, and why the others do not."""
    made, seconds, skipped = {}, {}, {}
    for name, make in peers.items():
        missing = getattr(make, "missing", lambda: None)()
        if missing:
            skipped[name] = missing
            continue
        try:
            peer = make(inputs)
            start = time.perf_counter()
            peer.step()
        except Exception as error:
            # Only what depends on this machine or on the build of the library may fail.
            if not hasattr(make, "missing"):
                raise
            log(f"{name}: {error}")
            unsupported = isinstance(error, Unsupported)
            skipped[name] = str(error) if unsupported else f"its first step raised {type(error).__name__}"
            continue
        made[name], seconds[name] = peer, time.perf_counter() - start
    return made, seconds, skipped


def errors(table: str, inputs: Inputs, made: dict) -> dict[str, dict[str, float]]:
    """Of every peer that has a loss: of the whole batch, or of a few of its queries."""
    found, expected = {}, {}
    rows = some_rows(inputs.shape)
    for name, peer in made.items():
        transformation = peer.transformation
        if transformation is None:
            continue
        # The float64 step starts from the numbers as the peer got them.
        given = peer.inputs if table in tables.SOME_ROWS else inputs
        key = (transformation, given.queue.dtype)
        if key not in expected:
            draws = ours.draws_of(transformation, inputs.shape)
            answer = reference_rows(given, draws, rows) if table in tables.SOME_ROWS else reference_step(given, draws)
            expected[key] = (draws, answer)
        draws, answer = expected[key]
        if table in tables.SOME_ROWS:
            single = ours.CInterface(given, transformation, reduction="none")
            found[name] = errors_of_rows(single.run(), answer, rows)
        else:
            found[name] = errors_of(peer.result(draws), answer)
    return found


def cell(job: dict, shape: Shape) -> dict:
    """As in a record."""
    torch.manual_seed(0)
    inputs = Inputs(shape)
    makers, bases = tables.TABLES[job["table"]](job, inputs)
    made, seconds, skipped = make_peers(makers, inputs)
    slow = SLOW if job["table"] == "steps" else SLOW / 3
    times = measure({name: peer.step for name, peer in made.items()}, job["rounds"], job["threads"], seconds, slow)
    results = {name: {"ms": spread(times[name]), "rounds": len(times[name])} for name in made}
    found = errors(job["table"], inputs, made)
    for name, result in results.items():
        result["ratios"] = {base: ratio(times, name, base) for base in bases}
        result |= found.get(name, {})
        products = getattr(made[name], "products", lambda: None)()
        if products:
            result["products"] = products
    fastest = min(bases, key=lambda name: results[name]["ms"]["median"]) if bases else None
    return {
        "shape": [shape.n, shape.k, shape.d],
        "threads": job["threads"],
        "isa": own().instruction_set(),
        "gemms": fastest,
        "peers": results,
        "skipped": skipped,
        "comparisons": {
            name: {"of": list(pair), **ratio(times, *pair)}
            for name, pair in tables.COMPARISONS.items()
            if all(peer in made for peer in pair)
        },
    }
