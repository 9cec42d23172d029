"""The negatives queue of several processes: each holds some of its rows, all push to it, one order is global."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from .. import _library as c
from .._library import NO_COLUMN
from .._options import UNNAMED, flag, integer
from . import _call, _ops
from ._call import ELEMENT_TYPES
from ._memory import queue_rows
from ._queue import check_position, check_queue_type, ids_to_push, rename_moco
from ._ranks import Field, Ranks, overwritten

_TYPE_NAMES = {code: str(dtype) for dtype, code in ELEMENT_TYPES.items()}


class ShardedQueue(nn.Module):
    """K negatives of D features, in one ring that is spread over the processes of a group.

    Takes the place of a Queue in InfoNCE and info_nce: the loss of each process's rows is against all K negatives. The
    ring is that of one process into which the keys of all ranks are pushed in rank order. The permutation of mixed
    negatives stays inside blocks of `perm_block` rows, and each rank holds a run of whole blocks (perhaps none), so
    what a seed draws does not depend on the number of processes; docs/sharding.md tells the whole story.

    Construction, `push`, `full_queue` and the loss are collective: every rank of the group calls them, in one order.

    Args:
        size: K >= 1, over all ranks.
        features: D >= 1.
        perm_block: a multiple of 16. At most ceil(K / perm_block) ranks get rows.
        ids, empty: whether each slot has an id, and whether the slots are empty at first, as in a Queue.
        group: the process group; None: the default one or, without torch.distributed, this process alone.
        dtype: element type of the queue: float32, float16 or bfloat16.
        device: where the buffers live.
        generator: what the first content is drawn from; with generators of one seed on all ranks it does not depend on
            their number. Default: torch's default generator of the device.
        check: True: each call first exchanges a few numbers, so that ranks may have different numbers of rows and an
            error on one rank is raised on all. False: it does not, and on a GPU no call waits for the device, which
            each exchange of such numbers does. Then every rank must have as many rows, which is looked at on the CPU
            alone, and the same options, and an error on one rank leaves the others waiting.

    Buffers, all in state_dict():
        queue: [K_r,D], this rank's rows of the ring.
        position: int64 [1], the row of the whole ring that the next key goes to, equal on all ranks.
        first_row: int64 [1], the row of the whole ring that row 0 of `queue` is.
        ids: int64 [K_r], only with `ids` or `empty`: those of this rank's rows.

    In a state of several processes `queue`, `first_row` and `ids` are called queue_1_of_3, ... on rank 1 of 3, so that
    torch.distributed.checkpoint does not take shards for copies of one tensor.

    load_state_dict takes such a state of the same rank of as many processes, or that of the whole ring, {"queue":
    full_queue(), "position": position} and, where there are ids, "ids": full_ids(): of any number of processes, of a
    Queue, or of MoCo.
    """

    queue: Tensor
    position: Tensor
    ids: Tensor | None
    first_row: Tensor

    def __init__(
        self,
        size: int,
        features: int,
        *,
        perm_block: int = 1024,
        ids: bool = False,
        empty: bool = False,
        group: torch.distributed.ProcessGroup | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.ranks = Ranks(group)
        position = torch.empty(1, dtype=torch.int64, device=device)
        fields, error = {}, None
        try:
            size, features = integer("size", size), integer("features", features)
            perm_block = integer("perm_block", perm_block)
            for name, value, least in (("size", size, 1), ("features", features, 1), ("perm_block", perm_block, 16)):
                if value < least or (name == "perm_block" and value % 16):
                    allowed = "a multiple of 16" if least > 1 else "at least 1"
                    raise ValueError(f"{name} is {value}; it must be {allowed}")
            check_queue_type(dtype)
            flag("ids", ids)
            flag("empty", empty)
            fields = {
                "size": Field(size),
                "features": Field(features),
                "perm_block": Field(perm_block),
                "dtype": Field(ELEMENT_TYPES[dtype], _TYPE_NAMES.get),
                "check": Field(int(check), bool),
                "ids": Field(int(ids), bool),
                "empty": Field(int(empty), bool),
            }
        except (TypeError, ValueError) as wrong:
            error = wrong
        # Nothing can be exchanged by tensors on "meta": then the first call finds what differs.
        if position.device.type != "meta":
            self.ranks.agree("ShardedQueue", position.device, equal=fields, error=error)
        elif error is not None:
            raise error
        self.size, self.features, self.perm_block, self.check = size, features, perm_block, check
        self.named, self.empty = ids, empty
        blocks = -(-size // perm_block)
        # Rank r holds rows starts[r] .. starts[r+1] - 1.
        starts = [min(rank * blocks // self.ranks.count * perm_block, size) for rank in range(self.ranks.count + 1)]
        self.sizes = [end - start for start, end in zip(starts, starts[1:])]
        self.rows = range(starts[self.ranks.rank], starts[self.ranks.rank + 1])
        suffix = f"_{self.ranks.rank}_of_{self.ranks.count}" if self.ranks.count > 1 else ""
        self._names = {name: name + suffix for name in ("queue", "first_row", "ids")}
        self.register_buffer(self._names["queue"], queue_rows(len(self.rows), features, dtype, device))
        self.register_buffer("position", position)
        self.register_buffer(self._names["first_row"], torch.empty_like(position))
        own = torch.empty(len(self.rows), dtype=torch.int64, device=device) if ids or empty else None
        self.register_buffer(self._names["ids"], own)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Empty or random unit rows and position 0, as after construction; to be called after to_empty() of a "meta"
        module."""
        self.position.zero_()
        self.first_row.fill_(self.rows.start)
        if self.ids is not None:
            self.ids.fill_(NO_COLUMN if self.empty else UNNAMED)
        if self.empty:
            self.queue.zero_()
            return
        if self.queue.device.type == "meta":
            return
        # Every rank draws every block and keeps its own.
        for start in range(0, self.size, self.perm_block):
            shape = min(self.perm_block, self.size - start), self.features
            rows = torch.randn(shape, dtype=torch.float32, device=self.queue.device, generator=generator)
            if start in self.rows:
                self.queue[start - self.rows.start :][: len(rows)] = unit(rows, dim=1)

    def __getattr__(self, name: str):
        # What torch finds under the name of the buffer is found under the short one, too.
        names = self.__dict__.get("_names", {})
        return super().__getattr__(names.get(name, name))

    def __len__(self) -> int:
        return self.size

    def extra_repr(self) -> str:
        return (
            f"{self.size}, {self.features}, perm_block={self.perm_block}, dtype={self.queue.dtype}, "
            f"rank {self.ranks.rank} of {self.ranks.count} with {len(self.rows)} rows"
        )

    def shard(self) -> tuple[Tensor, int]:
        """The first row by the buffer, and by the rank: two numbers where something has overwritten the buffers."""
        return self.first_row, self.rows.start

    def check_shard(self) -> None:
        """Raises where the buffers are those of another rank; on a GPU nobody looks, for the host would wait."""
        on_host = _call.device_of("first_row", self.first_row)[0] == c.CPU
        if on_host and self.first_row.item() != self.rows.start:
            raise ValueError(overwritten(f"of rank {self.ranks.rank}"))

    @torch.no_grad()
    def push(self, keys: Tensor, ids: Tensor | None = None, *, normalize: bool = True) -> None:
        """Writes the keys of all ranks, in rank order, over the oldest rows of the ring, with wrap-around.

        Of more than K keys the last K stay. Collective.

        Args:
            keys: [N,D], this rank's: any N >= 0, which may differ from rank to rank (the same N where check is False);
                float32, float16 or bfloat16; never mixed ones.
            ids: [N] of a queue with ids, int64 or int32: those of this rank's keys.
            normalize: whether the keys are divided by their norms first.

        Raises:
            TypeError, ValueError: as Queue.push; on every rank, if one rank's keys are wrong or `normalize` differs.
        """
        if self.check:
            error = None
            try:
                ids = ids_to_push(self, keys, ids, normalize)
            except (TypeError, ValueError) as wrong:
                error = wrong
            count = [keys.shape[0] if error is None else 0]
            fields = {"normalize": Field(int(error is None and normalize), bool)}
            numbers, _ = self.ranks.agree("push", self.queue.device, count, fields, error, self.shard())
            sizes = [row[0] for row in numbers]
        else:
            ids = ids_to_push(self, keys, ids, normalize)
            self.check_shard()
            sizes = self.ranks.equal_rows("keys", keys.shape[0], self.queue)
        own = self.queue.new_empty(keys.shape)
        if len(own):
            # A ring of its own size turns raw keys into rows of the queue.
            _ops.queue_push(own, torch.zeros_like(self.position), keys.detach(), normalize=normalize)
        if max(sizes):
            ids = None if ids is None else self.ranks.gather_rows(ids[:, None], sizes)
            self._write(self.ranks.gather_rows(own, sizes), ids)

    def _write(self, rows: Tensor, ids: Tensor | None) -> None:
        """Writes into the ring what of `rows`, the new ones of all ranks in order, falls into this rank's shard, and
        their ids [M,1].

        The rows of this shard that are written follow each other in the shard taken as a ring of its own, from the
        position if that lies inside, else from its start. So all is done with tensors of known size on the device.
        """
        count = min(len(rows), self.size)
        position = (self.position + (len(rows) - count)) % self.size
        rows = rows[len(rows) - count :]
        held, first = len(self.rows), self.rows.start
        if held:
            inside = (position >= first) & (position < first + held)
            # Not torch.where: a number beside a tensor of a GPU is copied there, and the host waits for that.
            start = (position - first) * inside
            to = (start + torch.arange(min(count, held), device=rows.device)) % held
            source = (first + to - position) % self.size
            new = (source < count)[:, None]
            source = source.clamp(max=count - 1)
            self.queue.index_copy_(0, to, torch.where(new, rows[source], self.queue[to]))
            if ids is not None:
                ids = ids[len(ids) - count :]
                self.ids.index_copy_(0, to, torch.where(new, ids[source], self.ids[to, None])[:, 0])
        self.position.copy_((position + count) % self.size)

    @torch.no_grad()
    def full_queue(self) -> Tensor:
        """[K,D]: the whole ring, on every rank. Collective. With `position` it is what load_state_dict takes."""
        self.ranks.agree("full_queue", self.queue.device, first_row=self.shard())
        return self.queue.clone() if self.ranks.count == 1 else self.ranks.gather_rows(self.queue, self.sizes)

    @torch.no_grad()
    def full_ids(self) -> Tensor | None:
        """int64 [K]: the ids of the whole ring, on every rank; None where it has none. Collective, as full_queue."""
        if self.ids is None:
            return None
        self.ranks.agree("full_queue", self.queue.device, first_row=self.shard())
        if self.ranks.count == 1:
            return self.ids.clone()
        return self.ranks.gather_rows(self.ids[:, None], self.sizes)[:, 0]

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        whole = (self.size, self.features)
        rename_moco(state_dict, prefix, whole)
        # Shards by their short names, as versions before those with ranks in them had it, and the whole ring.
        for name, own in self._names.items():
            if own != name and prefix + name in state_dict:
                state_dict[prefix + own] = state_dict.pop(prefix + name)
        rows_name, first_name, ids_name = (prefix + self._names[name] for name in ("queue", "first_row", "ids"))
        rows, first = state_dict.get(rows_name), state_dict.get(first_name)
        if rows is not None and tuple(rows.shape) == whole:
            state_dict[rows_name] = rows[self.rows.start : self.rows.stop]
            state_dict[first_name] = torch.full_like(self.first_row, self.rows.start)
            if (ids := state_dict.get(ids_name)) is not None:
                state_dict[ids_name] = ids[self.rows.start : self.rows.stop]
        elif rows is not None and first is not None and first.item() != self.rows.start:
            errors.append(
                f"{prefix}queue holds the rows from {first.item()} on, but this rank has those from {self.rows.start} "
                f"on; load the state of this rank, or the {self.size} rows of full_queue()"
            )
            return
        if rows is not None and self.ids is not None and not self.named:
            # The state of a queue that is never empty.
            state_dict.setdefault(ids_name, torch.full_like(self.ids, UNNAMED, device="cpu"))
        if check_position(state_dict, prefix, self.size, errors):
            super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
