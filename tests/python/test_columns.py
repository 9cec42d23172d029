"""Columns beyond the queue, equations (13) to (16), against flashnce.reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from columns_cases import OPTIONS, TAU, C, D, K, N, biases_of, data, ids_of
from support import assert_close, bound, generator, gradients, largest_score, typed_bound
from torch.nn.functional import cross_entropy, normalize

import flashnce
from flashnce import reference
from flashnce.torch import InfoNCE, Mix, Queue, _call, clip_loss, info_nce, scores

# What rounding a number to the type moves it by, relatively, in the mean.
ROUNDING = {torch.float16: 2.0**-12, torch.bfloat16: 2.0**-9}


def check(q, k, negatives, x_c, *, upstream=None, temperature=TAU, drawn=None, mixing=None, **options):
    tau, full_tau = (torch.tensor(temperature, requires_grad=True) for _ in range(2))
    full = [x.detach().double().requires_grad_() for x in (q, k, x_c)]
    options = {"detach_key": False, "return_scores": True, **options}
    loss, found = info_nce(q, k, negatives, batch=x_c, temperature=tau, **options, **(mixing or {}))
    options.pop("seed", None)
    expected, mixed, unmixed = reference.info_nce(
        *full[:2], negatives, batch=full[2], temperature=full_tau, **options, **(drawn or {})
    )
    # Normalised batch columns are rounded to the type of the negatives, or of q where there are none.
    queue = q.dtype if negatives is None else negatives.dtype
    rounding = ROUNDING.get(queue, 0.0) * (1 + largest_score(mixed) / temperature)
    tolerance = max(typed_bound(queue, temperature, largest_score(mixed)), rounding)
    half = 0.0 if q.dtype == torch.float32 else torch.finfo(q.dtype).eps / 2
    assert_close(loss, expected, tolerance, "loss")
    wanted = gradients(expected, *full, full_tau, upstream=None if upstream is None else upstream.double())
    for name, a, b in zip(("dq", "dk", "dx_c", "dtau"), gradients(loss, q, k, x_c, tau, upstream=upstream), wanted):
        assert a.dtype == (q.dtype if name != "dtau" else torch.float32)
        assert_close(a, b, tolerance + half, name)
        assert b.abs().max() > 1e-6
    for statistics, of_reference in ((found.mixed, mixed), (found.unmixed, unmixed)):
        for name, value in of_reference.items():
            if getattr(statistics, name) is not None:
                actual = getattr(statistics, name)
                assert torch.equal(torch.isfinite(actual), torch.isfinite(value)), name
                finite = torch.isfinite(value)
                assert_close(actual[finite], value[finite], tolerance, name)
    assert (found.mixed.entropy is None) == ("entropy" not in mixed)


@pytest.mark.parametrize("form", ["info_nce", "decoupled"])
@pytest.mark.parametrize("queue", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_value_gradients_and_statistics(name, queue, form):
    q, k, negatives, x_c = data()
    options = dict(OPTIONS[name])
    if not queue:
        negatives = None
        options.pop("negative_ids", None), options.pop("bias", None)
    check(q, k, negatives, x_c, form=form, **options)


@pytest.mark.parametrize("per", ["call", "row", "dimension", "element"])
@pytest.mark.parametrize("columns", ["mixed", "union"])
def test_beside_mixed_negatives(columns, per):
    q, k, negatives, x_c = data()
    mixes = {"positive": Mix(2.0, shift=1.0, per=per), "negative": Mix(1.6, per=per)}
    drawn = {
        "lambda_pos": torch.from_numpy(flashnce.sample_lambda("positive", mixes["positive"], N, D, seed=7)),
        "lambda_neg": torch.from_numpy(flashnce.sample_lambda("negative", mixes["negative"], K, D, seed=7)),
        "permutation": torch.from_numpy(flashnce.permutation(K, seed=7)).long(),
    }
    for anchor in ("mixed", "query"):
        options = {**OPTIONS["everything"], "columns": columns, "anchor": anchor, "seed": 7}
        check(q, k, negatives, x_c, drawn=drawn, mixing=mixes, **options)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_upstream_gradient_of_every_row_reaches_the_columns(reduction):
    q, k, negatives, x_c = data()
    weight = torch.rand(N, generator=generator(1))
    weight[4] = 0.0
    upstream = torch.randn(N, generator=generator(2)) if reduction == "none" else torch.tensor(-1.7)
    options = {**OPTIONS["everything"], "weight": weight, "reduction": reduction, "upstream": upstream}
    q.data[4] = math.nan
    # Statistics of the row of weight 0 are its own affair.
    tau = torch.tensor(TAU, requires_grad=True)
    options.pop("upstream")
    loss = info_nce(q, k, negatives, batch=x_c, temperature=tau, detach_key=False, **options)
    full = [x.detach().double().requires_grad_() for x in (q, k, x_c)]
    expected = reference.info_nce(*full[:2], negatives, batch=full[2], temperature=TAU, detach_key=False, **options)
    assert_close(loss, expected, bound(TAU), "loss")
    wanted = gradients(expected, *full, upstream=upstream.double())
    for name, a, b in zip(("dq", "dk", "dx_c"), gradients(loss, q, k, x_c, upstream=upstream), wanted):
        assert_close(a, b, bound(TAU), name)


@pytest.mark.parametrize("sizes", [(1, 0, 1, 1), (1, 3, 17, 13), (5, 1, 3, 40), (33, 0, 257, 100), (3, 40, 1, 300)])
def test_odd_sizes(sizes):
    q, k, negatives, x_c = data(*sizes)
    loss = info_nce(q, k, negatives, batch=x_c, temperature=0.5, normalize=sizes[3] > 1, detach_key=False)
    full = [x.detach().double().requires_grad_() for x in (q, k, x_c)]
    expected = reference.info_nce(
        *full[:2], negatives, batch=full[2], temperature=0.5, normalize=sizes[3] > 1, detach_key=False
    )
    assert_close(loss, expected, bound(0.5, 4.0), "loss")
    for a, b in zip(gradients(loss, q, k, x_c), gradients(expected, *full)):
        assert_close(a, b, bound(0.5, 40.0))


@pytest.mark.parametrize("queue", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("features", [torch.float16, torch.bfloat16])
def test_element_types(features, queue):
    q, k, negatives, x_c = data(dtype=features)
    options = {name: value for name, value in OPTIONS["everything"].items() if name != "margin"}
    check(q, k, negatives.to(queue), x_c, **options)


def test_two_types_of_features_are_computed_in_float32_and_get_their_gradients():
    q, k, negatives, x_c = data()
    mixed = [x.detach().to(dtype).requires_grad_() for x, dtype in ((q, torch.float16), (x_c, torch.bfloat16))]
    loss = info_nce(mixed[0], k, negatives, batch=mixed[1], detach_key=False)
    exact = [x.detach().float().requires_grad_() for x in mixed]
    expected = info_nce(exact[0], k, negatives, batch=exact[1], detach_key=False)
    assert loss.item() == expected.item()
    for a, b, x in zip(gradients(loss, *mixed), gradients(expected, *exact), mixed):
        assert a.dtype == x.dtype and torch.equal(a, b.to(x.dtype))


def test_the_batch_itself_gives_the_key_both_gradients():
    q, k, negatives, _ = data()
    loss = info_nce(q, k, batch=True, temperature=TAU)
    full = [x.detach().double().requires_grad_() for x in (q, k)]
    logits = normalize(full[0], dim=1) @ normalize(full[1], dim=1).T / TAU
    expected = cross_entropy(logits, torch.arange(N))
    assert_close(loss, expected, bound(TAU))
    for a, b in zip(gradients(loss, q, k), gradients(expected, *full)):
        assert_close(a, b, bound(TAU))
    assert loss.item() == InfoNCE(TAU, batch=True)(q, k).item()
    detached = info_nce(q, k, batch=True, temperature=TAU, detach_key=True)
    assert detached.item() == loss.item()
    assert torch.equal(gradients(detached, q)[0], gradients(loss, q)[0])
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        gradients(detached, k)
    # Beside a queue without ids.
    both = info_nce(q, k, negatives, batch=True, temperature=TAU)
    of_queue = normalize(full[0], dim=1) @ negatives.double().T / TAU
    assert_close(both, cross_entropy(torch.cat([logits, of_queue], 1), torch.arange(N)), bound(TAU))


def test_a_queue_with_empty_slots_and_ids():
    q, k, negatives, _ = data()
    queue, ids = Queue(K, D, ids=True, empty=True), torch.arange(N) % 5
    assert info_nce(q, k, queue, ids=ids, detach_key=True).item() == 0
    queue.push(negatives[:30], torch.arange(30) % 7)
    found = info_nce(q, k, queue, ids=ids, detach_key=True, reduction="none")
    expected = info_nce(
        q, k, queue.queue[:30], ids=ids, negative_ids=torch.arange(30) % 7, detach_key=True, reduction="none"
    )
    assert_close(found, expected, bound(0.07))
    statistics = scores(q, k, queue, ids=ids)
    counts = [30 - sum(j % 7 == i for j in range(30)) for i in ids.tolist()]
    assert statistics.neg_count.tolist() == counts
    # Without ids of the rows, empty slots are left out all the same, beside a batch too.
    assert (scores(q, k, queue).neg_count == 30).all()
    unnamed = Queue(K, D, empty=True)
    unnamed.push(negatives[:30])
    assert (scores(q, k, unnamed, batch=True).neg_count == 30 + N - 1).all()
    assert (scores(q, k, unnamed, batch=k).neg_count == 30 + N).all()
    mixed = info_nce(q, k, unnamed, negative=Mix(1.6), seed=1, detach_key=True, return_scores=True)[1].mixed
    partner = torch.from_numpy(flashnce.permutation(K, seed=1)).long()
    whole = (torch.arange(K) < 30) & (partner < 30)
    assert (mixed.neg_count == whole.sum()).all()


def test_what_is_left_out_has_no_influence_whatever_it_holds():
    q, k, negatives, x_c = data()
    options = {**OPTIONS["everything"], "detach_key": False, "reduction": "none"}
    plain = info_nce(q, k, negatives, batch=x_c, **options)
    wanted = gradients(plain.sum(), q, k, x_c)
    negatives, spoiled = negatives.clone(), x_c.detach().clone()
    # Nobody's negatives by id, and by bias.
    negatives[0], negatives[4], spoiled[7], spoiled[5] = math.nan, math.inf, math.nan, -math.inf
    spoiled.requires_grad_()
    loss = info_nce(q, k, negatives, batch=spoiled, **options)
    assert torch.equal(loss, plain)
    *of_rows, of_columns = gradients(loss.sum(), q, k, spoiled)
    assert all(torch.equal(a, b) for a, b in zip(of_rows, wanted))
    others = torch.isfinite(spoiled).all(1)
    assert torch.equal(of_columns[others], wanted[2][others]) and others.sum() == C - 2


def test_a_column_that_is_not_finite_spoils_the_rows_it_counts_for():
    q, k, negatives, x_c = data()
    given = ids_of()
    given["batch_ids"][3] = given["ids"][0]
    options = {**given, "detach_key": False, "reduction": "none"}
    plain = info_nce(q, k, negatives, batch=x_c, **options)
    spoiled = x_c.detach().clone()
    spoiled[3, 1] = math.nan
    loss = info_nce(q, k, negatives, batch=spoiled, **options)
    own = given["ids"] == given["ids"][0]
    assert 1 < own.sum() < N and torch.equal(torch.isnan(loss), ~own) and torch.equal(loss[own], plain[own])


def test_threads_do_not_change_a_bit():
    q, k, negatives, x_c = data(40, 300, 200, 33)
    options = {**ids_of(40, 300, 200), **biases_of(300, 200), "margin": 0.05, "detach_key": False}
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            loss = info_nce(q, k, negatives, batch=x_c, **options)
            results.append([loss.detach(), *gradients(loss, q, k, x_c)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("given", [{"batch": True}, {"batch": "columns"}, {}])
def test_no_rows_have_pytorchs_loss_and_empty_gradients(given, reduction):
    weight, features = (torch.randn(D, D, requires_grad=True) for _ in range(2))
    q, k = torch.empty(0, D) @ weight, torch.empty(0, D) @ features
    x_c = torch.randn(C, D, requires_grad=True)
    tau = torch.tensor(TAU, requires_grad=True)
    if given.get("batch") == "columns":
        given = {"batch": x_c}
    loss, statistics = info_nce(
        q, k, torch.randn(K, D), temperature=tau, reduction=reduction, detach_key=False, return_scores=True, **given
    )
    expected = cross_entropy(torch.empty(0, 3), torch.empty(0, dtype=torch.int64), reduction=reduction)
    assert loss.shape == expected.shape and torch.equal(loss.isnan(), expected.isnan())
    assert not loss.nan_to_num(0.0).any() and statistics.mixed.pos.shape == (0,)
    loss.sum().backward()
    assert weight.grad is not None and not weight.grad.any() and not features.grad.any() and tau.grad == 0
    if "batch" in given and given["batch"] is x_c:
        assert x_c.grad.shape == x_c.shape and not x_c.grad.any()
    assert scores(q, k, torch.randn(K, D)).pos.shape == (0,)


def test_no_columns_are_no_loss():
    q, k, _, _ = data()
    for columns in ({"negatives": torch.empty(0, D)}, {"batch": torch.empty(0, D, requires_grad=True)}):
        for form in ("info_nce", "decoupled"):
            loss = info_nce(q, k, form=form, detach_key=False, **columns)
            assert loss.item() == 0 and not any(x.any() for x in gradients(loss, q, k))
    x_c = torch.empty(0, D, requires_grad=True)
    assert gradients(info_nce(q, k, batch=x_c, detach_key=True), x_c)[0].shape == (0, D)
    # One pair alone has no negative.
    assert info_nce(q[:1], k[:1], batch=True).item() == 0 == clip_loss(q[:1], k[:1], temperature=0.1).item()


def test_clip_loss_is_half_of_both_directions():
    a, b, _, _ = data()
    for given in ({"temperature": 0.05}, {"logit_scale": 20.0}, {"logit_scale": torch.tensor(20.0)}):
        loss = clip_loss(a, b, **given)
        full = [x.detach().double().requires_grad_() for x in (a, b)]
        logits = normalize(full[0], dim=1) @ normalize(full[1], dim=1).T / 0.05
        target = torch.arange(N)
        expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        assert_close(loss, expected, bound(0.05))
        for x, y in zip(gradients(loss, a, b), gradients(expected, *full)):
            assert_close(x, y, bound(0.05))
    # Pairs of one id are not each other's negatives.
    ids = torch.arange(N) // 2
    same = (ids[:, None] == ids) & ~torch.eye(N, dtype=torch.bool)
    logits = logits.masked_fill(same, -math.inf)
    expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    assert_close(clip_loss(a, b, temperature=0.05, ids=ids), expected, bound(0.05))


def test_clip_loss_of_16_bit_scales_and_of_two_types():
    a, b, _, _ = data()
    scale = torch.tensor(14.3, dtype=torch.float16, requires_grad=True)
    loss = clip_loss(a, b, logit_scale=scale)
    exact = scale.detach().float().requires_grad_()
    expected = clip_loss(a, b, logit_scale=exact)
    assert loss.item() == expected.item() and torch.float32 == loss.dtype
    assert torch.equal(gradients(loss, scale)[0], gradients(expected, exact)[0].half())
    half = b.detach().half().requires_grad_()
    loss, expected = clip_loss(a, half, temperature=TAU), clip_loss(a, half.float(), temperature=TAU)
    assert loss.item() == expected.item() and gradients(loss, half)[0].dtype == torch.float16


def test_the_workspace_is_far_below_the_logits():
    """Peak memory beyond inputs and gradients is O(N D): it grows with N, never with N^2."""
    sizes, d = (1024, 4096, 16384), 128
    for per_row in (
        [plan_bytes(n, d) / n for n in sizes],
        [plan_bytes(n, d, backward=True) / n for n in sizes],
    ):
        assert per_row[-1] <= 1.25 * per_row[0] and per_row[-1] * sizes[-1] <= 100e6
    assert 10 * plan_bytes(16384, d) < 4 * 16384**2


def plan_bytes(n: int, d: int, backward: bool = False) -> int:
    x = torch.empty(n, d)
    structure = _call.Structure(1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, need_dbatch=1)
    inputs = _call.Inputs(x, x, x[:0], batch=x, ids=torch.empty(n, dtype=torch.int64))
    kind = {"gradient_type": _call.element_type("x", x)} if backward else {}
    return _call.plan_of(x, x[:0], structure, inputs.given(), **kind).workspace_bytes


def test_the_module_passes_its_options_on():
    q, k, negatives, x_c = data()
    given = ids_of()
    criterion = InfoNCE(TAU, margin=0.05, form="decoupled")
    assert "margin=0.05" in repr(criterion) and "decoupled" in repr(criterion)
    options = {"batch": x_c, "detach_key": False, **given}
    expected = info_nce(q, k, negatives, temperature=TAU, margin=0.05, form="decoupled", **options)
    assert criterion(q, k, negatives, **options).item() == expected.item()
    assert criterion(q, k, negatives, **options, margin=None, form="info_nce").item() != expected.item()
