"""One rank of tests/python/test_sharded_columns.py: python sharded_columns_worker.py RANK STORE WORLD."""

from __future__ import annotations

import gc
import sys
from datetime import timedelta

import torch
from columns_cases import TAU, D
from support import assert_close, bound, generator
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from flashnce import NO_COLUMN
from flashnce.torch import Mix, Queue, ShardedQueue, info_nce

RANK, STORE, WORLD = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
K, SEED = 85, 7
SIZES = {"even": (6,) * WORLD, "uneven": (5, 9, 2)[:WORLD], "a rank without rows": (7, 0, 3)[:WORLD]}
FT = {"positive": Mix(2.0, shift=1.0, per="row"), "negative": Mix(1.6, per="row"), "seed": SEED}


def data(sizes):
    n = sum(sizes)
    q = torch.randn(n, D, generator=generator(1))
    k = q + 0.7 * torch.randn(n, D, generator=generator(2))
    weight = torch.rand(n, generator=generator(3))
    weight[1] = 0
    return q, k, weight


def queues() -> tuple[Queue, ShardedQueue]:
    """The same ring in one process and over all, with ids and two slots that nobody counts."""
    one, all_of = Queue(K, D, ids=True, empty=True), ShardedQueue(K, D, perm_block=16, ids=True, empty=True)
    for step in range(4):
        counts = [(3, 30, 1)[(step + rank) % 3] for rank in range(WORLD)]
        keys = torch.randn(sum(counts), D, generator=generator(20 + step))
        ids = torch.randint(0, 30, (sum(counts),), generator=generator(30 + step))
        ids[0] = NO_COLUMN
        one.push(keys, ids)
        start = sum(counts[:RANK])
        all_of.push(keys[start : start + counts[RANK]], ids[start : start + counts[RANK]])
    return one, all_of


QUEUE_BIAS = torch.randn(K, generator=generator(5))
# Options, which tensors of rows among them are cut to the rank's own, and whether there is a queue.
CASES: dict[str, tuple[dict, bool]] = {
    "a batch": ({}, False),
    "weights": ({"weight": "weight"}, False),
    "a margin": ({"margin": 0.05}, False),
    "decoupled": ({"form": "decoupled"}, False),
    "ids": ({"ids": "halves"}, False),
    "ids and a bias": ({"ids": "halves", "batch_bias": "bias"}, False),
    "mixed positives": ({"positive": FT["positive"], "seed": SEED}, False),
    "a queue with ids": ({"ids": "halves"}, True),
    "everything": (
        {"ids": "halves", "batch_bias": "bias", "bias": QUEUE_BIAS, "margin": 0.3, "weight": "weight"}, True,
    ),
}


def cut(options: dict, rows: dict, part: slice) -> dict:
    return {name: rows[value][part] if isinstance(value, str) and value in rows else value
            for name, value in options.items()}  # fmt: skip


def compare(name: str, sizes: tuple[int, ...], reduction: str) -> None:
    options, queued = CASES[name]
    q, k, weight = data(sizes)
    rows = {"weight": weight, "halves": torch.arange(len(q)) // 2, "bias": torch.randn(len(q), generator=generator(4))}
    start = sum(sizes[:RANK])
    part = slice(start, start + sizes[RANK])

    def leaves(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        tau = torch.tensor(TAU)
        return tuple(x.clone().requires_grad_() for x in (q[part], k[part], tau))

    whole = leaves(slice(None))
    losses, statistics = info_nce(
        *whole[:2], ONE if queued else None, batch=True, temperature=whole[2], reduction="none", return_scores=True,
        **cut(options, rows, slice(None)),
    )  # fmt: skip
    # One process has the sum of what the ranks have.
    parts = losses.split(list(sizes))
    total = sum(x.mean() if reduction == "mean" else x.sum() for x in parts if len(x))
    expected = torch.autograd.grad(total, whole[:2], retain_graph=True)
    of_own = parts[RANK].mean() if reduction == "mean" else parts[RANK].sum()
    leaf = leaves(part)
    loss, found = info_nce(
        *leaf[:2], SHARDS if queued else None, batch=True, gather=True, temperature=leaf[2], reduction=reduction,
        return_scores=True, **cut(options, rows, part),
    )  # fmt: skip
    gradients = torch.autograd.grad(loss.sum(), leaf)
    tolerance = 2 * bound(TAU, 2.0)
    if sizes[RANK]:
        assert_close(loss.sum(), of_own, tolerance, f"{name} loss")
        dtau = torch.autograd.grad(of_own, whole[2])[0] if sizes[RANK] else None
        assert_close(gradients[2], dtau, tolerance, f"{name} dtau")
    for which, actual, wanted in zip(("dq", "dk"), gradients, expected):
        assert_close(actual, wanted[part], tolerance, f"{name} {which}")
    assert torch.equal(found.mixed.neg_count, statistics.mixed.neg_count[part]), name
    assert (found.mixed.entropy is None) == (statistics.mixed.entropy is None)


def mixed_negatives() -> None:
    """The draws of a ShardedQueue in one process are those of many."""
    q, k, _ = data(SIZES["even"])
    ids = torch.arange(len(q)) // 2
    options = {**FT, "temperature": TAU, "detach_key": False, "reduction": "sum"}
    part = slice(6 * RANK, 6 * RANK + 6)
    leaf = [x[part].clone().requires_grad_() for x in (q, k)]
    loss, found = info_nce(*leaf, SHARDS, batch=True, ids=ids[part], bias=QUEUE_BIAS, return_scores=True, **options)
    losses = [torch.zeros(()) for _ in range(WORLD)]
    distributed.all_gather(losses, loss.detach())
    gradients = torch.autograd.grad(loss, leaf)
    alone = ShardedQueue(K, D, perm_block=16, ids=True, group=ALONE[RANK])
    alone.load_state_dict({"queue": SHARDS.full_queue(), "ids": SHARDS.full_ids(), "position": SHARDS.position})
    whole = [x.clone().requires_grad_() for x in (q, k)]
    expected = info_nce(*whole, alone, batch=True, ids=ids, bias=QUEUE_BIAS, **options)
    assert_close(sum(losses), expected, bound(TAU, 4.0))
    for actual, wanted in zip(gradients, torch.autograd.grad(expected, whole)):
        assert_close(actual, wanted[part], 2 * bound(TAU, 4.0))


def ratio_under_ddp() -> None:
    """The mean over ranks that DistributedDataParallel makes is the gradient of one process's mean over all rows."""
    q, k, _ = data(SIZES["even"])
    torch.manual_seed(0)
    plain = nn.Linear(D, D)
    model = DistributedDataParallel(plain)
    part = slice(6 * RANK, 6 * RANK + 6)
    both = model(torch.cat([q[part], k[part]]))
    info_nce(both[:6], both[6:], batch=True, gather=True, temperature=TAU).backward()
    alone = nn.Linear(D, D)
    alone.load_state_dict(plain.state_dict())
    info_nce(alone(q), alone(k), batch=True, temperature=TAU).backward()
    assert_close(plain.weight.grad, alone.weight.grad, 2 * bound(TAU), "ratio")


def error_of(function, *arguments, **options) -> str:
    try:
        function(*arguments, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def errors() -> list[str]:
    q, k, _ = data((4,))
    odd = RANK == WORLD - 1
    call = lambda **options: info_nce(q, k, batch=True, gather=True, detach_key=True, **options)  # noqa: E731
    ids = torch.arange(4)
    found = [
        error_of(call, ids=ids if odd else None),
        error_of(call, batch_bias=torch.zeros(4) if odd else None),
        error_of(call, margin=0.1 if odd else None),
        error_of(call, ids=ids[:3] if odd else ids),
        error_of(info_nce, q, k.requires_grad_(odd), batch=True, gather=True),
        error_of(SHARDS.push, k.detach(), ids[:3] if odd else ids),
        error_of(SHARDS.push, k.detach(), None if odd else ids),
        error_of(call),
    ]
    return [text.removeprefix(f"ValueError: on rank {WORLD - 1}: ").removeprefix("ValueError: ") for text in found]


torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method="file://" + STORE, rank=RANK, world_size=WORLD, timeout=timedelta(seconds=60)
)
ALONE = [distributed.new_group([rank]) for rank in range(WORLD)]
ONE, SHARDS = queues()
assert torch.equal(SHARDS.full_ids(), ONE.ids) and torch.equal(SHARDS.full_queue(), ONE.queue)
for case in CASES:
    for rows in SIZES.values():
        for kind in ("mean", "sum"):
            compare(case, rows, kind)
mixed_negatives()
ratio_under_ddp()
twin = ShardedQueue(K, D, perm_block=16, ids=True)
twin.load_state_dict(SHARDS.state_dict())
assert torch.equal(twin.full_ids(), ONE.ids)
before = SHARDS.full_ids()
print(*errors(), sep="\n")
assert torch.equal(SHARDS.full_ids(), before)
gc.collect()
distributed.destroy_process_group()
