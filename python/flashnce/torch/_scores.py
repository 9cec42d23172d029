"""scores: the statistics of equation (9) without a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from .._options import flag
from . import _ops
from ._arguments import negative_rows, pair, temperature_or_number
from ._call import FLOAT_SCORES
from ._loss import info_nce
from ._queue import Queue
from ._sharded_queue import ShardedQueue
from ._statistics import ScoreStatistics, statistics_of


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
        temperature: tau > 0 of neg_log_mean_exp, a number or a tensor of one element and any floating type.
        normalize: whether q and k are divided by their norms, equation (1).

    Returns:
        ScoreStatistics, whose `entropy` and `dq_norm`, which belong to a loss, are None.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: anything else that is wrong, in one sentence that names the argument.
    """
    if isinstance(negatives, ShardedQueue):
        # The loss in steps gathers them from all ranks, and without mixing they are the same.
        options = {"temperature": temperature, "normalize": normalize, "return_scores": True}
        return info_nce(q, k, negatives, **options)[1].unmixed
    flag("normalize", normalize)
    q, k = pair(q, k)
    negatives = negative_rows(negatives, q)
    temperature, temperature_value = temperature_or_number(temperature, q)
    packed = _ops.scores(q, k, negatives, temperature, temperature_value, bool(normalize))
    return statistics_of(FLOAT_SCORES, *packed)
