"""Memory of queues: rows that every step reads all of, so that the kernel may as well keep them in large pages."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import Tensor

# madvise(2) on Linux, and the size of a large page of x86-64 and of arm64 with pages of 4 KB.
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20


def queue_rows(size: int, features: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    """[size, features], unwritten. On Linux CPUs the kernel is asked, before the first touch, for pages of 2 MB: fewer
    misses of the TLB, nothing else. Where it has none to give, or where the memory was in use before, it stays so."""
    rows = torch.empty(size, features, dtype=dtype, device=device)
    if rows.device.type == "cpu" and sys.platform == "linux":
        start, end = rows.data_ptr(), rows.data_ptr() + rows.numel() * rows.element_size()
        # Whole pages inside the buffer only: what lies around it is not ours.
        start, end = -(-start // _HUGE_PAGE) * _HUGE_PAGE, end // _HUGE_PAGE * _HUGE_PAGE
        if start < end:
            # Advice: a refusal changes nothing.
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_HUGEPAGE)
    return rows
