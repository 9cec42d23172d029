"""The score statistics of equation (9) that come with the loss on request."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ._ops import FLOAT_SCORES, INT_SCORES, LOSS_SCORES


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


def unpack_scores(floats: Tensor, integers: Tensor, two: bool, seed: Tensor | int | None, offset: int) -> Scores:
    """Scores out of the packed rows that the operator writes; `two` where the unmixed ones follow the mixed."""
    f, i = floats.unbind(0), integers.unbind(0)
    mixed = dict(zip(FLOAT_SCORES + LOSS_SCORES, f)) | dict(zip(INT_SCORES, i))
    if two:
        unmixed = dict(zip(FLOAT_SCORES, f[len(FLOAT_SCORES) + len(LOSS_SCORES) :]))
        unmixed |= dict(zip(INT_SCORES, i[len(INT_SCORES) :]))
    else:
        unmixed = dict(mixed)
    unmixed["entropy"] = unmixed["dq_norm"] = None
    return Scores(ScoreStatistics(**mixed), ScoreStatistics(**unmixed), seed, offset)
