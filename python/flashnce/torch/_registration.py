"""What a module learns when a queue becomes a part of it: the buffers that DistributedDataParallel must leave alone.

A queue does not know its parents, where DistributedDataParallel looks. PyTorch calls the hook below for every part that any
module gets, so it does next to nothing for modules without queues.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ._sharded_queue import ShardedQueue

_IGNORED = "_ddp_params_and_buffers_to_ignore"


def _register(parent: nn.Module, name: str, part: nn.Module | None) -> None:
    if isinstance(part, ShardedQueue):
        ignored = [buffer for buffer, _ in part.named_buffers()]
    else:
        ignored = part.__dict__.get(_IGNORED, ()) if part is not None else ()
    if ignored:
        names = [*parent.__dict__.get(_IGNORED, ()), *(f"{name}.{path}" for path in ignored)]
        setattr(parent, _IGNORED, list(dict.fromkeys(names)))


register_module_module_registration_hook(_register)
