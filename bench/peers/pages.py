"""A step whose queue and workspace lie on pages of a chosen size, by madvise: 2 MiB, or the 4 KiB that memory has
otherwise.

Linux gives large pages where /sys/kernel/mm/transparent_hugepage/enabled is "madvise" or "always" and free ones are
there; whether it did is read back from /proc/self/smaps, so that no figure is of pages that were not given.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

import torch
from torch import Tensor

from .ours import CInterface
from .loaded import Unsupported
from .steps import Inputs

LARGE = 2 << 20
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SMAPS = Path("/proc/self/smaps")


def missing() -> str | None:
    """Why pages cannot be chosen here, if they cannot."""
    if not hasattr(mmap, "MADV_HUGEPAGE") or not ENABLED.is_file():
        return "this system has no transparent huge pages"
    return "transparent huge pages are switched off" if "[never]" in ENABLED.read_text() else None


def allocate(size: int, large: bool) -> Tensor:
    """Bytes, touched, that begin on a large page's boundary; Unsupported where the system did not give such pages."""
    memory = mmap.mmap(-1, size + LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    skipped = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % LARGE
    memory.madvise(mmap.MADV_HUGEPAGE if large else mmap.MADV_NOHUGEPAGE)
    # The tensor holds the mapping by its buffer.
    values = torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=skipped)
    before = large_bytes()
    values.zero_()
    given, wanted = large_bytes() - before, size // LARGE * LARGE if large else 0
    if given < 0.9 * wanted or (not large and given > 0):
        raise Unsupported(f"the system gave {given >> 20} MiB of large pages where {wanted >> 20} MiB were asked for")
    return values


def large_bytes() -> int:
    """How much of this process is on large pages."""
    return sum(int(kib) << 10 for kib in re.findall(r"^AnonHugePages:\s+(\d+) kB", SMAPS.read_text(), re.M))


def make(inputs: Inputs, large_queue: bool, large_workspace: bool) -> CInterface:
    queue = inputs.queue
    memory = allocate(queue.numel() * queue.element_size(), large_queue).view(queue.dtype).view(queue.shape)
    memory.copy_(queue)
    return CInterface(inputs.with_queue(memory), "ft", workspace=lambda size: allocate(size, large_workspace))
