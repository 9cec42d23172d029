"""The binding on CUDA tensors, as far as that can be tested without a GPU.

On the library of tests/hostcuda, in processes of their own that load it: cuda_cases.py, and the binding's tests at
large (torch_device.py). With fake CUDA tensors, which have a device and no data: that nothing reads data, and where
results lie.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch_device
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flashnce import _library as c
from flashnce.compat import open_clip
from flashnce.torch import PRESETS, InfoNCE, Queue, ShardedQueue, _call, _ops, info_nce, scores

HERE = Path(__file__).resolve().parent
LIBRARY, REASON = torch_device.hostcuda_library()
needs_harness = pytest.mark.skipif(LIBRARY is None, reason=REASON)
pytestmark = pytest.mark.skipif(not torch_device.is_cpu(), reason="names its devices itself")

# Inductor compiles what surrounds the operators, on the CPU here as elsewhere: aot_eager will do.
SUITE = ("loss", "autograd", "compile", "module", "queue", "raw_scores", "scores", "seed", "types", "sharded")


def run_on_harness(*arguments: str, **environment: str) -> None:
    environment |= {"FNCE_TEST_TORCH_DEVICE": "hostcuda", "FNCE_HOSTCUDA_LIBRARY": str(LIBRARY)}
    result = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
                            env=os.environ | environment, capture_output=True, text=True, timeout=1200)  # fmt: skip
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


@needs_harness
@pytest.mark.parametrize("family", ["sm80", pytest.param("plain", marks=pytest.mark.full)])
def test_the_cuda_branch_on_the_harness(family):
    run_on_harness(str(HERE / "cuda_cases.py"), FNCE_BACKEND=family)


@pytest.mark.full
@needs_harness
def test_the_suite_on_the_harness():
    run_on_harness("-k", "not inductor", *(str(HERE / f"test_{name}.py") for name in SUITE))


def test_the_device_and_the_stream_of_a_tensor(monkeypatch):
    tensor, asked = SimpleNamespace(device=torch.device("cuda", 3)), []

    def current_stream(device):
        asked.append(device)
        return SimpleNamespace(cuda_stream=1234)

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    assert _call.device_of("q", tensor) == (c.CUDA, 3)
    assert _call.stream_of(tensor) == 1234 and asked == [torch.device("cuda", 3)]
    assert _call.device_of("q", torch.ones(1)) == (c.CPU, 0) and _call.stream_of(torch.ones(1)) is None
    with pytest.raises(ValueError, match="q is on device 'meta'; it must be on 'cpu' or 'cuda'"):
        _call.device_of("q", torch.ones(1, device="meta"))


@pytest.fixture
def fake_cuda():
    with FakeTensorMode() as mode, torch.no_grad():
        yield mode


def on_gpu(*tensors: torch.Tensor | None) -> bool:
    return all(tensor is None or tensor.device == torch.device("cuda", 0) for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", PRESETS)
def test_fake_cuda_tensors_are_read_by_nobody_and_give_cuda_tensors(fake_cuda, preset, dtype):
    q, k = (torch.randn(8, 12, device="cuda", dtype=dtype) for _ in range(2))
    temperature = torch.full((1,), 0.2, device="cuda")
    queue = torch.randn(48, 12, device="cuda", dtype=dtype)
    with pytest.raises(DataDependentOutputException):
        queue.sum().item()
    loss = InfoNCE(temperature, preset)(q, k, queue)
    assert on_gpu(loss) and loss.dtype == torch.float32
    given = {"lambda_neg": torch.rand(48, 1, device="cuda"), "permutation": torch.randperm(48, device="cuda")}
    assert on_gpu(info_nce(q, k, queue, lambda_pos=1.5, **given), *scores(q, k, queue, temperature=temperature))
    # Autograd's own graph of CUDA tensors needs a PyTorch with CUDA: what its formula calls stands here.
    structure = _call.Structure(1, 0, 0, 0, 0, 0, 0, 1, 3, 1, 1, 1)
    inputs = _call.Inputs(q, k, queue, temperature=temperature)
    loss, dq, dk, dtemperature, *packed = torch.ops.flashnce.info_nce_forward.default(
        *inputs, list(structure), [1.0, 1.0, 0.0, 1.0, 0.0]
    )
    gradients = [torch.ops.flashnce.scale.default(gradient, loss, dtype) for gradient in (dq, dk)]
    assert on_gpu(*gradients, dtemperature * loss, *packed) and all(gradient.dtype == dtype for gradient in gradients)
    position = torch.zeros(1, dtype=torch.int64, device="cuda")
    _ops.queue_push(queue, position, k, normalize=True)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_the_adapter_of_open_clip_takes_cuda_tensors(fake_cuda, as_tensor):
    a, b = (torch.randn(8, 12, device="cuda") for _ in range(2))
    scale = torch.full((1,), 14.3, dtype=torch.float16, device="cuda") if as_tensor else 14.3
    assert on_gpu(open_clip.ClipLoss(backend="fused")(a, b, scale))


class Watch(TorchDispatchMode):
    """Names the operators that are given a tensor without dimensions: what a number of the host becomes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        tensors = [x for x in tree_leaves((arguments, options)) if isinstance(x, torch.Tensor)]
        self.seen += [str(function) for x in tensors if x.dim() == 0]
        return function(*arguments, **options or {})


def test_no_number_of_the_host_is_copied_to_a_sharded_queue():
    """On a GPU the host would wait for the copy."""
    rows, ids = torch.randn(8, 12), torch.arange(8)[:, None]
    queues = [ShardedQueue(48, 12, perm_block=16, check=False, ids=named) for named in (False, True)]
    with Watch() as watch:
        queues[0]._write(rows, None)
        queues[1]._write(rows, ids)
    assert not watch.seen
    with Watch() as watch:
        torch.where(rows > 0, rows, 0)
    assert watch.seen == ["aten.where.self"]


def test_tensors_of_two_devices_are_refused():
    q, queue = torch.randn(4, 8), Queue(16, 8)
    with pytest.raises(ValueError, match="upstream is on meta; it must be on the device of gradient, cpu"):
        _ops._scale(torch.ones(3, 2), torch.ones(3, device="meta"), torch.float32)
    with pytest.raises(ValueError, match="negatives is on meta"):
        InfoNCE(0.2)(q, q, queue.queue.to("meta"))
    with pytest.raises(ValueError, match="temperature is on meta"):
        InfoNCE(0.2)(q, q, queue, temperature=torch.ones(1, device="meta"))
    with pytest.raises(ValueError, match="seed is on meta"):
        InfoNCE(0.2, "ft")(q, q, queue, seed=torch.ones(1, device="meta", dtype=torch.int64))
