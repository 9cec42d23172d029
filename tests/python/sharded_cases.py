"""The calls that tests of ShardedQueue make in one process and in several, and what each rank has of their data."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch_device
from support import batch
from torch import Tensor

from flashnce.torch import PRESETS, Mix, ShardedQueue, info_nce

TEMPERATURE, SEED, D = 0.2, 11, 12
EVEN, UNEVEN = (6, 6, 6), (5, 9, 2)
FT = dict(zip(("positive", "negative"), PRESETS["ft"]))
ELEMENTWISE = dict(zip(("positive", "negative"), PRESETS["ft-elementwise"]))
ROWS = {"positive": Mix(2.0, shift=1.0, per="row"), "negative": Mix(1.6, per="row")}
RENORMALIZED = {
    "positive": Mix(2.0, shift=1.0, per="dimension", renormalize=True),
    "negative": Mix(1.6, per="dimension", renormalize=True),
}


@dataclass
class Case:
    """K negatives in blocks, options of info_nce, and how many rows the ranks have."""

    k: int
    perm_block: int
    options: dict = field(default_factory=dict)
    rows: tuple[int, ...] = EVEN
    weighted: bool = False
    lambda_neg: bool = False
    """Whether lambda_neg is explicit, of the whole queue."""
    check: bool = True
    features: torch.dtype = torch.float32
    queue: torch.dtype = torch.float32


CASES = {
    "moco": Case(96, 16),
    "ft": Case(96, 16, FT),
    "ft, uneven rows": Case(96, 16, FT, UNEVEN),
    "ft-elementwise": Case(96, 32, ELEMENTWISE, UNEVEN),
    "union": Case(96, 16, ROWS | {"columns": "union"}),
    "the plain query as anchor": Case(96, 16, ROWS | {"anchor": "query"}),
    "renormalised": Case(96, 32, RENORMALIZED),
    "a last block that is not full": Case(85, 16, ELEMENTWISE),
    "an empty shard": Case(40, 32, FT, UNEVEN),
    "one block, empty shards": Case(17, 32, ROWS),
    "sum": Case(96, 16, FT | {"reduction": "sum"}, UNEVEN),
    "a rank without rows": Case(96, 16, FT | {"reduction": "sum"}, (5, 0, 3)),
    "weights, row by row": Case(96, 16, FT | {"reduction": "none"}, UNEVEN, weighted=True),
    "explicit lambda": Case(85, 16, {}, UNEVEN, lambda_neg=True),
    "explicit lambda, an empty shard": Case(17, 32, {}, lambda_neg=True),
    "bfloat16": Case(96, 16, FT, UNEVEN, features=torch.bfloat16, queue=torch.bfloat16),
    "float16 queue": Case(96, 16, ELEMENTWISE, queue=torch.float16),
    "without checks": Case(96, 16, FT, check=False),
}
if torch_device.is_cpu():  # CUDA plans refuse it
    CASES["decoupled"] = Case(96, 16, ROWS | {"form": "decoupled"}, UNEVEN)


def rows_of(case: Case, rank: int) -> slice:
    """The rank's rows of the batch."""
    start = sum(case.rows[:rank])
    return slice(start, start + case.rows[rank])


def data_of(case: Case, world: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """q, k and negatives of all ranks, their weights, lambda_neg. The negatives are those of any number of ranks."""
    q, k, negatives = batch(sum(case.rows), case.k, D)
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(len(q), generator=generator).round(decimals=1) if case.weighted else None
    lambda_neg = torch.rand(case.k, 1, generator=generator) if case.lambda_neg else None
    n = sum(case.rows[:world])
    q, k = (x.detach()[:n].to(case.features) for x in (q, k))
    return q, k, negatives.to(case.queue), None if weight is None else weight[:n], lambda_neg


def options_of(case: Case, weight: Tensor | None, lambda_neg: Tensor | None) -> dict:
    """Of one process that has all the rows."""
    return case.options | {"weight": weight, "lambda_neg": lambda_neg, "detach_key": False}


def queue_of(case: Case) -> ShardedQueue:
    """Of as many processes as there are, with the case's negatives."""
    queue = ShardedQueue(case.k, D, perm_block=case.perm_block, dtype=case.queue, check=case.check)
    queue.load_state_dict({"queue": data_of(case, 1)[2], "position": torch.tensor([0])})
    return queue


def run(case: Case, world: int, rank: int) -> dict[str, Tensor]:
    """Loss, gradients and statistics of this rank's rows."""
    q, k, _, weight, lambda_neg = data_of(case, world)
    rows = rows_of(case, rank)
    q, k = q[rows].clone().requires_grad_(), k[rows].clone().requires_grad_()
    temperature = torch.tensor(TEMPERATURE, requires_grad=True)
    options = options_of(case, None if weight is None else weight[rows], lambda_neg)
    loss, scores = info_nce(q, k, queue_of(case), temperature=temperature, seed=SEED, return_scores=True, **options)
    dq, dk, dtemperature = torch.autograd.grad(loss.sum(), (q, k, temperature))
    results = {"loss": loss.detach(), "dq": dq, "dk": dk, "dtemperature": dtemperature}
    for name, statistics in (("mixed", scores.mixed), ("unmixed", scores.unmixed)):
        results |= {f"{name}.{key}": value for key, value in statistics._asdict().items() if value is not None}
    return results
