"""What adapters do with rows: a queue of given ones, a push of any type, and the keys of all processes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..torch import Queue
from ..torch._arguments import own_rank
from ..torch._ranks import Ranks


@torch.no_grad()
def queue_of(rows: Tensor) -> Queue:
    """A Queue of these rows [K,D].

    It draws nothing from the default generator, so that a trainer that made its queue by torch.randn goes on with the
    numbers that it would have had.
    """
    generator = None if rows.device.type == "meta" else torch.Generator(rows.device)
    queue = Queue(*rows.shape, dtype=rows.dtype, device=rows.device, generator=generator)
    queue.queue.copy_(rows)
    return queue


def push(queue: Queue, keys: Tensor, *, normalize: bool = True) -> None:
    """queue.push for keys of float64 as well, which only the reference computes with."""
    queue.push(keys.float() if keys.dtype == torch.float64 else keys, normalize=normalize)


def own_rows(n: int, device: torch.device) -> Tensor:
    """int64 [n]: numbers of this process's n rows among those of all processes, which have as many each."""
    return torch.arange(n, device=device) + own_rank() * n


@torch.no_grad()
def gathered(rows: Tensor) -> Tensor:
    """The rows [N,...] of all processes in rank order, the same N on each; without torch.distributed `rows`."""
    return Ranks(None).gather(rows).flatten(0, 1)
