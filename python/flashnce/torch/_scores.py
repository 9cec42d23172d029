"""scores: the statistics of equation (9) without a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import FLOAT_SCORES
from .._options import flag
from . import _ops
from ._arguments import negative_rows, of_one_type, pair, temperature_or_number
from ._call import Inputs, Numbers
from ._columns import batch_or_none, biases_of, ids_of, margin_of
from ._loss import info_nce
from ._queue import Queue
from ._sharded_queue import ShardedQueue
from ._statistics import ScoreStatistics, statistics_of


@torch.no_grad()
def scores(
    q: Tensor,
    k: Tensor,
    negatives: Queue | ShardedQueue | Tensor | None = None,
    *,
    batch: Tensor | bool | None = None,
    ids: Tensor | None = None,
    negative_ids: Tensor | None = None,
    batch_ids: Tensor | None = None,
    bias: Tensor | None = None,
    batch_bias: Tensor | None = None,
    margin: float | None = None,
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
            normalised), or None.
        batch, ids, negative_ids, batch_ids, bias, batch_bias, margin: columns beyond the queue, and which of them
            count, as in info_nce.
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
        return info_nce(
            q, k, negatives, temperature=temperature, normalize=normalize, return_scores=True, batch=batch, ids=ids,
            negative_ids=negative_ids, batch_ids=batch_ids, bias=bias, batch_bias=batch_bias, margin=margin,
        )[1].unmixed  # fmt: skip
    flag("normalize", normalize)
    q, k = pair(q, k)
    rows, in_batch = negative_rows(negatives, q, batch), batch is True
    q, k, batch = of_one_type(q, k, batch_or_none(batch, k, q))
    temperature, temperature_value = temperature_or_number(temperature, q)
    margin_mask, margin = margin_of(margin)
    inputs = Inputs(
        q, k, rows, temperature=temperature, batch=batch,
        **ids_of(negatives, len(rows), q, batch, in_batch, ids, negative_ids, batch_ids),
        **biases_of(len(rows), q, batch, bias, batch_bias),
    )  # fmt: skip
    structure = _ops.PLAIN._replace(normalize=int(normalize), margin_mask=margin_mask)
    numbers = Numbers(temperature_value, 1.0, 0.0, 1.0, 0.0, margin)
    return statistics_of(FLOAT_SCORES, *_ops.scores(*inputs, list(structure), list(map(float, numbers))))
