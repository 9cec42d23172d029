"""The processes that share a queue: what they exchange, and how they agree on a call before they do.

Every exchange is on tensors of one device, as the backend of the process group wants them: gloo for the CPU, nccl for
CUDA. Without torch.distributed, or in a group of one, nothing is exchanged.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _library as c
from ._call import device_of

CALLS = ("ShardedQueue", "push", "info_nce", "full_queue")
# int64 numbers of the header that agree() exchanges: as many for every call, so that different calls can meet.
_SLOTS = 40
_FAILED = {TypeError: 1, ValueError: 2}
_MESSAGE_BYTES = 1024


class Field(NamedTuple):
    """A number that all ranks must agree on, and how it is shown where they do not."""

    value: int | Tensor
    """An integer, or int64 of one element on the device."""
    show: Callable[[int], object] = int


def float_bits(value: float | Tensor) -> int | Tensor:
    """A float32 as the integer that a Field carries."""
    if isinstance(value, Tensor):
        return value.detach().reshape(1).view(torch.int32).long()
    return struct.unpack("<i", struct.pack("<f", value))[0]


def float_of(bits: int) -> float:
    """Back from float_bits, to seven digits."""
    return float(f"{struct.unpack('<f', struct.pack('<i', bits))[0]:.7g}")


def overwritten(where: str) -> str:
    """What happens to shards that something takes for copies of one buffer."""
    return (
        f"the buffers of the ShardedQueue {where} are those of another rank: DistributedDataParallel has broadcast "
        "them; call flashnce.torch.ignore_queues_in_ddp(model) before it wraps the model"
    )


# The DistributedDataParallel modules of this process; _registration.py learns of them.
wrappers: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def _refuse_join() -> None:
    """Raises inside DistributedDataParallel.join(): a rank whose data has ended takes part in that module's exchanges
    and in no other, so that the rest would wait for it here."""
    for module in wrappers:
        config = getattr(module, "_join_config", None)
        if config is not None and config.enable and not config.throw_on_early_termination:
            raise RuntimeError(
                "keys or negatives are exchanged inside DistributedDataParallel.join(), where a rank whose data has "
                "ended leaves the others waiting; use join(throw_on_early_termination=True), or as many batches on "
                "every rank"
            )


class Ranks:
    """A process group, or None: the default group, if there is one."""

    def __init__(self, group: torch.distributed.ProcessGroup | None) -> None:
        distributed = torch.distributed
        self.group, self.rank, self.count = group, 0, 1
        if group is not None or (distributed.is_available() and distributed.is_initialized()):
            self.rank, self.count = distributed.get_rank(group), distributed.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group has no rank for this process; it must be a group that this process is in")

    def gather(self, tensor: Tensor) -> Tensor:
        """[count, *shape]: the tensors of all ranks, which have one shape."""
        if self.count == 1:
            return tensor[None]
        _refuse_join()
        out = tensor.new_empty(self.count * tensor.numel())
        # The name that newer versions of PyTorch ask for, and the one that older ones have.
        gather = getattr(torch.distributed, "all_gather_single", None) or torch.distributed.all_gather_into_tensor
        gather(out, tensor.contiguous().reshape(-1), group=self.group)
        return out.view(self.count, *tensor.shape)

    def equal_rows(self, name: str, rows: int, on: Tensor) -> list[int]:
        """The rows of every rank, if all have as many; an error if not, where the device of `on` is not waited for."""
        if device_of(name, on)[0] == c.CPU:
            self._same(f"the number of rows of {name}", self.gather(torch.tensor([rows])).flatten().tolist())
        return [rows] * self.count

    def gather_rows(self, tensor: Tensor, sizes: Sequence[int]) -> Tensor:
        """[sum(sizes), D]: the rows of all ranks in rank order; this rank has sizes[rank] of them."""
        if min(sizes) == max(sizes):
            return self.gather(tensor).flatten(0, 1)
        padded = tensor.new_zeros(max(sizes), tensor.shape[1])
        padded[: tensor.shape[0]] = tensor
        return torch.cat([rows[:size] for rows, size in zip(self.gather(padded), sizes, strict=True)])

    def exchange(self, blocks: Tensor, sizes: Sequence[int]) -> Tensor:
        """[count * sizes[rank]]: `blocks` has sizes[r] elements for each rank r; back come those for this rank."""
        if self.count == 1:
            return blocks
        own = sizes[self.rank]
        out = blocks.new_empty(self.count * own)
        torch.distributed.all_to_all_single(out, blocks, [own] * self.count, list(sizes), group=self.group)
        return out

    def agree(
        self,
        call: str,
        device: torch.device,
        differing: Sequence[int | Tensor] = (),
        equal: dict[str, Field] | None = None,
        error: Exception | None = None,
        first_row: tuple[Tensor, int] | None = None,
    ) -> tuple[list[list[int]], Tensor]:
        """Exchanges what this rank is about to call, and raises on all ranks where one fails or where they differ.

        Args:
            call: one of CALLS.
            differing: numbers that may differ between ranks.
            equal: numbers that must not, by the name that an error gives them.
            error: why this rank cannot call, if it cannot.
            first_row: what a shard says that its first row is, and what it is.

        Returns:
            `differing` of every rank, for the host and, int64 [count, len(differing)], on the device.
        """
        if error is not None and self.count == 1:
            raise error
        equal = {} if error is not None or equal is None else equal
        failed = _FAILED.get(type(error), 2) if error is not None else 0
        moved = 0 if first_row is None else first_row[0] - first_row[1]
        values = [CALLS.index(call), failed, moved, *differing, *(field.value for field in equal.values())]
        numbers = [0 if isinstance(value, Tensor) else value for value in values]
        header = torch.tensor(numbers + [0] * (_SLOTS - len(numbers)), dtype=torch.int64).to(device)
        for slot, value in enumerate(values):
            if isinstance(value, Tensor):
                header[slot] = value.reshape(())
        headers = self.gather(header)
        rows = headers.tolist()
        if any(row[1] for row in rows):
            self._raise_together(error, [row[1] for row in rows], device)
        self._same("the call", [CALLS[row[0]] for row in rows])
        for rank, row in enumerate(rows):
            if row[2]:
                raise ValueError(overwritten(f"on rank {rank}"))
        end = 3 + len(differing)
        for slot, (name, field) in enumerate(equal.items(), end):
            self._same(name, [field.show(row[slot]) for row in rows])
        return [row[3:end] for row in rows], headers[:, 3:end]

    @staticmethod
    def _same(name: str, values: list[object]) -> None:
        for rank, value in enumerate(values):
            # Not `!=`: a NaN is as good as another.
            if repr(value) != repr(values[0]):
                raise ValueError(f"{name} is {value!r} on rank {rank} and {values[0]!r} on rank 0; it must be the same")

    def _raise_together(self, error: Exception | None, failed: list[int], device: torch.device) -> None:
        """The error of this rank, or else that of the first rank that has one."""
        text = str(error or "").encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0")
        texts = self.gather(torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device))
        if error is not None:
            raise error
        rank = next(rank for rank, kind in enumerate(failed) if kind)
        sentence = bytes(texts[rank].tolist()).rstrip(b"\0").decode(errors="replace")
        kind = {code: kind for kind, code in _FAILED.items()}[failed[rank]]
        raise kind(f"on rank {rank}: {sentence}")
