"""The columns of a call beyond its queue, and which of them count for a row: equations (13) to (15), checked.

Everything here can be traced by torch.compile: no data is read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._options import number, resolve_ids
from ._arguments import features, float_tensor
from ._call import same_device
from ._queue import Queue, check_ids
from ._sharded_queue import ShardedQueue


def batch_or_none(batch: object, k: Tensor, q: Tensor) -> Tensor | None:
    """The raw batch columns [C,D]: for True those of this call's keys."""
    if batch is None or batch is True:
        return k if batch else None
    if not isinstance(batch, Tensor):
        raise TypeError(f"batch is a {type(batch).__name__}; it must be None, True or a Tensor")
    batch = features("batch", batch)
    if batch.shape[1] != q.shape[1]:
        raise ValueError(f"batch has shape {list(batch.shape)}; it must be [C, {q.shape[1]}], as q {list(q.shape)}")
    same_device("batch", batch, q)
    return batch


def ids_of(
    negatives: object, size: int, q: Tensor, batch: Tensor | None, in_batch: bool, ids: object,
    negative_ids: object, batch_ids: object,
) -> dict[str, Tensor | None]:  # fmt: skip
    """The ids of the queries, of the `size` negatives, for which the caller gave `negatives`, and of the batch columns:
    all of them, or none at all. With `in_batch` the batch columns are the keys of this call. Those that a ShardedQueue
    has are those of its shard."""
    unnamed = None
    given = {"ids": ids, "negative_ids": negative_ids, "batch_ids": batch_ids}
    sizes = {"ids": q.shape[0], "negative_ids": size, "batch_ids": None if batch is None else batch.shape[0]}
    for name, value in given.items():
        if value is not None and sizes[name] is not None:
            given[name] = check_ids(name, value, (sizes[name],), q.device)
    if isinstance(negatives, (Queue, ShardedQueue)) and negatives.ids is not None:
        if negative_ids is not None:
            kind = type(negatives).__name__
            raise ValueError(f"negative_ids is given, but the {kind} has ids of its own; push them with the keys")
        given["negative_ids"], unnamed = (negatives.ids, None) if negatives.named else (None, negatives.ids)
    return resolve_ids(
        **given, sizes=sizes, in_batch=in_batch, unnamed=unnamed,
        full=lambda size, value: torch.full((size,), value, dtype=torch.int64, device=q.device),
        arange=lambda size: torch.arange(size, device=q.device),
    )  # fmt: skip


def biases_of(rows: int, q: Tensor, batch: Tensor | None, bias: object, batch_bias: object) -> dict[str, Tensor]:
    """The biases of the `rows` negatives and of the batch columns: both, or none at all. A side without one has
    zeros."""
    if bias is None and batch_bias is None:
        return {}
    if batch is None and batch_bias is not None:
        raise ValueError("batch_bias is given but batch is None")
    given = {}
    columns = None if batch is None else batch.shape[0]
    for name, value, size in (("bias", bias, rows), ("batch_bias", batch_bias, columns)):
        if size is None:
            continue
        value = q.new_zeros(size, dtype=torch.float32) if value is None else float_tensor(name, value, q)
        if tuple(value.shape) != (size,):
            raise ValueError(f"{name} has shape {list(value.shape)}; it must be [{size}]")
        given[name] = value
    return given


def margin_of(margin: object) -> tuple[int, float]:
    """fnce_problem.margin_mask and the margin."""
    return (0, 0.0) if margin is None else (1, number("margin", margin))
