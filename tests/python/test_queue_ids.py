"""A queue with ids and empty slots: what is kept beside each key, and what reset and resize do to it."""

from __future__ import annotations

import copy

import pytest
import torch
from support import generator
from torch.nn.functional import normalize

from flashnce import NO_COLUMN
from flashnce.torch import Queue, scores

# The id of what was filled without one.
UNNAMED = NO_COLUMN + 1


@pytest.mark.parametrize("sizes", [(4, 4, 4), (7, 0, 5), (10,), (25,), (9, 13), (1,) * 12])
def test_ids_lie_beside_their_keys(sizes):
    queue, expected, position = Queue(10, 3, ids=True, empty=True), [NO_COLUMN] * 10, 0
    rows = torch.zeros(10, 3)
    for size in sizes:
        keys, ids = torch.randn(size, 3), torch.randint(0, 2**40, (size,))
        queue.push(keys, ids)
        for key, number in zip(keys, ids.tolist()):
            rows[position], expected[position] = normalize(key, dim=0), number
            position = (position + 1) % 10
        assert queue.ids.tolist() == expected and queue.position.item() == position
        assert torch.allclose(queue.queue, rows, atol=1e-6)
        assert queue.filled.item() == sum(number != NO_COLUMN for number in expected)


def test_what_slots_hold_before_they_are_filled():
    assert Queue(6, 2).ids is None and Queue(6, 2).filled.item() == 6
    assert set(Queue(6, 2).state_dict()) == {"queue", "position"}
    named, empty, both = Queue(6, 2, ids=True), Queue(6, 2, empty=True), Queue(6, 2, ids=True, empty=True)
    assert named.ids.tolist() == [UNNAMED] * 6 and torch.allclose(named.queue.norm(dim=1), torch.ones(6))
    assert named.filled.item() == 6
    for queue in (empty, both):
        assert queue.ids.tolist() == [NO_COLUMN] * 6 and queue.filled.item() == 0 and not queue.queue.any()
    empty.push(torch.randn(4, 2))
    assert empty.ids.tolist() == [UNNAMED] * 4 + [NO_COLUMN] * 2 and empty.filled.item() == 4
    both.push(torch.randn(2, 2), torch.tensor([5, NO_COLUMN]))
    assert both.filled.item() == 1
    assert "ids=True, empty=True" in repr(both)


def test_the_id_minus_one_is_one_like_any_other():
    q, k, queue = torch.randn(3, 2), torch.randn(3, 2), Queue(6, 2, ids=True)
    queue.push(k[:2], torch.tensor([-1, 7]))
    found = scores(q, k, queue, ids=torch.tensor([-1, 7, NO_COLUMN]))
    assert found.neg_count.tolist() == [5, 5, 6]


def test_reset_forgets_everything():
    queue = Queue(6, 2, ids=True, empty=True)
    queue.push(torch.randn(4, 2), torch.arange(4))
    queue.reset()
    assert queue.filled.item() == 0 and queue.position.item() == 0 and not queue.queue.any()
    plain = Queue(6, 2, generator=generator(1))
    first = plain.queue.clone()
    plain.push(torch.randn(4, 2))
    plain.reset(generator(1))
    assert torch.equal(plain.queue, first) and plain.position.item() == 0


@pytest.mark.parametrize("pushed", [0, 3, 6, 8, 17])
@pytest.mark.parametrize("size", [1, 4, 6, 9])
def test_resize_keeps_the_newest_keys_and_goes_on_behind_them(size, pushed):
    queue, keys = Queue(6, 2, ids=True, empty=True), torch.randn(17 + 20, 2)
    queue.push(keys[:pushed], torch.arange(pushed))
    queue.resize(size)
    kept = min(pushed, 6, size)
    assert len(queue) == len(queue.ids) == size and queue.filled.item() == kept
    assert set(queue.ids.tolist()) - {NO_COLUMN} == set(range(pushed - kept, pushed))
    for slot, number in enumerate(queue.ids.tolist()):
        wanted = normalize(keys[number], dim=0) if number != NO_COLUMN else torch.zeros(2)
        assert torch.allclose(queue.queue[slot], wanted, atol=1e-6)
    # As many new keys as there are slots, one after the other, leave nothing else; the oldest goes first.
    for number in range(pushed, pushed + size):
        queue.push(keys[number : number + 1], torch.tensor([number]))
        assert number in queue.ids
    assert set(queue.ids.tolist()) == set(range(pushed, pushed + size))


def test_resize_of_a_queue_that_is_never_empty():
    queue = Queue(4, 3)
    queue.push(torch.randn(6, 3))
    newest = queue.queue[[2, 3, 0, 1]]
    queue.resize(7, generator(1))
    assert torch.equal(queue.queue[:4], newest) and queue.position.item() == 4
    assert torch.allclose(queue.queue[4:].norm(dim=1), torch.ones(3))
    queue.resize(2)
    assert torch.equal(queue.queue, queue.queue[:2]) and len(queue) == 2 and queue.position.item() == 0


def test_states_with_and_without_ids():
    queue, twin = Queue(6, 2, ids=True, empty=True), Queue(6, 2, ids=True, empty=True)
    queue.push(torch.randn(4, 2), torch.arange(4))
    twin.load_state_dict(queue.state_dict())
    for other in (twin, copy.deepcopy(queue)):
        assert torch.equal(other.ids, queue.ids) and torch.equal(other.queue, queue.queue)
    # A queue without ids is full.
    empty, plain = Queue(6, 2, empty=True), Queue(6, 2)
    empty.load_state_dict(plain.state_dict())
    assert empty.filled.item() == 6 and torch.equal(empty.queue, plain.queue)
    with pytest.raises(RuntimeError, match="Missing key.*ids"):
        queue.load_state_dict(plain.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key.*ids"):
        plain.load_state_dict(queue.state_dict())
    moco = {"queue": plain.queue.T.contiguous(), "queue_ptr": torch.tensor([3])}
    empty.reset()
    empty.load_state_dict(moco)
    assert empty.filled.item() == 6 and empty.position.item() == 3


@pytest.mark.parametrize(
    ("kind", "words", "options", "ids"),
    [
        (ValueError, "ids is None", {"ids": True}, None),
        (ValueError, "ids is given", {}, torch.arange(2)),
        (ValueError, "ids is given", {"empty": True}, torch.arange(2)),
        (ValueError, r"ids has shape \[3\]", {"ids": True}, torch.arange(3)),
        (TypeError, "ids has type", {"ids": True}, torch.zeros(2)),
        (TypeError, "ids is a list", {"ids": True}, [1, 2]),
        (ValueError, "ids is on meta", {"ids": True}, torch.empty(2, dtype=torch.int64, device="meta")),
    ],
)
def test_wrong_ids_write_nothing(kind, words, options, ids):
    queue = Queue(5, 2, **options)
    before = copy.deepcopy(queue.state_dict())
    with pytest.raises(kind, match=words):
        queue.push(torch.randn(2, 2), ids)
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


def test_a_position_outside_the_ring_writes_no_ids():
    queue = Queue(5, 2, ids=True)
    queue.position.fill_(9)
    with pytest.raises(ValueError, match="position"):
        queue.push(torch.randn(2, 2), torch.arange(2))
    assert queue.ids.tolist() == [UNNAMED] * 5


@pytest.mark.parametrize(("kind", "options"), [(TypeError, {"ids": 1}), (TypeError, {"empty": None})])
def test_wrong_options(kind, options):
    with pytest.raises(kind, match=next(iter(options))):
        Queue(5, 2, **options)


@pytest.mark.parametrize(("kind", "size"), [(ValueError, 0), (TypeError, 2.0)])
def test_wrong_sizes(kind, size):
    queue = Queue(5, 2)
    with pytest.raises(kind, match="size"):
        queue.resize(size)
    assert len(queue) == 5
