"""Queues under DistributedDataParallel."""

from __future__ import annotations

from torch import nn

from ._queue import Queue
from ._sharded_queue import ShardedQueue


def ignore_queues_in_ddp(module: nn.Module) -> list[str]:
    """Keeps the buffers of every Queue and ShardedQueue in `module` out of DistributedDataParallel's broadcasts.

    Call it before wrapping. The buffers of a ShardedQueue stay out without it, if each module was complete when it
    became a part of the next; a call that finds other buffers than its own raises. Nothing makes the ranks' Queues
    equal then: where they must be, give each a generator of the same seed.

    Returns: the names that DistributedDataParallel now ignores.
    """
    names = list(getattr(module, "_ddp_params_and_buffers_to_ignore", []))
    for path, part in module.named_modules():
        if isinstance(part, (Queue, ShardedQueue)):
            names += [f"{path}.{name}" if path else name for name, _ in part.named_buffers()]
    names = list(dict.fromkeys(names))
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)
    return names
