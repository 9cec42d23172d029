"""Batch columns, ids and biases over 3 and 2 processes, beside one process: what each rank of sharded_columns_worker.py
compares for itself, and which errors all ranks have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import outputs_of
from support import assert_close, batch, bound, cpu_only

from flashnce import NO_COLUMN
from flashnce.torch import InfoNCE, Queue, ShardedQueue, info_nce

pytestmark = [
    cpu_only,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]
WORKER = Path(__file__).with_name("sharded_columns_worker.py")
N, K, D = 6, 40, 8


@pytest.mark.parametrize("world", [3, 2])
def test_each_rank_finds_what_one_process_finds_and_all_have_one_error(world, tmp_path):
    last = world - 1
    differs = "{} on rank " + str(last) + " and {} on rank 0; it must be the same"
    expected = [
        "whether ids are row numbers is " + differs.format(False, True),
        "whether bias is given is " + differs.format(True, False),
        "whether margin is given is " + differs.format(True, False),
        "ids has shape [3]; it must be [4]",
        "whether a gradient of the batch is wanted is " + differs.format(True, False),
        "ids has shape [3]; it must be [4]",
        "ids is None; a ShardedQueue with ids=True needs those of the keys",
        "nothing",
    ]
    wanted = " ".join(expected).split()
    assert outputs_of(WORKER.read_text(), tmp_path, world) == [wanted] * world


def test_one_process_alone_needs_no_group():
    q, k, _ = batch(N, K, D)
    k.requires_grad_()
    shared = info_nce(q, k, batch=True, gather=True, temperature=0.2)
    alone = info_nce(q, k, batch=True, temperature=0.2)
    assert shared.item() == InfoNCE(0.2, batch=True)(q, k, gather=True).item()
    assert_close(shared, alone, bound(0.2))
    expected = torch.autograd.grad(alone, (q, k))
    for actual, wanted in zip(torch.autograd.grad(shared, (q, k), create_graph=True), expected):
        assert_close(actual, wanted, 2 * bound(0.2))
        with pytest.raises(NotImplementedError, match="no second derivative"):
            torch.autograd.grad(actual.sum(), q, retain_graph=True)


def test_a_sharded_queue_has_the_ids_of_a_queue():
    queue, shards = Queue(K, D, ids=True, empty=True), ShardedQueue(K, D, perm_block=16, ids=True, empty=True)
    for ids in (torch.arange(13), torch.tensor([NO_COLUMN, 5, 6]), torch.arange(2 * K)):
        keys = torch.randn(len(ids), D)
        queue.push(keys, ids)
        shards.push(keys, ids)
        assert torch.equal(queue.ids, shards.ids) and torch.equal(queue.queue, shards.queue)
    q, k, _ = batch(N, K, D)
    found = [info_nce(q, k, x, ids=torch.arange(N), temperature=0.2) for x in (queue, shards)]
    assert_close(*found, bound(0.2))
    assert "ids" in shards.state_dict() and "ids" not in ShardedQueue(K, D).state_dict()
    assert ShardedQueue(K, D).full_ids() is None
    shards.reset_parameters()
    assert (shards.full_ids() == NO_COLUMN).all() and not shards.queue.any()
    # The state of a queue without ids is full.
    unnamed = ShardedQueue(K, D, empty=True)
    unnamed.load_state_dict(Queue(K, D).state_dict())
    assert (unnamed.ids == NO_COLUMN + 1).all()


@pytest.mark.parametrize(
    ("words", "kind", "wrong"),
    [
        ("gather is a str", TypeError, {"gather": "yes"}),
        ("gather is True and negatives is a Tensor", ValueError, {"gather": True, "negatives": torch.zeros(K, D)}),
        ("gather is True and negatives is a Queue", ValueError, {"gather": True, "negatives": Queue(K, D)}),
        ("group is given", ValueError, {"group": object(), "negatives": ShardedQueue(K, D)}),
        ("group is given and gather is False", ValueError, {"group": object()}),
        ("negatives is None and batch is None", ValueError, {"gather": True, "batch": None}),
        ("negative_ids is given, but the ShardedQueue", ValueError, {
            "negatives": ShardedQueue(K, D, ids=True), "negative_ids": torch.arange(K), "batch": None
        }),
        ("bias has shape", ValueError, {"negatives": ShardedQueue(K, D), "bias": torch.zeros(3)}),
    ],
)  # fmt: skip
def test_wrong_arguments(words, kind, wrong):
    q, k, _ = batch(N, K, D)
    with pytest.raises(kind, match=words):
        info_nce(**{"q": q, "k": k, "batch": True, **wrong})
