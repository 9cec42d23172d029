"""The PyTorch binding on a device: FNCE_TEST_TORCH_DEVICE=cuda, or cpu or hostcuda (tests/python/torch_device.py) to
try these tests themselves. What only CUDA has (streams, graphs, synchronisation) is skipped elsewhere.

Run by `./dev verify-gpu`. The truth is flashnce.reference in float64 with the same draws.
"""

from __future__ import annotations

import pytest
import torch
import torch_device
from support import assert_close, batch, bound, gradients, largest_score, reference_of, typed_bound
from torch.library import opcheck

from flashnce.torch import PRESETS, InfoNCE, Mix, Queue, ShardedQueue, info_nce, scores

DEVICE = torch.device(torch_device.name() if torch_device.name() != "hostcuda" else "cpu")
if DEVICE.type == "cuda" and not torch.cuda.is_available():
    pytest.skip("this PyTorch has no CUDA device", allow_module_level=True)
not_cpu = pytest.mark.skipif(torch_device.is_cpu(), reason="the CPU backend raises")
on_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="only CUDA has it")

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def device_batch(features: torch.dtype, queue: torch.dtype, *sizes: int):
    """On the device, and the same numbers in float64 on the CPU."""
    q, k, negatives = (x.detach() for x in batch(*sizes))
    q, k, negatives = q.to(features), k.to(features), negatives.to(queue)
    there = q.to(DEVICE).requires_grad_(), k.to(DEVICE), negatives.to(DEVICE)
    return there, (q.double().requires_grad_(), k.double(), negatives)


@pytest.mark.parametrize("sizes", [(40, 200, 24), (33, 300, 128), (130, 512, 64)])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("queue", TYPES)
@pytest.mark.parametrize("features", TYPES)
def test_loss_and_gradients(features, queue, preset, sizes):
    positive, negative = PRESETS[preset]
    (q, k, negatives), truth = device_batch(features, queue, *sizes)
    k.requires_grad_(), truth[1].requires_grad_()
    tau = torch.tensor(0.2, device=DEVICE, requires_grad=True)
    tau_truth = torch.tensor(0.2, requires_grad=True)
    options = {"detach_key": False, "seed": 5, "return_scores": True}
    loss, found = info_nce(q, k, negatives, temperature=tau, positive=positive, negative=negative, **options)
    expected, mixed, _ = reference_of(*truth, positive, negative, temperature=tau_truth, **options)
    tolerance = typed_bound(queue, 0.2, largest_score(mixed), DEVICE)
    assert loss.device == q.device and loss.dtype == torch.float32
    assert_close(loss.cpu(), expected, tolerance, "loss")
    for name, a, b in zip(("dq", "dk", "dtau"), gradients(loss, q, k, tau), gradients(expected, *truth[:2], tau_truth)):
        rounding = torch.finfo(features).eps / 2 if name != "dtau" else 0.0
        assert_close(a.cpu(), b, tolerance + rounding, name)
    for name in ("neg_mean", "neg_min", "neg_max", "neg_log_mean_exp"):
        assert_close(getattr(found.mixed, name).cpu(), mixed[name], tolerance, name)


@pytest.mark.parametrize("per", ["call", "row", "dimension", "element"])
@pytest.mark.parametrize("columns", ["mixed", "union"])
def test_every_mixing(per, columns):
    mixes = Mix(2.0, shift=1.0, per=per), Mix(1.6, per=per, renormalize=per == "row")
    (q, k, negatives), truth = device_batch(torch.float32, torch.float32, 24, 144, 32)
    loss = info_nce(q, k, negatives, positive=mixes[0], negative=mixes[1], columns=columns, temperature=0.2, seed=3)
    expected, mixed, _ = reference_of(*truth, *mixes, columns=columns, temperature=0.2, seed=3, return_scores=True)
    tolerance = bound(0.2, largest_score(mixed))
    assert_close(loss.cpu(), expected, tolerance, "loss")
    assert_close(gradients(loss, q)[0].cpu(), gradients(expected, truth[0])[0], tolerance, "dq")


def test_explicit_draws():
    (q, k, negatives), truth = device_batch(torch.float32, torch.float32)
    generator = torch.Generator().manual_seed(4)
    given = {
        "lambda_pos": 1 + torch.rand(len(q), 1, generator=generator),
        "lambda_neg": torch.rand(len(negatives), 1, generator=generator),
        "permutation": torch.randperm(len(negatives), generator=generator),
    }
    loss = info_nce(q, k, negatives, temperature=0.2, **{name: value.to(DEVICE) for name, value in given.items()})
    from flashnce import reference

    expected = reference.info_nce(*truth, temperature=0.2, **given)
    assert_close(loss.cpu(), expected, bound(0.2, 4.0), "loss")


def test_a_queue_on_the_device():
    queue = Queue(50, 16, device=DEVICE, dtype=torch.float16)
    ring = queue.queue.clone().cpu()
    keys = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    for i in range(4):
        queue.push(keys.to(DEVICE))
        for row in range(20):
            ring[(20 * i + row) % 50] = torch.nn.functional.normalize(keys[row], dim=0).half()
    assert queue.position.item() == 80 % 50
    assert (queue.queue.cpu().float() - ring.float()).abs().max() <= 2.0**-11


def test_a_push_between_forward_and_backward_does_not_touch_the_gradient():
    (q, k, _), _ = device_batch(torch.float32, torch.float32, 16, 64, 12)
    queue, criterion = Queue(64, 12, device=DEVICE), InfoNCE(0.2, "ft")
    (expected,) = gradients(criterion(q, k, queue, seed=1), q)
    loss = criterion(q, k, queue, seed=1)
    queue.push(torch.randn(64, 12, device=DEVICE))
    assert torch.equal(gradients(loss, q)[0], expected)


def test_raw_scores():
    (q, k, negatives), truth = device_batch(torch.float32, torch.float32)
    found, expected = scores(q, k, negatives), reference_of(*truth, return_scores=True)[2]
    for name in ("pos", "neg_mean", "neg_variance", "neg_max"):
        assert_close(getattr(found, name).cpu(), expected[name], bound(1.0), name)


def test_the_default_generator_decides():
    (q, k, negatives), _ = device_batch(torch.float32, torch.float32)
    criterion = InfoNCE(0.2, "ft")
    torch.manual_seed(3)
    first = [criterion(q, k, negatives).item() for _ in range(3)]
    torch.manual_seed(3)
    assert [criterion(q, k, negatives).item() for _ in range(3)] == first and len(set(first)) == 3


def test_autocast():
    (q, k, negatives), _ = device_batch(torch.float32, torch.float32)
    expected = InfoNCE(0.2, "ft")(q, k, negatives, seed=2)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert InfoNCE(0.2, "ft")(q, k, negatives, seed=2).item() == expected.item()


def test_opcheck():
    (q, k, negatives), _ = device_batch(torch.float32, torch.float32, 4, 16, 8)
    from flashnce.torch import _call, _ops

    structure = list(_ops.Structure(1, 1, 0, 2, 0, 1, 0, 1, 0, 1, 0, 0))
    seed = torch.tensor([7], device=DEVICE)
    numbers = [0.3, 2.0, 1.0, 1.6, 0.0]
    arguments = (*_call.Inputs(q, k, negatives, seed=seed, offset=4), structure, numbers)
    opcheck(torch.ops.flashnce.info_nce_forward.default, arguments)


def test_a_training_step_compiles():
    encoder, x = torch.nn.Linear(12, 12, device=DEVICE), torch.randn(16, 12, device=DEVICE)
    queues = [Queue(64, 12, device=DEVICE) for _ in range(2)]
    queues[1].load_state_dict(queues[0].state_dict())
    criterion = InfoNCE(0.2, "ft")

    def step(x, queue, seed):
        q, k = encoder(x), encoder(x + 1).detach()
        loss = criterion(q, k, queue, seed=seed)
        queue.push(k)
        return loss

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for i in range(3):
        seed = torch.tensor([i], device=DEVICE)
        losses = [function(x, queue, seed) for function, queue in zip((step, compiled), queues)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)


@not_cpu
def test_what_only_the_device_can_see_gives_nan():
    (q, k, negatives), _ = device_batch(torch.float32, torch.float32)
    twice = torch.zeros(len(negatives), dtype=torch.int64, device=DEVICE)
    assert info_nce(q, k, negatives, lambda_neg=0.5, permutation=twice).isnan()
    assert info_nce(q, k, negatives, lambda_neg=0.5, permutation=twice + len(negatives)).isnan()
    assert info_nce(q, k, negatives, temperature=torch.tensor(-0.2, device=DEVICE)).isnan()
    queue = Queue(9, 4, device=DEVICE)
    queue.position.fill_(-2)
    queue.push(torch.eye(4, device=DEVICE))
    assert queue.position.item() == 2 and queue.queue[8, 1] == 1 and queue.queue[0, 2] == 1


@on_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one device")
def test_a_device_that_is_not_the_current_one():
    (q, k, negatives), _ = device_batch(torch.float16, torch.float16, 32, 1024, 128)
    expected = InfoNCE(0.2, "ft")(q, k, negatives, seed=1)
    q1, k1, negatives1 = (x.detach().to("cuda:1") for x in (q, k, negatives))
    loss = InfoNCE(0.2, "ft")(q1.requires_grad_(), k1, negatives1, seed=1)
    loss.backward()
    assert torch.cuda.current_device() == 0 and loss.device == q1.grad.device == torch.device("cuda", 1)
    assert_close(loss.cpu(), expected.cpu(), typed_bound(torch.float16, 0.2, 1.0, DEVICE), "loss")


@on_cuda
def test_the_current_stream_is_used():
    """The inputs are written late on the stream of the call: on another one it would read them before."""
    (q, k, negatives), _ = device_batch(torch.float16, torch.float16, 64, 4096, 128)
    criterion, stream = InfoNCE(0.2, "ft"), torch.cuda.Stream()
    expected = criterion(q, k, negatives, seed=1).item()
    late = torch.zeros_like(negatives)
    large = torch.randn(4096, 4096, device=DEVICE)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(10):
            large = torch.mm(large, large).clamp(-1, 1)
        late.copy_(negatives)
        loss = criterion(q, k, late, seed=1)
    stream.synchronize()
    assert loss.item() == expected


@on_cuda
def test_no_call_waits_for_the_device():
    (q, k, _), _ = device_batch(torch.float16, torch.float16, 32, 1, 128)
    options = {"device": DEVICE, "dtype": torch.float16}
    queues = [Queue(1024, 128, **options), ShardedQueue(1024, 128, check=False, **options)]
    permutation, temperature = torch.randperm(1024, device=DEVICE), torch.tensor(0.2, device=DEVICE, requires_grad=True)

    def step():
        for queue in queues:
            for preset in PRESETS:
                loss, found = InfoNCE(temperature, preset)(q, k, queue, return_scores=True)
                (loss * found.mixed.n_greater.sum()).backward()
            queue.push(k.detach())
        info_nce(q, k, queues[0], lambda_pos=1.5, lambda_neg=0.5, permutation=permutation).backward()
        scores(q, k, queues[0])

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_cuda
def test_a_step_in_a_cuda_graph():
    """Replays draw anew from PyTorch's generator, and give what the same seeds give outside of the graph."""
    (q, k, negatives), _ = device_batch(torch.float16, torch.float16, 32, 1024, 128)
    queue, criterion = Queue(1024, 128, device=DEVICE, dtype=torch.float16), InfoNCE(0.2, "ft")
    queue.queue.copy_(negatives)
    seed = torch.tensor([1], device=DEVICE)

    def step(seed):
        q.grad = None
        loss = criterion(q, k, queue, seed=seed)
        loss.backward()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(seed)
            step(None)
    torch.cuda.current_stream().wait_stream(side)
    graph, drawing = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(seed)
    with torch.cuda.graph(drawing):
        drawn = step(None)
    for value in (1, 2, 2**62):
        seed.fill_(value)
        graph.replay()
        assert loss.item() == criterion(q, k, queue, seed=value).item()
    found = []
    for _ in range(4):
        drawing.replay()
        found.append(drawn.item())
    assert len(set(found)) == 4


@on_cuda
def test_pushes_in_a_cuda_graph_go_on_around_the_ring():
    queue, keys = Queue(50, 16, device=DEVICE), torch.randn(20, 16, device=DEVICE)
    twin = Queue(50, 16, device=DEVICE)
    twin.load_state_dict(queue.state_dict())
    Queue(50, 16, device=DEVICE).push(keys)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        queue.push(keys)
    for i in range(4):
        keys.copy_(torch.randn(20, 16, device=DEVICE))
        graph.replay()
        twin.push(keys)
        assert queue.position.item() == twin.position.item() == 20 * (i + 1) % 50
        assert torch.equal(queue.queue, twin.queue)


@on_cuda
def test_memory_comes_back():
    (q, k, negatives), _ = device_batch(torch.float16, torch.float16, 64, 4096, 128)
    criterion = InfoNCE(0.2, "ft")
    before = None
    for i in range(200):
        criterion(q, k, negatives).backward()
        q.grad = None
        if i == 20:
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.synchronize()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
