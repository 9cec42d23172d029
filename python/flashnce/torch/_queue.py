"""The negatives queue, equation (10): a ring of keys whose position lives on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from .._options import integer
from . import _ops

_HALF = (torch.float16, torch.bfloat16)


class Queue(nn.Module):
    """K negatives of D features, in a ring: `queue.push(keys)` overwrites the oldest.

    Args:
        size: K >= 1.
        features: D >= 1.
        dtype: element type of the queue; float32 in this version.
        device: where the buffers live.
        generator: what the first content is drawn from; default: torch's default generator of the device.

    Buffers, both in state_dict():
        queue: [K,D]; at first random unit rows.
        position: int64 [1], the row that the next key goes to. Never read by the host.

    load_state_dict also takes MoCo's names and layout: `queue` [D,K] and `queue_ptr` [1].

    DistributedDataParallel broadcasts buffers from rank 0 before each forward pass. Where every rank pushes the same
    gathered keys that costs time for nothing, and where each pushes its own it destroys them: see ignore_queues_in_ddp.
    """

    queue: Tensor
    position: Tensor

    def __init__(
        self,
        size: int,
        features: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("size", size), ("features", features)):
            integer(name, value)
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        rows = unit(torch.randn(size, features, device=device, generator=generator), dim=1)
        self.register_buffer("queue", rows.to(dtype))
        self.register_buffer("position", torch.zeros(1, dtype=torch.int64, device=device))

    def __len__(self) -> int:
        return self.queue.shape[0]

    def extra_repr(self) -> str:
        return f"{self.queue.shape[0]}, {self.queue.shape[1]}, dtype={self.queue.dtype}"

    @torch.no_grad()
    def push(self, keys: Tensor, *, normalize: bool = True) -> None:
        """Writes keys over the oldest rows, in order, with wrap-around; of more than K keys the last K stay.

        Args:
            keys: [N,D] for any N >= 0, float32, float16 or bfloat16; never mixed ones.
            normalize: whether the keys are divided by their norms first.

        Raises:
            TypeError: keys is no tensor or of another type. ValueError: its shape or device does not fit the queue.
        """
        if not isinstance(keys, Tensor):
            raise TypeError(f"keys is a {type(keys).__name__}; it must be a Tensor")
        if keys.device != self.queue.device:
            raise ValueError(f"keys is on {keys.device}; it must be on the device of the queue, {self.queue.device}")
        keys = keys.detach()
        if keys.dtype in _HALF:
            keys = keys.float()
        elif keys.dtype != torch.float32:
            raise TypeError(f"keys has type {keys.dtype}; it must be float32, float16 or bfloat16")
        _ops.queue_push(self.queue, self.position, keys, normalize=normalize)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        pointer, rows = state_dict.get(prefix + "queue_ptr"), state_dict.get(prefix + "queue")
        if pointer is not None:
            state_dict[prefix + "position"] = state_dict.pop(prefix + "queue_ptr").reshape(1)
            if rows is not None and rows.shape == self.queue.T.shape:
                state_dict[prefix + "queue"] = rows.T
        super()._load_from_state_dict(state_dict, prefix, *args)


def ignore_queues_in_ddp(module: nn.Module) -> list[str]:
    """Keeps the buffers of every Queue in `module` out of DistributedDataParallel's broadcasts.

    Call it before wrapping. Then nothing makes the ranks' queues equal: where they must be, give each Queue a generator
    of the same seed.

    Returns: the names that DistributedDataParallel now ignores.
    """
    names = list(getattr(module, "_ddp_params_and_buffers_to_ignore", []))
    for path, part in module.named_modules():
        if isinstance(part, Queue):
            names += [f"{path}.{name}" if path else name for name in ("queue", "position")]
    names = list(dict.fromkeys(names))
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)
    return names
