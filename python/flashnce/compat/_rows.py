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


def check_shapes(features: dict[str, Tensor]) -> None:
    """Raises TypeError or ValueError unless these features, by the names of arguments, have one shape, [N,D]."""
    for name, value in features.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; it must be a Tensor")
    (first, like), *others = features.items()
    if like.dim() != 2:
        raise ValueError(f"{first} has shape {list(like.shape)}; it must be [N, D]")
    for name, value in others:
        if value.shape != like.shape:
            raise ValueError(f"{name} has shape {list(value.shape)}; it must be that of {first}, {list(like.shape)}")


def own_rows(features: dict[str, Tensor], *, gather: bool) -> Tensor:
    """int64 [N]: numbers of this process's rows, with `gather` among those of all processes, any number on each.

    The features are those of check_shapes. Among several processes it is left to the loss to refuse others, since that
    raises on all of them.
    """
    ranks, some = Ranks(None), next(iter(features.values()))
    if not gather or ranks.count == 1:
        check_shapes(features)
        return torch.arange(len(some), device=some.device)
    # On the device, so that the host does not wait for it.
    sizes = ranks.gather(torch.full((1,), len(some), device=some.device))
    return torch.arange(len(some), device=some.device) + sizes[: ranks.rank].sum()


@torch.no_grad()
def gathered(name: str, rows: Tensor) -> Tensor:
    """The rows [N,...] of all processes in rank order; without torch.distributed `rows`.

    Each has the same N; on the CPU another one is a ValueError that calls the rows `name`.
    """
    ranks = Ranks(None)
    ranks.equal_rows(name, len(rows), rows)
    return ranks.gather(rows).flatten(0, 1)
