"""The queue, equation (10): ring, state, MoCo's checkpoints, distributed buffers."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from support import cpu_only, generator
from torch.nn.functional import normalize

from flashnce.torch import InfoNCE, Queue, ShardedQueue, ignore_queues_in_ddp


def expected_push(queue: torch.Tensor, position: int, keys: torch.Tensor) -> torch.Tensor:
    result = queue.clone()
    for i, key in enumerate(normalize(keys.double(), dim=1).float()):
        result[(position + i) % len(queue)] = key
    return result


def test_a_new_queue_holds_unit_rows_from_the_generator():
    queues = [Queue(50, 7, generator=generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(queues[0].queue, queues[1].queue) and not torch.equal(queues[0].queue, queues[2].queue)
    assert torch.allclose(queues[0].queue.norm(dim=1), torch.ones(50))
    assert queues[0].position.tolist() == [0] and queues[0].position.dtype == torch.int64 and len(queues[0]) == 50


@pytest.mark.parametrize("sizes", [(4, 4, 4), (7, 7, 7), (3, 0, 5), (10,), (25,), (1,) * 12])
def test_push_is_a_ring_for_any_batch_size(sizes):
    queue, position = Queue(10, 3), 0
    expected = queue.queue.clone()
    for size in sizes:
        keys = 5 * torch.randn(size, 3)
        queue.push(keys)
        expected = expected_push(expected, position, keys)
        position = (position + size) % 10
        assert torch.allclose(queue.queue, expected, atol=1e-6) and queue.position.item() == position


def test_push_takes_views_half_types_and_keys_with_a_gradient():
    queue = Queue(8, 4)
    keys = torch.randn(4, 3).T
    for given in (keys, keys.half(), keys.bfloat16(), keys.clone().requires_grad_()):
        expected = expected_push(queue.queue, queue.position.item(), given.detach())
        queue.push(given)
        assert torch.allclose(queue.queue, expected, atol=1e-6) and not queue.queue.requires_grad


@pytest.mark.parametrize("normalize", [True, False])
def test_a_push_of_the_queues_own_rows_is_that_of_a_copy(normalize):
    for rows in (slice(0, 6), slice(3, 9), slice(0, 9)):
        queue = Queue(9, 4, generator=generator(1))
        queue.push(torch.randn(2, 4))
        twin = copy.deepcopy(queue)
        queue.push(queue.queue[rows], normalize=normalize)
        twin.push(twin.queue[rows].clone(), normalize=normalize)
        assert torch.equal(queue.queue, twin.queue) and torch.equal(queue.position, twin.position)


def test_push_can_take_keys_as_they_are():
    queue, keys = Queue(8, 4), torch.full((2, 4), 3.0)
    queue.push(keys, normalize=False)
    assert torch.equal(queue.queue[:2], keys)


def test_a_push_is_seen_by_the_version_counter():
    queue, weight = Queue(8, 4), torch.randn(4, requires_grad=True)
    product = (queue.queue * weight).sum()
    queue.push(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_push_works_in_inference_mode():
    with torch.inference_mode():
        queue = Queue(8, 4)
        queue.push(torch.randn(2, 4))
    assert queue.position.item() == 2


def test_state_round_trips():
    queue, other = Queue(9, 4), Queue(9, 4)
    queue.push(torch.randn(5, 4))
    assert set(queue.state_dict()) == {"queue", "position"}
    other.load_state_dict(queue.state_dict())
    for twin in (other, copy.deepcopy(queue), pickle.loads(pickle.dumps(queue))):
        assert torch.equal(twin.queue, queue.queue) and twin.position.item() == 5
        twin.push(torch.randn(1, 4))
        assert twin.position.item() == 6 and queue.position.item() == 5


@pytest.mark.parametrize("prefix", ["", "queue."])
@pytest.mark.parametrize("features", [4, 9])
def test_a_moco_checkpoint_loads(prefix, features):
    rows = normalize(torch.randn(9, features), dim=1)
    moco = {prefix + "queue": rows.T.contiguous(), prefix + "queue_ptr": torch.tensor([6])}
    module = Queue(9, features) if not prefix else torch.nn.ModuleDict({"queue": Queue(9, features)})
    module.load_state_dict(moco)
    queue = module if not prefix else module["queue"]
    assert torch.equal(queue.queue, rows) and queue.position.tolist() == [6] and queue.queue.is_contiguous()
    assert set(moco) == {prefix + "queue", prefix + "queue_ptr"}, "the caller's dict is left as it was"


class Moco(torch.nn.Module):
    """As the authors' builder has it, with modules in place of its buffers."""

    def __init__(self, queue: torch.nn.Module) -> None:
        super().__init__()
        self.encoder_q, self.queue = torch.nn.Linear(3, 4), queue


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", [Queue, ShardedQueue])
def test_a_moco_checkpoint_loads_into_a_model_with_a_queue(kind, assign):
    rows = normalize(torch.randn(9, 4), dim=1)
    state = Moco(Queue(9, 4)).encoder_q.state_dict(prefix="encoder_q.")
    state |= {"queue": rows.T.contiguous(), "queue_ptr": torch.tensor([6])}
    for model, prefix in ((Moco(kind(9, 4)), ""), (torch.nn.Sequential(copy.deepcopy(Moco(kind(9, 4)))), "0.")):
        model.load_state_dict({prefix + name: value.clone() for name, value in state.items()}, assign=assign)
        queue = (model[0] if prefix else model).queue
        assert torch.equal(queue.queue, rows) and queue.position.tolist() == [6] and queue.queue.is_contiguous()
        queue.push(rows[:2])
        assert queue.position.tolist() == [8]
    with pytest.raises(RuntimeError, match="queue"):
        Moco(kind(9, 4)).load_state_dict({**state, "queue": rows.T[:, 1:]})


def test_two_queues_load_from_a_solo_learn_checkpoint():
    rows = normalize(torch.randn(2, 4, 9), dim=1)
    model = Moco(torch.nn.ModuleList([Queue(9, 4), Queue(9, 4)]))
    state = model.encoder_q.state_dict(prefix="encoder_q.") | {"queue": rows, "queue_ptr": torch.tensor([6])}
    model.load_state_dict(state)
    for queue, expected in zip(model.queue, rows):
        assert torch.equal(queue.queue, expected.T) and queue.position.tolist() == [6]


def test_a_checkpoint_of_another_size_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch for queue"):
        Queue(9, 4).load_state_dict(Queue(8, 4).state_dict())


@pytest.mark.parametrize("kind", [Queue, ShardedQueue])
def test_a_model_made_on_meta_gets_its_queue_when_it_is_reset(kind):
    with torch.device("meta"):
        model = torch.nn.Sequential(kind(40, 4))
    assert model[0].queue.is_meta and model[0].position.is_meta
    model.to_empty(device=torch.get_default_device())
    for buffer in model.buffers():
        buffer.fill_(77)
    model[0].reset_parameters(generator(3))
    expected = kind(40, 4, generator=generator(3)).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model[0].state_dict().items())
    for buffer in model.buffers():
        buffer.fill_(77)
    model[0].load_state_dict({"queue": expected["queue"], "position": torch.tensor([7])}, strict=kind is Queue)
    model[0].push(torch.ones(2, 4))
    assert model[0].position.item() == 9 and len(model[0].queue) == 40


@pytest.mark.parametrize("kind", [Queue, ShardedQueue])
@pytest.mark.parametrize("position", [-1, 9, 2**40])
def test_a_state_whose_position_lies_outside_the_ring_is_refused(kind, position):
    queue = kind(9, 4)
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    with pytest.raises(RuntimeError, match=f"position is {position}; it must be in 0 .. 8"):
        queue.load_state_dict({**kind(9, 4).state_dict(), "position": torch.tensor([position])})
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


def test_the_recipe_for_an_average_of_models_with_their_buffers():
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(4, 4), "queue": Queue(9, 4)})
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    for _ in range(4):
        model["queue"].push(torch.randn(2, 4))
        averaged.update_parameters(model)
        averaged.module["queue"].load_state_dict(model["queue"].state_dict())
    assert averaged.module["queue"].position.item() == 8
    assert torch.equal(averaged.module["queue"].queue, model["queue"].queue)


@cpu_only
def test_a_loaded_position_outside_the_ring_is_refused():
    queue = Queue(9, 4)
    queue.position.fill_(9)
    before = queue.queue.clone()
    with pytest.raises(ValueError, match="position"):
        queue.push(torch.randn(2, 4))
    assert torch.equal(queue.queue, before)


def test_queues_are_named_for_ddp_to_ignore():
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.ModuleDict({"queue": Queue(9, 4)})})
    names = ["head.queue.queue", "head.queue.position"]
    assert ignore_queues_in_ddp(model) == names == ignore_queues_in_ddp(model)
    assert list(model._ddp_params_and_buffers_to_ignore) == names
    assert set(names) <= {name for name, _ in model.named_buffers()}


def test_the_loss_takes_a_queue_or_its_tensor():
    q, k, queue = torch.randn(4, 8), torch.randn(4, 8), Queue(16, 8)
    criterion = InfoNCE(0.2, "ft")
    assert criterion(q, k, queue, seed=1).item() == criterion(q, k, queue.queue, seed=1).item()


def pages_of(tensor: torch.Tensor) -> list[str]:
    """The flags of the mapping that holds the middle of a tensor."""
    middle, inside = tensor.data_ptr() + tensor.numel() * tensor.element_size() // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", words[0]):
            start, end = (int(word, 16) for word in words[0].split("-"))
            inside = start <= middle < end
        elif inside and words[0] == "VmFlags:":
            return words[1:]
    return []


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="the kernel has no large pages")
@cpu_only
@pytest.mark.parametrize("kind", [Queue, ShardedQueue])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_is_asked_for_large_pages(kind, dtype):
    queue = kind(65536, 64, dtype=dtype)
    assert "hg" in pages_of(queue.queue)
    small = kind(32, 64, dtype=dtype)
    assert small.queue.shape == (32, 64) and torch.allclose(small.queue.float().norm(dim=1), torch.ones(32), atol=1e-2)
