"""The negatives queue, equation (10): a ring of keys whose position lives on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from .._library import NO_COLUMN
from .._options import UNNAMED, flag, integer
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


def check_ids(name: str, ids: object, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Ids as int64, of this shape and device."""
    ids = dense(name, ids)
    if ids.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} has type {ids.dtype}; it must be int64 or int32")
    if tuple(ids.shape) != shape:
        raise ValueError(f"{name} has shape {list(ids.shape)}; it must be {list(shape)}")
    if ids.device != device:
        raise ValueError(f"{name} is on {ids.device}; it must be on {device}")
    return ids.long()


def ids_to_push(queue: nn.Module, keys: Tensor, ids: Tensor | None, normalize: object) -> Tensor | None:
    """The ids of keys that can be pushed into a Queue or a ShardedQueue, or None where that has no room for them."""
    flag("normalize", normalize)
    check_keys(keys, queue.queue)
    if queue.named == (ids is None):
        kind = type(queue).__name__
        raise ValueError(
            f"ids is None; a {kind} with ids=True needs those of the keys"
            if queue.named
            else f"ids is given; a {kind} keeps them if it is made with ids=True"
        )
    if queue.ids is None:
        return None
    count = keys.shape[0]
    if ids is None:
        return torch.full((count,), UNNAMED, dtype=torch.int64, device=queue.ids.device)
    return check_ids("ids", ids, (count,), queue.ids.device)


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
        ids: whether each slot has an id, the second argument of `push`: info_nce(..., ids=) leaves the slots out whose
            id is the query's, equation (14).
        empty: whether the slots are empty at first, and nobody's negatives until they are filled. False: they hold
            random unit rows, as MoCo's do, which are negatives of every query.
        dtype: element type of the queue: float32, float16 or bfloat16. Keys are rounded to it as they are pushed; a
            16-bit queue takes half the memory and half the time to read.
        device: where the buffers live.
        generator: what the first content is drawn from; default: torch's default generator of the device.

    Buffers, all in state_dict():
        queue: [K,D]; at first random unit rows, or zeros where it is empty.
        position: int64 [1], the row that the next key goes to. Never read by the host but where a state is loaded.
        ids: int64 [K], only with `ids` or `empty`: NO_COLUMN in an empty slot, NO_COLUMN + 1 in one that was filled
            without an id, which therefore is nobody's id.

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
    ids: Tensor | None

    def __init__(
        self,
        size: int,
        features: int,
        *,
        ids: bool = False,
        empty: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        flag("ids", ids)
        flag("empty", empty)
        size, features = integer("size", size), integer("features", features)
        for name, value in (("size", size), ("features", features)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        check_queue_type(dtype)
        self.named, self.empty = ids, empty
        self.register_buffer("queue", queue_rows(size, features, dtype, device))
        self.register_buffer("position", torch.empty(1, dtype=torch.int64, device=device))
        self.register_buffer("ids", torch.empty(size, dtype=torch.int64, device=device) if ids or empty else None)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As after construction: empty or random unit rows, and position 0; to be called after to_empty() of a "meta"
        module."""
        self._fill(self.queue, self.ids, generator)
        self.position.zero_()

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Forgets all keys, as when another data set begins: what reset_parameters does."""
        self.reset_parameters(generator)

    def _fill(self, rows: Tensor, ids: Tensor | None, generator: torch.Generator | None = None) -> None:
        """Writes what slots hold before a key is pushed into them."""
        if self.empty:
            rows.zero_()
        else:
            drawn = torch.randn(rows.shape, dtype=torch.float32, device=rows.device, generator=generator)
            rows.copy_(unit(drawn, dim=1))
        if ids is not None:
            ids.fill_(NO_COLUMN if self.empty else UNNAMED)

    def __len__(self) -> int:
        return self.queue.shape[0]

    @property
    def filled(self) -> Tensor:
        """int64 []: how many slots are not empty. It stays on the device, so that nobody waits for it."""
        if self.ids is None:
            return torch.full((), len(self), dtype=torch.int64, device=self.queue.device)
        return (self.ids != NO_COLUMN).sum()

    def extra_repr(self) -> str:
        options = "".join(f", {name}=True" for name, given in (("ids", self.named), ("empty", self.empty)) if given)
        return f"{self.queue.shape[0]}, {self.queue.shape[1]}{options}, dtype={self.queue.dtype}"

    @torch.no_grad()
    def push(
        self,
        keys: Tensor,
        ids: Tensor | None = None,
        *,
        normalize: bool = True,
        gather: bool = False,
        group: torch.distributed.ProcessGroup | None = None,
    ) -> None:
        """Writes keys over the oldest rows, in order, with wrap-around; of more than K keys the last K stay.

        Args:
            keys: [N,D] for any N >= 0, float32, float16 or bfloat16; never mixed ones.
            ids: [N] of a queue with ids, int64 or int32: what each key shows, such as its index in the data set or its
                label; NO_COLUMN makes it nobody's negative.
            normalize: whether the keys are divided by their norms first.
            gather: whether the keys of all ranks are pushed, in rank order, as MoCo's concat_all_gather does: queues
                that were equal stay so. Then the call is collective, N may differ from rank to rank, and on a GPU the
                host waits for a few numbers.
            group: the processes whose keys are gathered; None: the default group or, without torch.distributed, this
                process alone.

        Raises:
            TypeError: keys or ids is no tensor or of another type. ValueError: its shape or device does not fit the
            queue, or ids are given to a queue without them or the other way round; on the CPU, too, if the position
            lies outside the ring. A GPU takes it modulo K. With `gather` what is wrong on one rank is raised on all.
        """
        flag("gather", gather)
        if gather:
            keys, ids = self._gathered(keys, ids, normalize, Ranks(group))
        ids = ids_to_push(self, keys, ids, normalize)
        if self.ids is None:
            _ops.queue_push(self.queue, self.position, keys.detach(), normalize=normalize)
            return
        count, position = keys.shape[0], self.position.clone()
        _ops.queue_push(self.queue, self.position, keys.detach(), normalize=normalize)
        first = max(count - len(self), 0)
        slots = (position + torch.arange(first, count, device=ids.device)) % len(self)
        self.ids.index_copy_(0, slots, ids[first:])

    @torch.no_grad()
    def resize(self, size: int, generator: torch.Generator | None = None) -> None:
        """Makes it a ring of another size K >= 1, which holds the newest keys that fit; slots that are new are as after
        construction, and filled next. The buffers are other tensors afterwards."""
        size = integer("size", size)
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1")
        kept = min(size, len(self))
        # From the oldest to the newest.
        slots = (self.position + torch.arange(len(self) - kept, len(self), device=self.position.device)) % len(self)
        rows = queue_rows(size, self.queue.shape[1], self.queue.dtype, self.queue.device)
        ids = None if self.ids is None else self.ids.new_empty(size)
        self._fill(rows[kept:], None if ids is None else ids[kept:], generator)
        rows[:kept] = self.queue[slots]
        if ids is not None:
            ids[:kept] = self.ids[slots]
        self.queue, self.ids = rows, ids
        self.position.fill_(kept % size)

    def _gathered(
        self, keys: Tensor, ids: Tensor | None, normalize: bool, ranks: Ranks
    ) -> tuple[Tensor, Tensor | None]:
        error, fields = None, {}
        try:
            ids = ids_to_push(self, keys, ids, normalize)
            kinds = {code: str(dtype) for dtype, code in ELEMENT_TYPES.items()}
            fields = {
                "the type of keys": Field(ELEMENT_TYPES[keys.dtype], kinds.get),
                "normalize": Field(int(normalize), bool),
                "the size of the queue": Field(len(self)),
                "whether the queue has ids": Field(int(self.named), bool),
            }
        except (TypeError, ValueError) as wrong:
            error = wrong
        numbers, _ = ranks.agree("push", self.queue.device, [0 if error else keys.shape[0]], fields, error)
        sizes = [row[0] for row in numbers]
        if max(sizes):
            keys = ranks.gather_rows(keys.detach(), sizes)
            ids = ranks.gather_rows(ids[:, None], sizes)[:, 0] if self.named else ids
        return keys, ids if self.named else None

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        rename_moco(state_dict, prefix, tuple(self.queue.shape))
        if self.ids is not None and not self.named and prefix + "queue" in state_dict:
            # The state of a queue that is never empty.
            state_dict.setdefault(prefix + "ids", torch.full_like(self.ids, UNNAMED, device="cpu"))
        if check_position(state_dict, prefix, len(self), errors):
            super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
