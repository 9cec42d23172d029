"""The score statistics of equation (9) as they are returned, and how they are unpacked."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._library import FLOAT_SCORES, INT_SCORES, LOSS_SCORES


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
    """float32: of the softmax over all columns; exp of it is the effective number of negatives. None in `unmixed`, and
    where columns have a bias."""
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
    """int: where in the seed's stream the draws begin; as offset=, with the seed, it gives the same draws."""


def statistics_of(float_names: tuple[str, ...], floats: Tensor, integers: Tensor) -> ScoreStatistics:
    """ScoreStatistics out of packed rows, [len(float_names), N] and [len(INT_SCORES), N]."""
    named = dict.fromkeys(LOSS_SCORES) | dict(zip(float_names, floats.unbind(0)))
    return ScoreStatistics(**named | dict(zip(INT_SCORES, integers.unbind(0))))


def unpack_scores(
    floats: Tensor, integers: Tensor, two: bool, seed: Tensor | int | None, offset: int, biased: bool
) -> Scores:
    """Scores out of the packed rows that the operator writes; `two` where the unmixed ones follow the mixed, `biased`
    where columns have a bias."""
    names, count = FLOAT_SCORES + LOSS_SCORES, len(INT_SCORES)
    mixed = statistics_of(names, floats[: len(names)], integers[:count])
    if two:
        unmixed = statistics_of(FLOAT_SCORES, floats[len(names) :], integers[count:])
    else:
        unmixed = mixed._replace(**dict.fromkeys(LOSS_SCORES))
    if biased:
        mixed = mixed._replace(entropy=None)
    return Scores(mixed, unmixed, seed, offset)
