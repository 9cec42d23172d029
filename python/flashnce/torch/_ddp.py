"""Queues under DistributedDataParallel."""

from __future__ import annotations

from torch import nn

from ._queue import Queue
from ._sharded_queue import ShardedQueue


def ignore_queues_in_ddp(module: nn.Module) -> list[str]:
    """Keeps the buffers of every Queue and ShardedQueue in `module` out of DistributedDataParallel's broadcasts.

    Call it before wrapping. A ShardedQueue needs it. Nothing makes the ranks' Queues equal then: where they must be,
    give each a generator of the same seed.

    Returns: the names that DistributedDataParallel now ignores.
    """
    names = list(getattr(module, "_ddp_params_and_buffers_to_ignore", []))
    for path, part in module.named_modules():
        if isinstance(part, (Queue, ShardedQueue)):
            names += [f"{path}.{name}" if path else name for name, _ in part.named_buffers()]
    names = list(dict.fromkeys(names))
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)
    return names
