"""The binding's CUDA branch on the library of tests/hostcuda: run by test_cuda_branch.py.

CPU tensors count as memory of CUDA device 0 (torch_device.py). The truth is flashnce.reference in float64; beside it
stands what the CPU backend of the same library gives for the same draws.
"""

from __future__ import annotations

import ctypes
import math

import pytest
import torch
import torch_device
from support import assert_close, batch, bound, gradients, largest_score, reference_of, typed_bound
from torch import Tensor

from flashnce import _library as c
from flashnce import _options
from flashnce.torch import PRESETS, InfoNCE, Mix, Queue, ShardedQueue, info_nce, scores
from flashnce.torch import _call, _ops, _sharded

pytestmark = pytest.mark.skipif(torch_device.name() != "hostcuda", reason="needs FNCE_TEST_TORCH_DEVICE=hostcuda")

TYPES = (torch.float32, torch.float16, torch.bfloat16)
PAIRS = [("moco", None), ("ft", None), ("ft-elementwise", None), ("ft", "union"), ("ft-elementwise", "union")]
FLOATS = ("pos", "neg_mean", "neg_variance", "neg_min", "neg_max", "neg_log_mean_exp")
# These methods make the host wait for a GPU, or copy from it.
READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__contains__")
HARNESS = {name: getattr(c.LIBRARY, symbol) for name, symbol in (
    ("blocking_calls", "_ZN8hostcuda14blocking_callsEv"), ("reset_calls", "_ZN8hostcuda11reset_callsEv"),
)}  # fmt: skip
HARNESS["blocking_calls"].restype = ctypes.c_int64


def step(q, k, negatives, preset, **options):
    positive, negative = PRESETS[preset]
    loss, found = info_nce(q, k, negatives, positive=positive, negative=negative, return_scores=True, **options)
    inputs = [x for x in (q, k, options["temperature"]) if isinstance(x, Tensor) and x.requires_grad]
    upstream = torch.linspace(0.5, 1.5, len(q)) if loss.dim() else torch.tensor(1.7)
    return loss, found, gradients(loss, *inputs, upstream=upstream)


def check_step(q, k, negatives, preset, columns, **options):
    """Against the reference, and against the CPU backend."""
    options |= {"columns": columns, "detach_key": False, "seed": 5}
    temperature = torch.as_tensor(options["temperature"]).item()
    loss, found, grads = step(q, k, negatives, preset, **options)
    with torch_device.cpu_backend():
        others = step(q, k, negatives, preset, **options)
    truth = [x.detach().double().requires_grad_() for x in (q, k)]
    tau = torch.tensor(temperature, requires_grad=True)
    expected, mixed, unmixed = reference_of(
        *truth, negatives, *PRESETS[preset], **options | {"temperature": tau}, return_scores=True
    )
    upstream = torch.linspace(0.5, 1.5, len(q)).double() if loss.dim() else torch.tensor(1.7, dtype=torch.float64)
    wanted = gradients(expected, *truth, tau, upstream=upstream)
    tolerance = typed_bound(negatives.dtype, temperature, largest_score(mixed))
    assert_close(loss, expected, tolerance, "loss")
    assert_close(loss, others[0], 2 * tolerance, "loss beside the CPU's")
    for name, a, b, other in zip(("dq", "dk", "dtemperature"), grads, wanted, others[2]):
        rounding = tolerance + (torch.finfo(q.dtype).eps / 2 if name != "dtemperature" else 0.0)
        assert a.dtype == other.dtype
        assert_close(a.reshape(b.shape), b, rounding, name)
        assert_close(a, other, 2 * rounding, f"{name} beside the CPU's")
    for part, truths, beside in ((found.mixed, mixed, others[1].mixed), (found.unmixed, unmixed, others[1].unmixed)):
        assert torch.equal(part.neg_count, beside.neg_count)
        for name in FLOATS:
            assert_close(getattr(part, name), truths[name], tolerance, name)
            assert_close(getattr(part, name), getattr(beside, name), 2 * tolerance, f"{name} beside the CPU's")
    assert found.seed == others[1].seed


def test_these_plans_are_of_the_cuda_backend():
    q, k, negatives = batch()
    info_nce(q, k, negatives)
    assert next(reversed(_options._plans.values())).info().device == c.CUDA
    with torch_device.cpu_backend():
        info_nce(q, k, negatives)
    assert next(reversed(_options._plans.values())).info().device == c.CPU


@pytest.mark.parametrize(("preset", "columns"), PAIRS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_presets_reductions_and_weights(preset, columns, reduction):
    q, k, negatives = batch(33, 200, 24)
    options = {
        "reduction": reduction, "temperature": torch.tensor([0.2], requires_grad=True),
        "weight": torch.rand(len(q), generator=torch.Generator().manual_seed(1)),
    }  # fmt: skip
    check_step(q, k.requires_grad_(), negatives, preset, columns, **options)


@pytest.mark.parametrize(("preset", "columns"), PAIRS)
@pytest.mark.parametrize("queue", TYPES)
@pytest.mark.parametrize("features", TYPES)
def test_types(features, queue, preset, columns):
    q, k, negatives = batch(24, 176, 64)
    q, k = (x.detach().to(features).requires_grad_() for x in (q, k))
    check_step(q, k, negatives.to(queue), preset, columns, temperature=0.2)


@pytest.mark.parametrize("dtype", TYPES)
def test_scores_alone(dtype):
    q, k, negatives = batch(33, 200, 24)
    negatives = negatives.to(dtype)
    found = scores(q, k, negatives, temperature=torch.tensor(0.2))
    with torch_device.cpu_backend():
        expected = scores(q, k, negatives, temperature=0.2)
    for name in FLOATS:
        assert_close(getattr(found, name), getattr(expected, name), 2 * typed_bound(dtype, 0.2), name)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sizes", [(4, 5, 7), (0, 10, 25), (3,) * 8])
def test_pushes_are_those_of_the_cpu(sizes, dtype):
    rings = [Queue(10, 20, dtype=dtype, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    for count in sizes:
        keys = 5 * torch.randn(count, 20)
        rings[0].push(keys)
        with torch_device.cpu_backend():
            rings[1].push(keys)
        assert rings[0].position.item() == rings[1].position.item()
        error = (rings[0].queue.double() - rings[1].queue.double()).abs().max().item()
        assert error <= max(torch.finfo(dtype).eps, 1e-6)


def test_a_position_outside_the_ring_is_taken_modulo_its_size():
    queue, keys = Queue(9, 4), torch.eye(4)[:2]
    before = queue.queue.clone()
    queue.position.fill_(-2)
    queue.push(keys)
    assert torch.equal(queue.queue[7:], keys) and torch.equal(queue.queue[:7], before[:7])
    assert queue.position.item() == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sharded_queue_of_one_process_takes_the_steps(preset):
    q, k, _ = batch(20, 1, 24)
    queue = ShardedQueue(176, 24, perm_block=48, generator=torch.Generator().manual_seed(1))
    queue.push(k)
    options = {"temperature": 0.2, "seed": 3, "return_scores": True}
    positive, negative = PRESETS[preset]
    results = []
    for backend in ("cuda", "cpu"):
        with torch_device.cpu_backend() if backend == "cpu" else torch.enable_grad():
            loss, found = info_nce(q, k, queue, positive=positive, negative=negative, **options)
            results.append((loss, found.mixed, gradients(loss, q)[0]))
    tolerance = 2 * bound(0.2, 2.0)
    assert_close(results[0][0], results[1][0], tolerance, "loss")
    assert_close(results[0][2], results[1][2], tolerance, "dq")
    assert_close(results[0][1].neg_log_mean_exp, results[1][1].neg_log_mean_exp, tolerance)


def wrong_permutations():
    same = torch.randperm(80)
    same[same == 5] = 0
    return {"twice": same, "above": torch.arange(80) + 1, "below": torch.arange(80) - 1, "far": torch.arange(80) << 32}


@pytest.mark.parametrize("which", ["twice", "above", "below", "far"])
def test_a_permutation_that_is_none_gives_nan(which):
    q, k, negatives = batch()
    for lambda_neg in (0.5, torch.full((80, 1), 0.5)):
        right = info_nce(q, k, negatives, lambda_neg=lambda_neg, permutation=torch.randperm(80), temperature=0.2)
        wrong = wrong_permutations()[which]
        loss = info_nce(q, k, negatives, lambda_neg=lambda_neg, permutation=wrong, temperature=0.2)
        assert math.isfinite(right.item()) and math.isnan(loss.item())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none_gives_nan(temperature):
    q, k, negatives = batch()
    tau = torch.tensor(temperature, requires_grad=True)
    loss = info_nce(q, k, negatives, temperature=tau, seed=1, positive=Mix(2.0, shift=1.0), negative=Mix(1.6))
    assert all(math.isnan(x.sum().item()) for x in (loss, *gradients(loss, q, tau)))
    assert torch.isnan(scores(q, k, negatives, temperature=tau).neg_log_mean_exp).all()


def forbid_reads(monkeypatch):
    def refuse(name):
        def read(*_, **__):
            raise AssertionError(f"Tensor.{name} waits for the device")

        return read

    for name in READS:
        monkeypatch.setattr(Tensor, name, refuse(name))


@pytest.mark.parametrize("dtype", TYPES)
def test_nothing_waits_for_the_device(monkeypatch, dtype):
    """No tensor is read by the host, and the library neither allocates device memory nor synchronises."""
    q, k, _ = batch(24, 1, 12)
    given = {
        "lambda_pos": torch.tensor(1.5), "lambda_neg": torch.rand(80, 12), "permutation": torch.randperm(80),
        "weight": torch.rand(24), "temperature": torch.tensor(0.3, requires_grad=True),
    }  # fmt: skip
    rings = [Queue(80, 12, dtype=dtype), ShardedQueue(80, 12, dtype=dtype, perm_block=16, check=False)]

    def steps():
        for ring in rings:
            for preset in PRESETS:
                loss, found = InfoNCE(0.2, preset, reduction="none")(q, k, ring, return_scores=True)
                (loss * found.mixed.n_greater).sum().backward()
            ring.push(k)
        info_nce(q, k, rings[0], detach_key=False, **given).backward()
        scores(q, k, rings[0], temperature=given["temperature"])

    steps()
    HARNESS["reset_calls"]()
    with monkeypatch.context() as patched:
        forbid_reads(patched)
        with pytest.raises(AssertionError, match="Tensor.item waits"):
            q.sum().item()
        steps()
    assert HARNESS["blocking_calls"]() == 0
    assert torch.isfinite(q.grad).all()


def new_stream(device: int) -> int:
    stream, here = ctypes.c_void_p(), ctypes.c_int()
    for status in (
        c.LIBRARY.cudaGetDevice(ctypes.byref(here)), c.LIBRARY.cudaSetDevice(device),
        c.LIBRARY.cudaStreamCreate(ctypes.byref(stream)), c.LIBRARY.cudaSetDevice(here),
    ):  # fmt: skip
        assert status == 0
    return stream.value


def on_stream(monkeypatch, stream: int, device: int = 0):
    for module in (_call, _ops, _sharded):
        for name, fake in (("stream_of", lambda _: stream), ("device_of", lambda *_: (c.CUDA, device))):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, fake)


@pytest.mark.parametrize("device", [0, 1])
def test_the_stream_and_the_device_reach_every_call(monkeypatch, device):
    q, k, negatives = batch(24, 80, 12)
    sharded = ShardedQueue(80, 12, perm_block=16, check=False)
    criterion, here = InfoNCE(0.2, "ft"), ctypes.c_int(-1)
    expected = [criterion(q, k, ring, seed=1) for ring in (negatives, sharded)]
    wanted, raw = [gradients(loss, q)[0] for loss in expected], scores(q, k, negatives)
    queue, other = (Queue(16, 12, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    other.push(k)
    stream = new_stream(device)
    with monkeypatch.context() as patched:
        on_stream(patched, stream, device)
        losses = [criterion(q, k, ring, seed=1) for ring in (negatives, sharded)]
        # The harness runs what was enqueued when it is asked to.
        assert c.LIBRARY.cudaStreamSynchronize(ctypes.c_void_p(stream)) == 0
        actual, found = [gradients(loss, q)[0] for loss in losses], scores(q, k, negatives)
        queue.push(k)
        assert c.LIBRARY.cudaStreamSynchronize(ctypes.c_void_p(stream)) == 0
    assert [loss.item() for loss in losses] == [loss.item() for loss in expected]
    assert all(torch.equal(a, b) for a, b in zip(actual, wanted))
    assert torch.equal(found.neg_mean, raw.neg_mean) and torch.equal(queue.queue, other.queue)
    assert c.LIBRARY.cudaGetDevice(ctypes.byref(here)) == 0 and here.value == 0


def test_a_stream_of_another_device_is_refused(monkeypatch):
    q, k, negatives = batch(24, 80, 12)
    on_stream(monkeypatch, new_stream(1))
    for call in (lambda: InfoNCE(0.2)(q, k, negatives), lambda: scores(q, k, negatives), lambda: Queue(16, 12).push(k)):
        with pytest.raises(ValueError, match="stream belongs to device 1"):
            call()
