"""Where the tests of the PyTorch binding run: FNCE_TEST_TORCH_DEVICE, which conftest.py reads before torch is imported.

    cpu        (default) CPU tensors and the CPU backend
    cuda       CUDA tensors: torch's default device is set, so that tests which name no device run there
    hostcuda   CPU tensors that the binding takes for CUDA ones: the library is the one of tests/hostcuda, whose CUDA
               devices are the CPU's work

    FNCE_HOSTCUDA_LIBRARY   the library of hostcuda; default: the one of the release build
"""

from __future__ import annotations

import ctypes
import os
import weakref
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("cpu", "cuda", "hostcuda")


def name() -> str:
    found = os.environ.get("FNCE_TEST_TORCH_DEVICE") or "cpu"
    if found.split(":")[0] not in NAMES:
        raise ValueError(f"FNCE_TEST_TORCH_DEVICE is {found!r}; it must be one of {', '.join(NAMES)}")
    return found


def is_cpu() -> bool:
    """Whether calls go to the CPU backend."""
    return name() == "cpu"


def hostcuda_library() -> tuple[Path | None, str]:
    """The library of tests/hostcuda, or None and why there is none."""
    named = os.environ.get("FNCE_HOSTCUDA_LIBRARY")
    path = Path(named) if named else ROOT / "build" / "release" / "tests" / "cuda" / "hostcuda" / "libflashnce.so"
    if path.is_file():
        return path, ""
    if named:
        raise FileNotFoundError(f"FNCE_HOSTCUDA_LIBRARY is {named!r}, which is no file")
    return None, f"{path.relative_to(ROOT)} is not built (target flashnce_hostcuda)"


def prepare(*, set_default: bool = True) -> None:
    """Before anything imports torch or flashnce."""
    # What torch.compile keeps on disk was made of the operators as they were then.
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    if name() == "hostcuda":
        library, reason = hostcuda_library()
        if library is None:
            raise FileNotFoundError(reason)
        os.environ["FLASHNCE_LIBRARY"] = str(library)
        _patch(True)
    elif name() != "cpu" and set_default:
        import pytest
        import torch

        if not torch.cuda.is_available():
            pytest.exit(f"FNCE_TEST_TORCH_DEVICE is {name()}, but this PyTorch has no CUDA device", 1)
        torch.set_default_device(name())


class _Pool:
    """The harness's device memory for workspaces, which fills and copies need; kept as PyTorch's allocator does."""

    def __init__(self) -> None:
        self.free: dict[int, list[int]] = {}

    def tensor(self, size: int):
        import torch

        from flashnce import _library as c

        address = ctypes.c_void_p()
        if kept := self.free.get(size):
            address.value = kept.pop()
        elif c.LIBRARY.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size)):
            raise MemoryError(f"{size} bytes of the harness's device memory")
        memory = (ctypes.c_uint8 * size).from_address(address.value)
        weakref.finalize(memory, self.free.setdefault(size, []).append, address.value).atexit = False
        # Nobody may rely on what a workspace holds: these are NaN.
        return torch.frombuffer(memory, dtype=torch.uint8).fill_(255)


_pool, _real = _Pool(), {}


def _patch(on: bool) -> None:
    """CPU tensors count as memory of CUDA device 0, on its default stream, or they do not."""
    from flashnce import _library as c
    from flashnce.torch import _call, _ops, _ranks, _sharded

    if not _real:
        _real.update(device_of=_call.device_of, workspace_of=_call.workspace_of)

    def device_of(name, tensor):
        device, index = _real["device_of"](name, tensor)
        return (c.CUDA, 0) if device == c.CPU else (device, index)

    def workspace_of(size, device):
        buffer = _pool.tensor(size + c.ALIGNMENT)
        return buffer, -(-buffer.data_ptr() // c.ALIGNMENT) * c.ALIGNMENT

    for name, fake in (("device_of", device_of), ("workspace_of", workspace_of)):
        for module in (_call, _ops, _ranks, _sharded):
            if hasattr(module, name):
                setattr(module, name, fake if on else _real[name])


@contextmanager
def cpu_backend():
    """Inside of it hostcuda's CPU tensors are CPU tensors."""
    _patch(False)
    try:
        yield
    finally:
        _patch(True)
