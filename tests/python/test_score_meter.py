"""ScoreMeter: what it keeps of a step, rows merged exactly, details against the reference."""

from __future__ import annotations

import pytest
import torch
from score_cases import FT, Rows, call
from support import batch, drawn
from torch.nn.functional import normalize

import flashnce
from flashnce import Mix
from flashnce.reference import _mixed
from flashnce.scores import COLUMNS, ScoreMeter, bin_edges, merge_rows
from flashnce.scores._row import COUNTS, HIGHEST, LOWEST, WIDTH
from flashnce.torch import FeatureTransform, InfoNCE, Queue, info_nce, scores

# Reductions in float64 of float32 numbers, in another order than the expectation's.
ROUNDING = 1e-12


def row_of(loss, found, **given):
    rows = Rows()
    with ScoreMeter(sinks=[rows], **{name: given.pop(name) for name in ("details_every",) if name in given}) as meter:
        meter.update(loss, found, **given)
    return rows[0]


def expected_set(name, s):
    pos = s.pos.double()
    return {
        f"{name}_pos_mean": pos.mean(),
        f"{name}_pos_variance": pos.var(),
        f"{name}_neg_mean": s.neg_mean.double().mean(),
        f"{name}_neg_variance": s.neg_variance.double().mean(),
        f"{name}_neg_log_mean_exp": s.neg_log_mean_exp.double().mean(),
        f"{name}_neg_min": s.neg_min.min(),
        f"{name}_neg_max": s.neg_max.max(),
        f"{name}_acc1": (s.n_greater_equal == 0).double().mean(),
        f"{name}_acc5": (s.n_greater_equal < 5).double().mean(),
        f"{name}_neg_count": s.neg_count.sum(),
        f"{name}_neg_rows": (s.neg_count > 0).sum(),
        f"{name}_neg_pairs": (s.neg_count > 1).sum(),
    }


@pytest.mark.parametrize("mixes", [{}, FT])
def test_a_row_is_what_torch_makes_of_the_statistics(mixes):
    loss, found, _ = call(**mixes)
    row = row_of(loss, found, step=7, epoch=2)
    expected = expected_set("mixed", found.mixed) | (expected_set("unmixed", found.unmixed) if mixes else {})
    expected |= {
        "rows": 24,
        "loss": loss.detach().double(),
        "entropy": found.mixed.entropy.double().mean(),
        "effective_negatives": found.mixed.entropy.double().exp().mean(),
        "gradient_norm": found.mixed.dq_norm.double().mean(),
        "step": 7,
        "epoch": 2,
    }
    assert set(row) == {*expected, "seconds"} and set(row) <= set(COLUMNS)
    for name, value in expected.items():
        assert row[name] == pytest.approx(float(value), rel=ROUNDING, abs=ROUNDING), name


def test_a_loss_of_any_shape_is_its_mean():
    per_query, found, _ = call(reduction="none")
    expected = row_of(per_query.mean(), found)
    for shape in ((24,), (4, 6), (24, 1)):
        row = row_of(per_query.reshape(shape), found)
        for name in expected.keys() - {"seconds"}:
            assert row[name] == pytest.approx(expected[name], rel=1e-6), (shape, name)


def test_queries_without_negatives_count_in_no_mean_of_negatives():
    q, key, negatives = batch(6, 3, 5)
    # Query 0 has no negative, query 1 has one, the others have all.
    ids = torch.tensor([0, 1, 5, 5, 5, 5])
    bias = torch.zeros(3)
    column_ids = torch.tensor([0, 0, 0])
    loss, found = info_nce(q, key, negatives, ids=ids, negative_ids=column_ids, bias=bias, return_scores=True)
    row = row_of(loss, found)
    assert (row["mixed_neg_rows"], row["mixed_neg_pairs"], row["mixed_neg_count"]) == (5, 5, 15)
    assert row["mixed_neg_mean"] == pytest.approx(found.mixed.neg_mean[1:].double().mean().item(), rel=ROUNDING)
    assert row["entropy"] != row["entropy"]  # NaN: columns with a bias have none


@pytest.mark.parametrize("sizes", [(24,), (1, 23), (7, 8, 9), (0, 24)])
def test_rows_of_ranks_merge_to_the_row_of_all(sizes):
    loss, found, _ = call(**FT)
    per_row = info_nce(*call()[2], temperature=0.2, seed=0, reduction="none", **FT)
    whole = row_of(per_row, found)
    first, parts = 0, []
    for size in sizes:
        part = slice(first, first + size)
        cut = [type(s)(*(x if x is None else x[part] for x in s)) for s in found[:2]]
        parts.append(row_of(per_row[part], found._replace(mixed=cut[0], unmixed=cut[1])))
        first += size
    merged = merge_rows(parts)
    for name in whole.keys() - {"seconds"}:
        assert merged[name] == pytest.approx(whole[name], rel=ROUNDING, abs=ROUNDING), name


def counts_of(values):
    """Counts of a histogram, one value after the other."""
    counts = [0] * COUNTS
    for value in values.flatten().tolist():
        counts[min(max(int((value - LOWEST) // WIDTH), -1), COUNTS - 2) + 1] += 1
    return counts


@pytest.mark.parametrize("options", [
    FT,
    {},
    {"positive": Mix(2.0, shift=1.0, per="element"), "negative": Mix(1.6, per="row", renormalize=True)},
    FT | {"columns": "union", "anchor": "query"},
    {"positive": Mix(0.5, per="row"), "negative": Mix(0.5, per="dimension")},
])  # fmt: skip
def test_details_are_those_of_the_reference(options):
    loss, found, (q, k, z) = call(**options)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        meter.update(loss, found, q=q, k=k, negatives=z, temperature=0.2, **options)
    given = drawn(options.get("positive"), options.get("negative"), *q.shape[:1], *z.shape, 0)
    unit_q, unit_k = normalize(q.detach().double(), dim=1), normalize(k.double(), dim=1)
    q_mixed = _mixed(unit_q, unit_k, given["lambda_pos"].double(), False, 0) if "positive" in options else unit_q
    a = unit_q if options.get("anchor") == "query" else q_mixed
    z_mixed = z.double()
    if "negative" in options:
        partner = z_mixed[given["permutation"]]
        z_mixed = _mixed(z_mixed, partner, given["lambda_neg"].double(), options["negative"].renormalize, 1e-12)
    after = torch.cat([z_mixed, z.double()]) if options.get("columns") == "union" else z_mixed
    expected = {"neg_before": unit_q @ z.double().T, "neg_after": a @ after.T, "pos_before": found.unmixed.pos,
                "pos_after": found.mixed.pos}  # fmt: skip
    [details] = rows.details
    assert set(details["histograms"]) == set(expected)
    for name, values in expected.items():
        made = details["histograms"][name]
        assert sum(made) == values.numel()
        # A score within float32's rounding of an edge may fall on either side of it.
        near = ((values / WIDTH - (values / WIDTH).round()).abs() < 1e-4).sum().item()
        moved = sum(abs(x - y) for x, y in zip(made, counts_of(values)))
        assert moved <= 2 * near, name
    raw = scores(q, k, z, temperature=0.2)
    for name, value in expected_set("raw", raw).items():
        assert rows[0][name] == pytest.approx(float(value), rel=ROUNDING, abs=ROUNDING), name
    if options is FT:
        assert details["lambda_pos"] == pytest.approx(given["lambda_pos"].item())
        assert details["lambda_neg"] == pytest.approx(given["lambda_neg"].item())
    assert details["pairs"]["after"] == pytest.approx(found.mixed.pos.tolist())


def test_a_micro_batch_has_its_own_draws():
    options = {"positive": Mix(2.0, shift=1.0, per="row"), "row_offset": 24}
    loss, found, (q, k, z) = call(**options)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        meter.update(loss, found, q=q, k=k, negatives=z, temperature=0.2, **options)
    factor = torch.from_numpy(flashnce.sample_lambda("positive", options["positive"], 24, 12, seed=0, first_row=24))
    a = _mixed(normalize(q.detach(), dim=1), normalize(k, dim=1), factor, False, 0)
    counts, expected = rows.details[0]["histograms"]["neg_after"], counts_of(a @ z.T)
    # A score within float32's rounding of an edge may fall on either side of it.
    assert sum(abs(x - y) for x, y in zip(counts, expected)) <= 4
    other = _mixed(normalize(q.detach(), dim=1), normalize(k, dim=1), factor.flip(0), False, 0)
    assert sum(abs(x - y) for x, y in zip(counts, counts_of(other @ z.T))) > 40


def test_bins_are_what_they_are_called():
    edges = bin_edges()
    assert edges[0] == LOWEST and edges[-1] == HIGHEST and len(edges) == COUNTS - 1
    made = flashnce.scores._details.histogram(torch.tensor([LOWEST, -9.0, HIGHEST, 0.0, float("nan"), WIDTH]))
    assert made[0] == 1 and made[1] == 1 and made[-1] == 1
    assert made[1 + edges.index(0.0)] == 1 and made[2 + edges.index(0.0)] == 1 and made.sum() == 5


def test_a_criterion_says_what_it_mixed():
    q, k, z = batch()
    criterion, queue = InfoNCE(0.2, preset="ft"), Queue(80, 12)
    loss, found = criterion(q, k, queue, return_scores=True, seed=3)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=10) as meter:
        for _ in range(11):
            meter.update(loss, found, q=q, k=k, negatives=queue, criterion=criterion)
    assert [details["step"] for details in rows.details] == [0, 10]
    expected = flashnce.sample_lambda("positive", criterion.positive, 1, 12, seed=3).item()
    assert rows.details[0]["lambda_pos"] == pytest.approx(expected)
    assert "raw_pos_mean" in rows[0] and "raw_pos_mean" not in rows[1]


def test_columns_beyond_a_queue_have_no_histogram_of_negatives():
    q, k, z = batch()
    loss, found = info_nce(q, k, z, margin=0.1, return_scores=True)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        meter.update(loss, found, q=q, k=k, negatives=z, margin=0.1)
        meter.update(loss, found)
    assert set(rows.details[0]["histograms"]) == {"pos_before", "pos_after"}
    assert rows[0]["raw_neg_count"] == found.mixed.neg_count.sum() and "raw_neg_count" not in rows[1]


def test_what_is_no_score_is_refused():
    loss, found, _ = call()
    meter = ScoreMeter()
    with pytest.raises(TypeError, match="it must be the Scores that return_scores=True adds"):
        meter.update(loss, found.mixed)
    with pytest.raises(ValueError, match="details_every is -1"):
        ScoreMeter(details_every=-1)


def test_a_closed_meter_takes_no_update(tmp_path):
    loss, found, _ = call()
    meter = ScoreMeter(tmp_path)
    meter.update(loss, found)
    meter.close()
    meter.close()
    with pytest.raises(RuntimeError, match="the meter is closed: it takes no more updates"):
        meter.update(loss, found)


def test_a_schedule_s_lambdas_are_those_of_the_details():
    q, k, z = batch()
    transform, criterion = FeatureTransform(start=1, seed=4), InfoNCE(0.2)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        for _ in range(2):
            given = transform()
            loss, found = criterion(q, k, z, return_scores=True, **given)
            meter.update(loss, found, q=q, k=k, negatives=z, criterion=criterion, **given)
            transform.step()
    off, on = rows.details
    assert off["lambda_pos"] == off["lambda_neg"] == 1 and on["lambda_pos"] > 1 > on["lambda_neg"]
    assert off["histograms"]["neg_after"] == off["histograms"]["neg_before"]
    mean = sum(count * x for count, x in zip(on["histograms"]["neg_after"][1:], bin_edges())) / (24 * 80)
    assert mean + WIDTH / 2 == pytest.approx(rows[1]["mixed_neg_mean"], abs=WIDTH / 2)


@pytest.mark.parametrize("forgotten", ["lambda_pos", "lambda_neg", "queue"])
def test_details_of_another_call_than_the_loss_are_left_out(forgotten):
    q, k, z = batch()
    transform, criterion, queue = FeatureTransform(seed=4), InfoNCE(0.2), Queue(80, 12)
    queue.push(z)
    rows = Rows()
    given = transform()
    loss, found = criterion(q, k, queue, return_scores=True, **given)
    with ScoreMeter(sinks=[rows], details_every=1) as meter, pytest.warns(RuntimeWarning) as warned:
        meter.update(loss, found, q=q, k=k, negatives=queue, criterion=criterion, **given)
        if forgotten == "queue":
            queue.push(normalize(torch.ones(40, 12), dim=1))
        else:
            del given[forgotten]
        for _ in range(2):
            meter.update(loss, found, q=q, k=k, negatives=queue, criterion=criterion, **given)
    assert len(warned) == 1 and "make other scores than the loss found" in str(warned[0].message)
    assert warned[0].filename == __file__
    assert "neg_after" in rows.details[0]["histograms"] and "lambda_pos" in rows.details[0]
    for details in rows.details[1:]:
        assert set(details["histograms"]) == {"pos_before", "pos_after"} and "lambda_pos" not in details
