"""flashnce.reference on columns beyond the queue, equations (13) to (16), against rows written out one by one."""

from __future__ import annotations

import math

import pytest
import torch
from support import batch
from torch.nn.functional import cross_entropy, normalize

from flashnce import NO_COLUMN, reference

N, K, C, D, TAU = 7, 11, 9, 5, 0.3


def row_by_row(q, k, negatives, x_c, *, ids, negative_ids, batch_ids, bias, batch_bias, margin, form):
    """The mean loss: for each row the list of its columns, then cross entropy with the positive as target."""
    losses, counts = [], []
    for i, (query, key) in enumerate(zip(normalize(q, dim=1), normalize(k, dim=1))):
        logits = []
        for rows, of_columns, beta in ((negatives, negative_ids, bias), (normalize(x_c, dim=1), batch_ids, batch_bias)):
            for j, row in enumerate(rows):
                score = query @ row
                same = of_columns[j] == NO_COLUMN or (of_columns[j] == ids[i] and ids[i] != NO_COLUMN)
                if not (same or beta[j] == -math.inf or score > query @ key + margin):
                    logits.append(score / TAU + beta[j])
        positive = query @ key / TAU
        counts.append(len(logits))
        if not logits:
            losses.append(0 * positive)
        elif form == "info_nce":
            losses.append(cross_entropy(torch.stack([positive, *logits])[None], torch.tensor([0])))
        else:
            losses.append(torch.logsumexp(torch.stack(logits), 0) - positive)
    return torch.stack(losses).mean(), counts


def data(seed: int = 0):
    q, k, negatives = (x.detach().double() for x in batch(N, K, D, seed))
    x_c = torch.randn(C, D, generator=torch.Generator().manual_seed(seed)).double()
    return q.requires_grad_(), k.requires_grad_(), negatives, x_c.requires_grad_()


def masks(seed: int = 0) -> dict:
    own = torch.Generator().manual_seed(seed)
    ids, negative_ids, batch_ids = (torch.randint(0, 4, (size,), generator=own) for size in (N, K, C))
    ids[2] = negative_ids[3] = batch_ids[1] = batch_ids[4] = NO_COLUMN
    bias, batch_bias = (torch.randn(size, generator=own) for size in (K, C))
    bias[5] = batch_bias[2] = -math.inf
    return {
        "ids": ids, "negative_ids": negative_ids, "batch_ids": batch_ids, "bias": bias, "batch_bias": batch_bias,
        "margin": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["info_nce", "decoupled"])
@pytest.mark.parametrize("seed", [0, 1])
def test_value_counts_and_gradients_are_those_of_rows_written_out(form, seed):
    q, k, negatives, x_c = data(seed)
    given = masks(seed)
    loss, mixed, unmixed = reference.info_nce(
        q, k, negatives, batch=x_c, temperature=TAU, detach_key=False, return_scores=True, form=form, **given
    )
    expected, counts = row_by_row(q, k, negatives, x_c, form=form, **given)
    assert torch.allclose(loss, expected, rtol=1e-12)
    assert mixed["neg_count"].tolist() == unmixed["neg_count"].tolist() == counts
    assert 0 < min(counts) and max(counts) < K + C and "entropy" not in mixed
    for actual, wanted in zip(*(torch.autograd.grad(x, (q, k, x_c)) for x in (loss, expected))):
        assert torch.allclose(actual, wanted, rtol=1e-10, atol=1e-14)
        assert actual.abs().max() > 1e-3


def test_the_batch_itself_leaves_out_the_own_key_and_gives_it_both_gradients():
    q, k, _, _ = data()
    loss = reference.info_nce(q, k, batch=True, temperature=TAU)
    expected = cross_entropy(normalize(q, dim=1) @ normalize(k, dim=1).T / TAU, torch.arange(N))
    assert torch.allclose(loss, expected, rtol=1e-12)
    for actual, wanted in zip(*(torch.autograd.grad(x, (q, k)) for x in (loss, expected))):
        assert torch.allclose(actual, wanted, rtol=1e-10, atol=1e-14)


def test_a_column_that_is_left_out_has_no_influence_whatever_it_holds():
    q, k, negatives, x_c = data()
    given = masks()
    given["batch_ids"][0] = given["ids"][0]
    plain = reference.info_nce(q, k, negatives, batch=x_c, detach_key=False, reduction="none", **given)
    wanted = torch.autograd.grad(plain.sum(), (q, k, x_c))
    negatives, spoiled = negatives.clone(), x_c.detach().clone()
    negatives[3], negatives[5], spoiled[1], spoiled[2] = math.nan, math.inf, math.nan, -math.inf
    spoiled.requires_grad_()
    loss = reference.info_nce(q, k, negatives, batch=spoiled, detach_key=False, reduction="none", **given)
    assert torch.equal(loss, plain)
    for actual, expected in zip(torch.autograd.grad(loss.sum(), (q, k, spoiled)), wanted):
        assert torch.equal(actual, expected)
    # A column of some rows spoils those alone.
    spoiled = x_c.detach().clone()
    spoiled[0] = math.nan
    loss = reference.info_nce(q, k, negatives, batch=spoiled, detach_key=False, reduction="none", **given)
    own = given["ids"] == given["batch_ids"][0]
    assert 0 < own.sum() < N and torch.equal(torch.isnan(loss), ~own) and torch.equal(loss[own], plain[own])


def test_a_row_without_columns_has_neither_loss_nor_gradient():
    q, k, negatives, x_c = data()
    options = {"ids": torch.zeros(N, dtype=torch.int64), "negative_ids": torch.full((K,), NO_COLUMN)}
    for form in ("info_nce", "decoupled"):
        loss, mixed, _ = reference.info_nce(
            q, k, negatives, batch=x_c, batch_ids=torch.zeros(C, dtype=torch.int64), form=form, detach_key=False,
            return_scores=True, reduction="none", **options,
        )  # fmt: skip
        assert torch.count_nonzero(loss) == 0
        assert all(torch.count_nonzero(x) == 0 for x in torch.autograd.grad(loss.sum(), (q, k, x_c)))
        empty = {"neg_count": 0, "neg_mean": 0, "neg_min": math.inf, "neg_max": -math.inf, "entropy": 0}
        for name, value in empty.items():
            assert (mixed[name] == value).all(), name
        assert torch.isnan(mixed["neg_variance"]).all() and (mixed["neg_log_mean_exp"] == -math.inf).all()


def test_a_mixed_column_is_left_out_by_the_id_of_either_row():
    q, k, negatives, _ = data()
    permutation = torch.arange(K).roll(1)
    negative_ids = torch.arange(K)
    options = {"lambda_neg": torch.tensor(0.3), "permutation": permutation, "return_scores": True, "detach_key": True}
    ids = torch.full((N,), 4)
    for columns, mixed_count in (("mixed", K - 2), ("union", 2 * K - 3)):
        _, mixed, unmixed = reference.info_nce(
            q, k, negatives, ids=ids, negative_ids=negative_ids, columns=columns, **options
        )
        assert (mixed["neg_count"] == mixed_count).all() and (unmixed["neg_count"] == K - 1).all()


def test_no_rows_have_the_losses_of_pytorch():
    q, k, negatives = torch.empty(0, D, requires_grad=True), torch.empty(0, D), torch.randn(K, D)
    assert reference.info_nce(q, k, negatives, reduction="sum") == 0
    assert reference.info_nce(q, k, negatives, reduction="none").shape == (0,)
    assert torch.isnan(reference.info_nce(q, k, negatives))
    assert torch.isnan(cross_entropy(torch.empty(0, K), torch.empty(0, dtype=torch.int64)))
