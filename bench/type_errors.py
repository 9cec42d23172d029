"""What an element type costs in accuracy: loss and dq of one step for every type of features and of the queue.

    python bench/type_errors.py                       measures, prints a table in Markdown (half a minute)
    python bench/type_errors.py --record NAME.json    also keeps the figures, with machine, commit and software
    python bench/type_errors.py --from NAME.json      prints the table of a record

Each combination is compared twice with the same step in float64 (flashnce.reference.info_nce) and the same draws: on
the numbers as the types hold them, which is the error of the computation, and on the float32 numbers that they were
rounded from, which is what a user loses who chooses the type. dq has the features' type, as autograd returns it.
"""

from __future__ import annotations

import argparse
import json
from copy import copy
from pathlib import Path

import torch
from flashnce._library import TYPES
from flashnce.torch import InfoNCE
from peers import software
from peers.errors import errors_of, reference_step
from peers.ours import SEED, draws_of
from peers.loaded import own
from peers.steps import TEMPERATURE, Inputs, Shape
from record_text import text_of
from render import table_of

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = 1
PRESET = "ft"


def products(shape: Shape, features: str, queue: str) -> str:
    """The type that scores are multiplied in, as the plan tells it."""
    library = own()
    problem = library.problem(PRESET)
    problem.n, problem.k, problem.d = shape.n, shape.k, shape.d
    problem.feature_type, problem.queue_type = TYPES[features], TYPES[queue]
    plan, _ = library.plan(problem)
    name = library.products(plan)
    library.handle.fnce_plan_destroy(plan)
    return name


def typed(inputs: Inputs, features: str, queue: str) -> Inputs:
    """The same numbers, rounded to the types."""
    other = copy(inputs)
    other.x_q, other.x_k = (x.detach().to(getattr(torch, features)) for x in (inputs.x_q, inputs.x_k))
    other.queue = inputs.queue.to(getattr(torch, queue))
    return other


def measure(shape: Shape) -> list[dict]:
    """One cell per combination."""
    inputs, draws = Inputs(shape), draws_of(PRESET, shape)
    unrounded = reference_step(inputs, draws)
    criterion = InfoNCE(temperature=TEMPERATURE, preset=PRESET)
    cells = []
    for features in TYPES:
        for queue in TYPES:
            given = typed(inputs, features, queue)
            x_q = given.x_q.requires_grad_()
            loss = criterion(x_q, given.x_k, given.queue, seed=SEED)
            result = (loss.item(), torch.autograd.grad(loss, x_q)[0])
            cells.append({
                "features": features,
                "queue": queue,
                "products": products(shape, features, queue),
                "of_computation": errors_of(result, reference_step(given, draws)),
                "of_type": errors_of(result, unrounded),
            })  # fmt: skip
    return cells


def table(record: dict) -> list[str]:
    """The record as Markdown."""
    n, k, d = record["shape"]
    names = ("of_computation", "of_type")
    rows = [
        [cell["features"], cell["queue"], cell["products"]]
        + [f"{cell[name][error]:.1e}" for name in names for error in ("loss_error", "dq_error")]
        for cell in record["cells"]
    ]
    head = ["features, dq", "queue", "products", "loss", "dq", "loss, with the type", "dq, with the type"]
    return [
        f"Errors of one `{PRESET}` step, N, K, D = {n}, {k}, {d}, against float64 with the same draws: on the rounded "
        "numbers,",
        "and on the float32 numbers before they were rounded. Loss: relative; dq: the worst row, relative to its norm.",
        "",
        *table_of(head, rows, left=3),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=Shape.parse, default=Shape(64, 65536, 128), metavar="NxKxD")
    parser.add_argument("--record", type=Path, metavar="NAME.json", help="where the figures are kept")
    parser.add_argument("--from", dest="source", type=Path, metavar="NAME.json", help="a record, instead of measuring")
    options = parser.parse_args()
    if options.source:
        record = json.loads(options.source.read_text())
    else:
        shape = options.shape
        record = {
            "schema": SCHEMA,
            "date": software.today(),
            "commit": software.commit(ROOT),
            "machine": software.machine(),
            "software": software.describe(),
            "shape": [shape.n, shape.k, shape.d],
            "cells": measure(shape),
        }
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(text_of(record))
    print("\n".join(table(record)))


if __name__ == "__main__":
    main()
