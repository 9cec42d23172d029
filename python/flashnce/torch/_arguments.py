"""The arguments that info_nce and scores share, checked: each error is one sentence that names the argument.

Everything here can be traced by torch.compile: no data is read.
"""

from __future__ import annotations

import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from .._options import Mix, anything_drawn, check_temperature, integer, lambda_granularity, number
from ._call import ELEMENT_TYPES, dense, same_device
from ._queue import Queue
from ._sharded_queue import ShardedQueue

# Spreads the rank over the bits of a seed; odd, so that no two ranks meet.
_RANK_FACTOR = 0x9E3779B97F4A7C15
_SEED_MASK = 2**63 - 1
# fnce_problem.row_offset ends here.
MOST_ROW_OFFSET = 2**32
# Detaching is no way out in a batch: the loss would run and train another model.
_NEGATIVES_GRADIENT = (
    "negatives requires a gradient, which only batch columns have: pass them as batch=, raw features that are then "
    "normalised like q. batch=True takes the keys of this call and leaves each row's own key out; with a batch that "
    "contains it, ids= and batch_ids= do"
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
    same_device("k", k, q)
    return q, k


def of_one_type(q: Tensor, k: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The library takes one type for all features. float32 holds the values of any exactly."""
    if q.dtype == k.dtype and (batch is None or batch.dtype == q.dtype):
        return q, k, batch
    return q.float(), k.float(), None if batch is None else batch.float()


def beside(name: str, value: Tensor, q: Tensor) -> None:
    same_device(name, value, q)
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient; the loss has none for it: pass {name}.detach()")


def float_tensor(name: str, value: object, q: Tensor) -> Tensor:
    value = dense(name, value)
    if value.dtype != torch.float32:
        raise TypeError(f"{name} has type {value.dtype}; it must be float32")
    beside(name, value, q)
    return value


def negative_rows(value: object, q: Tensor, batch: object) -> Tensor:
    """The negatives, or this rank's part of them; none, where a batch is given in their place."""
    if value is None:
        if batch is None:
            raise ValueError("negatives is None and batch is None; one of them must give columns")
        return q.new_empty((0, q.shape[1]))
    negatives = value.queue if isinstance(value, (Queue, ShardedQueue)) else value
    if not isinstance(negatives, Tensor):
        raise TypeError(f"negatives is a {type(value).__name__}; it must be a Queue, a Tensor or None")
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
        check_temperature(value)
        return None, float(value)
    value = dense("temperature", value)
    if value.numel() != 1:
        raise ValueError(f"temperature has shape {list(value.shape)}; it must have one element")
    if not value.is_floating_point():
        raise TypeError(f"temperature has type {value.dtype}; it must be a floating type")
    same_device("temperature", value, q)
    # The gradient comes back through the conversion, in the type that the temperature has.
    return value.float(), 1.0


def temperature_of(name: str, scale: object, dtype: torch.dtype = torch.float32) -> float | Tensor:
    """The temperature 1 / scale, of a tensor in `dtype`: in 16 bits it would be another one."""
    if isinstance(scale, Tensor):
        return 1 / scale.to(dtype)
    if not number(name, scale) > 0:
        raise ValueError(f"{name} is {scale}; it must be above 0")
    return 1 / scale


class Mixing(NamedTuple):
    """How a call mixes its features, resolved."""

    per_pos: str
    lambda_pos: Tensor | None
    per_neg: str
    lambda_neg: Tensor | None
    permutation: Tensor | None

    @property
    def mixes(self) -> bool:
        return self.per_pos != "none" or self.per_neg != "none"

    @property
    def draws(self) -> bool:
        """Whether anything is drawn."""
        return anything_drawn(*self)


def mixing_of(
    positive: Mix | None, negative: Mix | None, lambda_pos: object, lambda_neg: object, permutation: object, size: int,
    q: Tensor,
) -> Mixing:  # fmt: skip
    """The mixing of q and k, and of `size` negatives."""
    per_neg, lambda_neg = _lambda("lambda_neg", lambda_neg, negative, size, q)
    return Mixing(
        *_lambda("lambda_pos", lambda_pos, positive, q.shape[0], q),
        per_neg,
        lambda_neg,
        permutation_or_none(permutation, size, per_neg != "none", q),
    )


def _lambda(name: str, value: object, mix: Mix | None, rows: int, q: Tensor) -> tuple[str, Tensor | None]:
    """The granularity of a mixing and its explicit lambda."""
    if value is None:
        return ("none" if mix is None else mix.per), None
    if not isinstance(value, (Tensor, bool)) and isinstance(value, numbers.Real):
        # Not torch.full, by which torch.compile makes a graph for each number.
        value = q.new_ones(1, dtype=torch.float32) * value
    value = float_tensor(name, value, q)
    return lambda_granularity(name, tuple(value.shape), rows, q.shape[1], None if mix is None else mix.per), value


def permutation_or_none(value: object, rows: int, negatives_mixed: bool, q: Tensor) -> Tensor | None:
    if value is None:
        return None
    value = dense("permutation", value)
    if value.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"permutation has type {value.dtype}; it must be int64 or int32")
    if not negatives_mixed:
        raise ValueError("permutation is given but the negatives are not mixed; give negative= or lambda_neg= too")
    if tuple(value.shape) != (rows,):
        raise ValueError(f"permutation has shape {list(value.shape)}; it must be [{rows}]")
    beside("permutation", value, q)
    # Clamped first: an index of 2^32 must not become the 0 that is missing.
    return value if value.dtype == torch.int32 else value.clamp(-1, rows).int()


def own_rank() -> int:
    """Of this process in torch.distributed; 0 without."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def seed_of(
    seed: object, generator: object, rng: str, q: Tensor, draws: bool
) -> tuple[Tensor | None, int]:
    """The seed as a tensor or, where that is None, as an int64: 0 where nothing is drawn."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a {type(generator).__name__}; it must be a torch.Generator or None")
    if generator is not None and torch.compiler.is_compiling():
        raise ValueError(
            "generator is given, which torch.compile cannot trace; pass seed=torch.randint(2**63 - 1, (1,), "
            "generator=generator, device=q.device), drawn outside of what is compiled"
        )
    if not draws:
        return None, 0
    if seed is None:
        drawn = torch.randint(0, _SEED_MASK, (1,), dtype=torch.int64, device=q.device, generator=generator)
        rank = own_rank() if rng == "rank" else 0
        return (drawn ^ ((rank * _RANK_FACTOR) & _SEED_MASK) if rank else drawn), 0
    if isinstance(seed, Tensor):
        seed = dense("seed", seed)
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise ValueError(f"seed is {seed.dtype} {list(seed.shape)}; it must be an int or int64 of one element")
        beside("seed", seed, q)
        return seed, 0
    if isinstance(seed, bool) or not isinstance(seed, (int, numbers.Integral)):
        raise TypeError(f"seed is a {type(seed).__name__}; it must be an int, an int64 Tensor of one element or None")
    seed = integer("seed", seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must be in 0 .. 2^64-1")
    return None, seed if seed < 2**63 else seed - 2**64


def offset_of(value: object) -> int:
    offset = integer("offset", value)
    if not 0 <= offset < 2**63:
        raise ValueError(f"offset is {offset}; it must be in 0 .. 2^63-1, a multiple of 4")
    return offset


def row_offset_of(value: object) -> int:
    offset = integer("row_offset", value)
    if not 0 <= offset <= MOST_ROW_OFFSET:
        raise ValueError(f"row_offset is {offset}; it must be in 0 .. {MOST_ROW_OFFSET}")
    return offset


def weight_or_none(value: object, q: Tensor) -> Tensor | None:
    if value is None:
        return None
    value = float_tensor("weight", value, q)
    if tuple(value.shape) != (q.shape[0],):
        raise ValueError(f"weight has shape {list(value.shape)}; it must be [{q.shape[0]}]")
    return value


def check_shared(shared: object, negatives: object, permutation: object, group: object) -> None:
    """What a call whose columns are spread over processes, as `shared` says, cannot do."""
    if shared is None:
        if group is not None:
            raise ValueError("group is given and gather is False; it says whose batch columns gather=True takes")
        return
    if permutation is not None:
        raise ValueError("permutation is given; with a ShardedQueue it must be None: a shard can only draw its own")
    if isinstance(negatives, ShardedQueue):
        if group is not None:
            raise ValueError("group is given; with a ShardedQueue it must be None: the group is the queue's")
    elif negatives is not None:
        kind = type(negatives).__name__
        raise ValueError(f"gather is True and negatives is a {kind}; it must be a ShardedQueue or None")
