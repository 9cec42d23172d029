"""The score statistics of equation (9): those that come with the loss on request, and scores, which has them alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _ops
from ._arguments import negative_rows, pair, temperature_or_number
from ._call import FLOAT_SCORES, INT_SCORES, LOSS_SCORES
from ._queue import Queue
from ._sharded_queue import ShardedQueue


class ScoreStatistics(NamedTuple):
    """Per row [N], of inner products before the division by the temperature; none has a gradient."""

    pos: Tensor
    """float32: score of the positive."""
    neg_count: Tensor
    """int64: number of negatives."""
    neg_mean: Tensor
    """float32: their mean."""
    neg_variance: Tensor
    """float32: their unbiased variance, as torch.var."""
    neg_min: Tensor
    """float32"""
    neg_max: Tensor
    """float32"""
    neg_log_mean_exp: Tensor
    """float32: log of the mean of exp(negative / temperature)."""
    n_greater: Tensor
    """int64: negatives above the positive: its rank."""
    n_greater_equal: Tensor
    """int64: negatives above or tied with it; (n_greater_equal == 0) is a hit of acc@1."""
    entropy: Tensor | None
    """float32: of the softmax over all columns; exp of it is the effective number of negatives. None in `unmixed`."""
    dq_norm: Tensor | None
    """float32: L2 norm of the row of q's gradient. None in `unmixed`."""


class Scores(NamedTuple):
    """What return_scores=True adds."""

    mixed: ScoreStatistics
    """Of the scores of the loss itself."""
    unmixed: ScoreStatistics
    """Of q.k and a.z_j, before q, k and the negatives are mixed; without mixing, those of `mixed`."""
    seed: Tensor | int | None
    """What was drawn from: as seed=, or in flashnce.sample_lambda, it gives the same draws. None: nothing was drawn."""
    offset: int


def _statistics(float_names: tuple[str, ...], floats: Tensor, integers: Tensor) -> ScoreStatistics:
    named = dict.fromkeys(LOSS_SCORES) | dict(zip(float_names, floats.unbind(0)))
    return ScoreStatistics(**named | dict(zip(INT_SCORES, integers.unbind(0))))


def unpack_scores(floats: Tensor, integers: Tensor, two: bool, seed: Tensor | int | None, offset: int) -> Scores:
    """Scores out of the packed rows that the operator writes; `two` where the unmixed ones follow the mixed."""
    names, count = FLOAT_SCORES + LOSS_SCORES, len(INT_SCORES)
    mixed = _statistics(names, floats[: len(names)], integers[:count])
    if two:
        unmixed = _statistics(FLOAT_SCORES, floats[len(names) :], integers[count:])
    else:
        unmixed = mixed._replace(**dict.fromkeys(LOSS_SCORES))
    return Scores(mixed, unmixed, seed, offset)


@torch.no_grad()
def scores(
    q: Tensor,
    k: Tensor,
    negatives: Queue | ShardedQueue | Tensor,
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
) -> ScoreStatistics:
    """The statistics of the scores before any feature transformation, q.k and q.z_j, equation (9), without a loss.

    What a trainer logs as "before FT", at the price of one matrix product. Differs from `unmixed` of
    info_nce(..., return_scores=True) where q is mixed and scores the negatives itself (anchor="mixed"). Nothing has a
    gradient, whatever the arguments require.

    Args:
        q, k: [N,D] queries and their keys: float32, float16 or bfloat16, computed in float32.
        negatives: a Queue, a ShardedQueue (then the call is collective) or [K,D] of those types, used as given (never
            normalised).
        temperature: tau > 0 of neg_log_mean_exp, a number or a float32 tensor of one element.
        normalize: whether q and k are divided by their norms, equation (1).

    Returns:
        ScoreStatistics, whose `entropy` and `dq_norm`, which belong to a loss, are None.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: anything else that is wrong, in one sentence that names the argument.
    """
    if isinstance(negatives, ShardedQueue):
        from ._loss import info_nce

        # The loss in steps gathers them from all ranks, and without mixing they are the same.
        options = {"temperature": temperature, "normalize": normalize, "return_scores": True}
        return info_nce(q, k, negatives, **options)[1].unmixed
    q, k = pair(q, k)
    negatives = negative_rows(negatives, q)
    temperature, temperature_value = temperature_or_number(temperature, q)
    packed = _ops.scores(q, k, negatives, temperature, temperature_value, bool(normalize))
    return _statistics(FLOAT_SCORES, *packed)
