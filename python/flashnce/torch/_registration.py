"""What a module learns when a queue becomes a part of it: names that DistributedDataParallel and MoCo's states go by.

A queue does not know its parents, and both are looked for in them. PyTorch calls the hook below for every part that any
module gets, so it does next to nothing for modules without queues.
"""

from __future__ import annotations

import functools

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from . import _ranks
from ._queue import Queue
from ._sharded_queue import ShardedQueue

_IGNORED = "_ddp_params_and_buffers_to_ignore"


def _rename_moco(name: str, count: int, state_dict: dict, prefix: str, *_) -> None:
    """Hands a model's MoCo buffers `queue` and `queue_ptr` on to the queue, or the `count` queues, in their place."""
    rows, pointer = state_dict.get(prefix + name), state_dict.get(f"{prefix}{name}_ptr")
    if rows is None or pointer is None:
        return
    if not count:
        parts = [(f"{prefix}{name}.", rows, pointer)]
    elif rows.dim() == 3 and len(rows) == count:
        parts = [(f"{prefix}{name}.{i}.", one, pointer) for i, one in enumerate(rows)]
    else:
        return
    del state_dict[prefix + name], state_dict[f"{prefix}{name}_ptr"]
    for path, one, position in parts:
        state_dict[path + "queue"], state_dict[path + "queue_ptr"] = one, position


def _register(parent: nn.Module, name: str, part: nn.Module | None) -> None:
    if isinstance(parent, nn.parallel.DistributedDataParallel):
        _ranks.wrappers.add(parent)
    if isinstance(part, ShardedQueue):
        ignored = [buffer for buffer, _ in part.named_buffers()]
    else:
        ignored = part.__dict__.get(_IGNORED, ()) if part is not None else ()
    if ignored:
        names = [*parent.__dict__.get(_IGNORED, ()), *(f"{name}.{path}" for path in ignored)]
        setattr(parent, _IGNORED, list(dict.fromkeys(names)))
    if isinstance(part, (Queue, ShardedQueue)):
        parent._register_load_state_dict_pre_hook(functools.partial(_rename_moco, name, 0))
    elif isinstance(part, nn.ModuleList) and len(part) and all(isinstance(x, (Queue, ShardedQueue)) for x in part):
        parent._register_load_state_dict_pre_hook(functools.partial(_rename_moco, name, len(part)))


register_module_module_registration_hook(_register)
