"""flashnce.torch.info_nce against flashnce.reference in float64 and against the loss as MoCo codes write it."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from support import assert_close, batch, bound, drawn, generator, gradients, largest_score, reference_of
from torch.nn.functional import cross_entropy, normalize

from flashnce.torch import InfoNCE, Mix, Queue, info_nce

PER = ("call", "row", "dimension", "element")
MIXES = [
    (None, None),
    (Mix(2.0, shift=1.0), None),
    (None, Mix(1.6)),
    *((Mix(2.0, shift=1.0, per=per), Mix(1.6, per=per)) for per in PER),
    (Mix(0.7, shift=1.0, per="row", renormalize=True), Mix(3.0, per="element", renormalize=True)),
    (Mix(2.0, per="dimension", renormalize=True), Mix(1.6, per="call", renormalize=True)),
]


def check_against_reference(q, k, negatives, positive, negative, *, upstream=None, temperature=0.2, seed=5, **options):
    k = k.clone().requires_grad_()
    tau, tau_reference = (torch.tensor(temperature, requires_grad=True) for _ in range(2))
    options = {"detach_key": False, **options}
    loss = info_nce(q, k, negatives, temperature=tau, positive=positive, negative=negative, seed=seed, **options)
    expected, mixed, _ = reference_of(
        q, k, negatives, positive, negative, temperature=tau_reference, seed=seed, return_scores=True, **options
    )
    assert loss.dtype == torch.float32
    tolerance = bound(temperature, largest_score(mixed))
    assert_close(loss, expected, tolerance, "loss")
    actual = gradients(loss, q, k, tau, upstream=upstream)
    wanted = gradients(expected, q, k, tau_reference, upstream=None if upstream is None else upstream.double())
    for name, a, b in zip(("dq", "dk", "dtemperature"), actual, wanted):
        assert_close(a, b, tolerance, name)
    assert wanted[0].abs().max() > 1e-6


@pytest.mark.parametrize("anchor", ["mixed", "query"])
@pytest.mark.parametrize("columns", [None, "union"])
@pytest.mark.parametrize("mixes", MIXES)
def test_every_mixing_anchor_and_column_set(mixes, columns, anchor):
    if columns == "union" and mixes[1] is None:
        columns = "queue"
    check_against_reference(*batch(), *mixes, columns=columns, anchor=anchor)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_and_weights(reduction, weighted):
    q, k, negatives = batch()
    own = generator(1)
    weight = torch.rand(len(q), generator=own) if weighted else None
    upstream = torch.randn(len(q), generator=own) if reduction == "none" else torch.tensor(-1.7)
    mixes = Mix(2.0, shift=1.0), Mix(1.6)
    check_against_reference(q, k, negatives, *mixes, reduction=reduction, weight=weight, upstream=upstream)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 17, 13), (5, 1, 3), (33, 257, 100), (3, 40, 300)])
def test_odd_sizes(sizes):
    mixes = Mix(2.0, shift=1.0, per="row"), Mix(1.6, per="row")
    # Normalising one feature leaves a sign, whose gradient is zero.
    check_against_reference(*batch(*sizes), *mixes, temperature=0.5, normalize=sizes[2] > 1)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0, 5.0])
def test_temperatures(temperature):
    check_against_reference(*batch(), Mix(2.0, shift=1.0), Mix(1.6), temperature=temperature)


def test_without_normalisation():
    q, k, negatives = batch()
    with torch.no_grad():
        q *= 0.3
        k *= 0.2
    check_against_reference(q, k, negatives, Mix(2.0, shift=1.0), Mix(1.6), normalize=False)


def test_no_negatives_is_no_loss():
    q, k, _ = batch()
    loss = info_nce(q, k, torch.empty(0, q.shape[1]))
    loss.backward()
    assert loss.item() == 0 and torch.count_nonzero(q.grad) == 0


def test_the_loss_of_a_moco_trainer():
    q, k, negatives = batch(32, 128, 16)
    queue = Queue(128, 16)
    queue.queue.copy_(negatives)
    loss = InfoNCE(temperature=0.2)(q, k, queue)

    rows, keys = normalize(q, dim=1), normalize(k, dim=1)
    l_pos = torch.einsum("nc,nc->n", [rows, keys]).unsqueeze(-1)
    l_neg = torch.einsum("nc,ck->nk", [rows, queue.queue.clone().T])
    logits = torch.cat([l_pos, l_neg], dim=1) / 0.2
    expected = cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
    assert_close(loss, expected, bound(0.2))
    assert_close(*gradients(loss, q), *gradients(expected, q), bound(0.2))


def test_weight_zero_is_exactly_zero_whatever_the_row_holds():
    q, k, negatives = batch()
    weight = torch.ones(len(q))
    weight[3] = weight[7] = 0.0
    with torch.no_grad():
        q[3, 2], q[7] = math.nan, math.inf
    loss = info_nce(q, k, negatives, weight=weight, reduction="none")
    (dq,) = gradients(loss.sum(), q)
    assert loss[3] == 0 and loss[7] == 0 and torch.count_nonzero(dq[[3, 7]]) == 0
    assert torch.isfinite(loss).all() and torch.isfinite(dq).all() and (loss[:3] > 0).all()


def test_non_finite_rows_stay_in_their_rows():
    q, k, negatives = batch()
    with torch.no_grad():
        q[5, 0] = math.nan
    loss = info_nce(q, k, negatives, reduction="none")
    others = torch.arange(len(q)) != 5
    assert torch.isnan(loss[5]) and torch.isfinite(loss[others]).all()
    (dq,) = gradients(loss[others].sum(), q)
    assert torch.isfinite(dq[others]).all()


@pytest.mark.parametrize("side", ["lambda_pos", "lambda_neg"])
@pytest.mark.parametrize("per", PER)
def test_explicit_lambda_of_every_shape_equals_what_was_drawn(side, per):
    q, k, negatives = batch()
    mix = Mix(1.3, shift=1.0, per=per) if side == "lambda_pos" else Mix(1.3, per=per)
    mixes = (mix, None) if side == "lambda_pos" else (None, mix)
    sampled = info_nce(q, k, negatives, positive=mixes[0], negative=mixes[1], seed=9)
    given = drawn(*mixes, len(q), len(negatives), q.shape[1], 9)
    if side == "lambda_neg":
        only_lambda = info_nce(q, k, negatives, lambda_neg=given["lambda_neg"], seed=9)
        assert only_lambda.item() == sampled.item(), "an explicit lambda goes with the permutation of the seed"
    assert_close(info_nce(q, k, negatives, **given), sampled, bound(0.07, 4.0))


def test_lambda_as_a_number_or_a_scalar_tensor():
    q, k, negatives = batch()
    permutation = torch.randperm(len(negatives))
    values = [
        info_nce(q, k, negatives, lambda_pos=pos, lambda_neg=neg, permutation=permutation).item()
        for pos, neg in [(1.25, 0.5), (torch.tensor(1.25), torch.tensor([0.5])), (torch.tensor([[1.25]]), 0.5)]
    ]
    assert values[0] == values[1] == values[2] != info_nce(q, k, negatives).item()


def test_explicit_lambda_takes_renormalize_from_its_mix():
    q, k, negatives = batch()
    lambda_pos = 1 + torch.rand(len(q), 1)
    mix = Mix(2.0, per="row", renormalize=True)
    plain = info_nce(q, k, negatives, lambda_pos=lambda_pos)
    renormalized = info_nce(q, k, negatives, lambda_pos=lambda_pos, positive=mix)
    expected = reference_of(q, k, negatives, None, None, temperature=0.07)
    assert len({plain.item(), renormalized.item(), expected.item()}) == 3


def test_int32_and_int64_permutations_are_the_same():
    q, k, negatives = batch()
    permutation = torch.randperm(len(negatives))
    a = info_nce(q, k, negatives, negative=Mix(1.6), permutation=permutation, seed=1)
    assert a.item() == info_nce(q, k, negatives, negative=Mix(1.6), permutation=permutation.int(), seed=1).item()


def test_views_are_read_as_what_they_show():
    q, k, negatives = batch(8, 48, 6)
    wide, tall = torch.zeros(8, 12), torch.zeros(6, 48)
    wide[:, ::2], tall.T[:] = k, negatives
    q_view = q.detach().T.contiguous().T.requires_grad_()
    weight = torch.rand(16)
    loss = info_nce(q_view, wide[:, ::2], tall.T, weight=weight[::2], reduction="sum")
    expected = info_nce(q, k, negatives, weight=weight[::2].clone(), reduction="sum")
    assert loss.item() == expected.item()
    assert torch.equal(*gradients(loss, q_view), *gradients(expected, q))


def test_a_large_copy_of_negatives_is_not_made_without_a_word():
    """Nothing keeps such a copy: a write through .data, which no version counts, must be seen by the next call."""
    q, k, _ = batch(4, 1, 64)
    moco = normalize(torch.randn(64, 4096), dim=0)
    with pytest.warns(UserWarning, match=r"negatives has strides \(1, 4096\) and is copied, 1 MiB, .*Queue"):
        loss = info_nce(q, k, moco.T)
    queue = Queue(4096, 64)
    queue.load_state_dict({"queue": moco, "queue_ptr": torch.zeros(1, dtype=torch.int64)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert info_nce(q, k, queue).item() == loss.item()
        info_nce(q, k, moco.T[:4000])
    moco.data.mul_(-1)
    with pytest.warns(UserWarning, match="negatives"):
        assert info_nce(q, k, moco.T).item() == info_nce(q, k, moco.T.contiguous()).item() != loss.item()
