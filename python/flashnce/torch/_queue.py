"""The negatives queue, equation (10): a ring of keys whose position lives on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from .._options import flag, integer
from . import _ops
from ._call import ELEMENT_TYPES, dense, element_type
from ._memory import queue_rows
from ._ranks import Field, Ranks


def check_queue_type(dtype: object) -> None:
    if dtype not in ELEMENT_TYPES:
        raise TypeError(f"dtype is {dtype}; it must be torch.float32, torch.float16 or torch.bfloat16")


def check_keys(keys: object, queue: Tensor) -> None:
    """Raises where `keys` cannot be pushed into `queue`."""
    keys = dense("keys", keys)
    if keys.device != queue.device:
        raise ValueError(f"keys is on {keys.device}; it must be on the device of the queue, {queue.device}")
    element_type("keys", keys)
    if keys.dim() != 2 or keys.shape[1] != queue.shape[1]:
        raise ValueError(f"keys has shape {list(keys.shape)}; it must be [N, {queue.shape[1]}]")


def rename_moco(state_dict: dict, prefix: str, shape: tuple[int, int]) -> None:
    """Turns MoCo's `queue` [D,K] and `queue_ptr` [1] into a state of a queue of this shape, [K,D]."""
    pointer, rows = state_dict.pop(prefix + "queue_ptr", None), state_dict.get(prefix + "queue")
    if pointer is not None:
        state_dict[prefix + "position"] = pointer.reshape(1)
        if rows is not None and tuple(rows.shape) == shape[::-1]:
            state_dict[prefix + "queue"] = rows.T.contiguous()


def check_position(state_dict: dict, prefix: str, size: int, errors: list[str]) -> bool:
    """Whether a state's position lies in the ring, as far as it can be read; `errors` gets a sentence where not."""
    position = state_dict.get(prefix + "position")
    if not isinstance(position, Tensor) or position.device.type == "meta" or position.numel() != 1:
        return True
    if 0 <= position.item() < size:
        return True
    errors.append(f"{prefix}position is {position.item()}; it must be in 0 .. {size - 1}")
    return False


class Queue(nn.Module):
    """K negatives of D features, in a ring: `queue.push(keys)` overwrites the oldest.

    Args:
        size: K >= 1.
        features: D >= 1.
        dtype: element type of the queue: float32, float16 or bfloat16. Keys are rounded to it as they are pushed; a
            16-bit queue takes half the memory and half the time to read.
        device: where the buffers live.
        generator: what the first content is drawn from; default: torch's default generator of the device.

    Buffers, both in state_dict():
        queue: [K,D]; at first random unit rows.
        position: int64 [1], the row that the next key goes to. Never read by the host but where a state is loaded.

    load_state_dict also takes MoCo's names and layout, `queue` [D,K] and `queue_ptr` [1], here and in a model whose
    attribute `queue` is this module (two in an nn.ModuleList: solo-learn's [2,D,K]); and it rounds a queue of another
    type to its own.

    An average of models that takes buffers as well, such as AveragedModel(model, use_buffers=True), averages the ring
    and its position, and what comes out is no ring. Copy the queue's state after each update:
    averaged.module.queue.load_state_dict(model.queue.state_dict()).

    DistributedDataParallel broadcasts buffers from rank 0 before each forward pass. Where every rank pushes the same
    gathered keys (push(keys, gather=True)) that costs time for nothing, and where each pushes its own it destroys them:
    see ignore_queues_in_ddp.
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
        size, features = integer("size", size), integer("features", features)
        for name, value in (("size", size), ("features", features)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        check_queue_type(dtype)
        self.register_buffer("queue", queue_rows(size, features, dtype, device))
        self.register_buffer("position", torch.empty(1, dtype=torch.int64, device=device))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Random unit rows and position 0, as after construction; to be called after to_empty() of a "meta" module."""
        rows = torch.randn(self.queue.shape, dtype=torch.float32, device=self.queue.device, generator=generator)
        self.queue.copy_(unit(rows, dim=1))
        self.position.zero_()

    def __len__(self) -> int:
        return self.queue.shape[0]

    def extra_repr(self) -> str:
        return f"{self.queue.shape[0]}, {self.queue.shape[1]}, dtype={self.queue.dtype}"

    @torch.no_grad()
    def push(
        self,
        keys: Tensor,
        *,
        normalize: bool = True,
        gather: bool = False,
        group: torch.distributed.ProcessGroup | None = None,
    ) -> None:
        """Writes keys over the oldest rows, in order, with wrap-around; of more than K keys the last K stay.

        Args:
            keys: [N,D] for any N >= 0, float32, float16 or bfloat16; never mixed ones.
            normalize: whether the keys are divided by their norms first.
            gather: whether the keys of all ranks are pushed, in rank order, as MoCo's concat_all_gather does: queues
                that were equal stay so. Then the call is collective, N may differ from rank to rank, and on a GPU the
                host waits for a few numbers.
            group: the processes whose keys are gathered; None: the default group or, without torch.distributed, this
                process alone.

        Raises:
            TypeError: keys is no tensor or of another type. ValueError: its shape or device does not fit the queue; on
            the CPU, too, if the position lies outside the ring. A GPU takes it modulo K. With `gather` what is wrong on
            one rank is raised on all.
        """
        flag("gather", gather)
        if gather:
            keys = self._gathered(keys, normalize, Ranks(group))
        flag("normalize", normalize)
        check_keys(keys, self.queue)
        _ops.queue_push(self.queue, self.position, keys.detach(), normalize=normalize)

    def _gathered(self, keys: Tensor, normalize: bool, ranks: Ranks) -> Tensor:
        error, fields = None, {}
        try:
            flag("normalize", normalize)
            check_keys(keys, self.queue)
            kinds = {code: str(dtype) for dtype, code in ELEMENT_TYPES.items()}
            fields = {
                "the type of keys": Field(ELEMENT_TYPES[keys.dtype], kinds.get),
                "normalize": Field(int(normalize), bool),
                "the size of the queue": Field(len(self)),
            }
        except (TypeError, ValueError) as wrong:
            error = wrong
        numbers, _ = ranks.agree("push", self.queue.device, [0 if error else keys.shape[0]], fields, error)
        sizes = [row[0] for row in numbers]
        return ranks.gather_rows(keys.detach(), sizes) if max(sizes) else keys

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        rename_moco(state_dict, prefix, tuple(self.queue.shape))
        if check_position(state_dict, prefix, len(self), errors):
            super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
