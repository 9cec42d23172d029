"""Score statistics, equation (9)."""

from __future__ import annotations

import math

import pytest
import torch
from support import assert_close, batch, bound, gradients, largest_score, reference_of

from flashnce.torch import InfoNCE, Mix, info_nce

COUNTS = ("neg_count", "n_greater", "n_greater_equal")


def assert_statistics(actual, expected: dict, tolerance: float) -> None:
    for name, value in expected.items():
        field = getattr(actual, name)
        if field is None:
            assert name in ("entropy", "dq_norm")
        elif name in COUNTS:
            assert field.dtype == torch.int64 and torch.equal(field, value), name
        else:
            assert field.dtype == torch.float32 and not field.requires_grad
            assert_close(field, value, tolerance, name)


@pytest.mark.parametrize("columns", [None, "union"])
@pytest.mark.parametrize("per", ["call", "row", "dimension", "element"])
def test_mixed_and_unmixed_scores(per, columns):
    q, k, negatives = batch()
    mixes = {"positive": Mix(2.0, shift=1.0, per=per), "negative": Mix(1.6, per=per)}
    options = {"temperature": 0.2, "columns": columns}
    loss, scores = info_nce(q, k, negatives, seed=4, return_scores=True, **mixes, **options)
    expected, mixed, unmixed = reference_of(q, k, negatives, *mixes.values(), seed=4, return_scores=True, **options)
    tolerance = bound(0.2, largest_score(mixed))
    assert_close(loss, expected, tolerance)
    assert_statistics(scores.mixed, mixed, tolerance)
    assert_statistics(scores.unmixed, unmixed, tolerance)
    assert scores.unmixed.entropy is None and scores.unmixed.dq_norm is None
    assert (scores.seed, scores.offset) == (4, 0)
    assert loss.item() == info_nce(q, k, negatives, seed=4, **mixes, **options).item()


def test_without_mixing_both_are_the_same():
    q, k, negatives = batch()
    _, scores = info_nce(q, k, negatives, return_scores=True)
    assert scores.seed is None
    for a, b in zip(scores.mixed[:-2], scores.unmixed[:-2]):
        assert torch.equal(a, b)


def test_dq_norm_is_the_norm_of_the_gradient_also_without_one():
    q, k, negatives = batch()
    loss, scores = info_nce(q, k, negatives, return_scores=True)
    assert_close(scores.mixed.dq_norm, gradients(loss, q)[0].norm(dim=1), bound(0.07))
    _, without = info_nce(q.detach(), k, negatives, return_scores=True)
    assert torch.equal(without.mixed.dq_norm, scores.mixed.dq_norm)


def test_a_collapsed_encoder_scores_no_hit():
    row = torch.randn(1, 24)
    _, scores = info_nce(row.expand(6, 24), row.expand(6, 24), (row / row.norm()).expand(50, 24), return_scores=True)
    assert (scores.mixed.n_greater == 0).all() and (scores.mixed.n_greater_equal == 50).all()


def test_conventions_without_columns_and_with_one():
    q, k, negatives = batch()
    _, none = info_nce(q, k, negatives[:0], return_scores=True)
    assert (none.mixed.neg_count == 0).all() and (none.mixed.neg_mean == 0).all() and (none.mixed.entropy == 0).all()
    assert (none.mixed.neg_min == math.inf).all() and (none.mixed.neg_max == -math.inf).all()
    assert (none.mixed.neg_log_mean_exp == -math.inf).all()
    _, one = info_nce(q, k, negatives[:1], return_scores=True)
    assert torch.isnan(one.mixed.neg_variance).all() and torch.equal(one.mixed.neg_min, one.mixed.neg_max)


def test_scores_report_the_seed_that_draws_the_same_again():
    q, k, negatives = batch()
    criterion = InfoNCE(0.2, "ft-elementwise")
    loss, scores = criterion(q, k, negatives, return_scores=True, offset=8)
    assert scores.seed.dtype == torch.int64 and scores.seed.shape == (1,) and scores.offset == 8
    again = criterion(q, k, negatives, seed=scores.seed, offset=scores.offset)
    assert loss.item() == again.item() == criterion(q, k, negatives, seed=int(scores.seed), offset=8).item()
    given = {"positive": criterion.positive, "negative": criterion.negative, "seed": int(scores.seed), "offset": 8}
    assert_close(loss, reference_of(q, k, negatives, temperature=0.2, **given), bound(0.2, 8.0))
