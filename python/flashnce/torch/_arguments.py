"""The arguments that info_nce and scores share, checked: each error is one sentence that names the argument.

Everything here can be traced by torch.compile: no data is read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._options import number
from ._call import ELEMENT_TYPES, dense
from ._queue import Queue
from ._sharded_queue import ShardedQueue

# Detaching is no way out in a batch: the loss would run and train another model.
_NEGATIVES_GRADIENT = (
    "negatives requires a gradient, which the loss does not compute. Negatives of a Queue, or of an encoder under "
    "torch.no_grad(), require none. An in-batch loss needs that gradient, and k's own row must not be among the "
    "negatives, where it would count twice: use torch.nn.functional.cross_entropy(q @ k.T / temperature, "
    "torch.arange(len(q)))"
)


def features(name: str, value: object) -> Tensor:
    value = dense(name, value)
    if value.dim() != 2:
        raise ValueError(f"{name} has shape {list(value.shape)}; it must be [N, D]")
    if value.dtype in ELEMENT_TYPES:
        return value
    hint = "; flashnce.reference.info_nce computes in float64" if value.dtype == torch.float64 else ""
    raise TypeError(f"{name} has type {value.dtype}; it must be float32, float16 or bfloat16{hint}")


def pair(q: object, k: object) -> tuple[Tensor, Tensor]:
    q, k = features("q", q), features("k", k)
    if k.shape != q.shape:
        raise ValueError(f"k has shape {list(k.shape)}; it must be that of q, {list(q.shape)}")
    if k.device != q.device:
        raise ValueError(f"k is on {k.device}; it must be on the device of q, {q.device}")
    # The library takes one type for both. float32 holds the values of either exactly.
    return (q, k) if q.dtype == k.dtype else (q.float(), k.float())


def beside(name: str, value: Tensor, q: Tensor) -> None:
    if value.device != q.device:
        raise ValueError(f"{name} is on {value.device}; it must be on the device of q, {q.device}")
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient; the loss has none for it: pass {name}.detach()")


def float_tensor(name: str, value: object, q: Tensor) -> Tensor:
    value = dense(name, value)
    if value.dtype != torch.float32:
        raise TypeError(f"{name} has type {value.dtype}; it must be float32")
    beside(name, value, q)
    return value


def negative_rows(value: object, q: Tensor) -> Tensor:
    """The negatives, or this rank's part of them."""
    negatives = value.queue if isinstance(value, (Queue, ShardedQueue)) else value
    if not isinstance(negatives, Tensor):
        raise TypeError(f"negatives is a {type(value).__name__}; it must be a Queue or a Tensor")
    negatives = dense("negatives", negatives)
    if negatives.dim() != 2 or negatives.shape[1] != q.shape[1]:
        raise ValueError(
            f"negatives has shape {list(negatives.shape)}; it must be [K, {q.shape[1]}], as q {list(q.shape)}"
        )
    if negatives.dtype not in ELEMENT_TYPES:
        hint = "; flashnce.reference.info_nce computes in float64" if negatives.dtype == torch.float64 else ""
        raise TypeError(f"negatives has type {negatives.dtype}; it must be float32, float16 or bfloat16{hint}")
    beside("negatives", negatives.detach(), q)
    if negatives.requires_grad and torch.is_grad_enabled():
        raise ValueError(_NEGATIVES_GRADIENT)
    return negatives


def temperature_or_number(value: object, q: Tensor) -> tuple[Tensor | None, float]:
    """The temperature as a tensor or, where that is None, as a number."""
    if not isinstance(value, Tensor):
        value = number("temperature", value)
        # A number that changes from call to call must not become a part of the graph.
        if torch.compiler.is_compiling():
            return q.new_ones(1, dtype=torch.float32) * value, 1.0
        return None, float(value)
    value = dense("temperature", value)
    if value.numel() != 1:
        raise ValueError(f"temperature has shape {list(value.shape)}; it must have one element")
    if not value.is_floating_point():
        raise TypeError(f"temperature has type {value.dtype}; it must be a floating type")
    if value.device != q.device:
        raise ValueError(f"temperature is on {value.device}; it must be on the device of q, {q.device}")
    # The gradient comes back through the conversion, in the type that the temperature has.
    return value.float(), 1.0
