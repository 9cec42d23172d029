"""What adapters do with rows: a queue of given ones, a push of any type, numbers and keys in several processes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..torch import Queue
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


def own_rows(n: int, device: torch.device, *, gather: bool) -> Tensor:
    """int64 [n]: numbers of this process's n rows, with `gather` among those of all processes, any number on each."""
    rows, ranks = torch.arange(n, device=device), Ranks(None)
    if not gather or ranks.count == 1:
        return rows
    # On the device, so that the host does not wait for it.
    return rows + ranks.gather(torch.full((1,), n, device=device))[: ranks.rank].sum()


@torch.no_grad()
def gathered(name: str, rows: Tensor) -> Tensor:
    """The rows [N,...] of all processes in rank order; without torch.distributed `rows`.

    Each has the same N; on the CPU another one is a ValueError that calls the rows `name`.
    """
    ranks = Ranks(None)
    ranks.equal_rows(name, len(rows), rows)
    return ranks.gather(rows).flatten(0, 1)
