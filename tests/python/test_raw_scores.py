"""flashnce.torch.scores: the statistics of q.k and q.z_j before any mixing, equation (9), without a loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch_device
from support import BACKENDS, assert_close, batch, bound, cpu_only, generator, largest_score, scores_call
from torch.library import opcheck
from torch.nn.functional import normalize as unit

import flashnce.torch
from flashnce.torch import Mix, Queue, ScoreStatistics, info_nce, scores

COUNTS = {"neg_count", "n_greater", "n_greater_equal"}
OF_A_LOSS = {"entropy", "dq_norm"}


def plain(q, k, negatives, temperature: float, normalize: bool = True) -> dict:
    """The same in float64 PyTorch."""
    q, k, negatives = q.detach().double(), k.detach().double(), negatives.detach().double()
    if normalize:
        q, k = unit(q, dim=1), unit(k, dim=1)
    pos, neg = torch.einsum("nd,nd->n", q, k), torch.einsum("nd,kd->nk", q, negatives)
    return {
        "pos": pos,
        "neg_count": torch.full(pos.shape, negatives.shape[0]),
        "neg_mean": neg.mean(1),
        "neg_variance": neg.var(1),
        "neg_min": neg.min(1).values,
        "neg_max": neg.max(1).values,
        "neg_log_mean_exp": (neg / temperature).exp().mean(1).log(),
        "n_greater": (neg > pos[:, None]).sum(1),
        "n_greater_equal": (neg >= pos[:, None]).sum(1),
    }


def assert_same(actual: ScoreStatistics, expected: ScoreStatistics) -> None:
    """To the bit."""
    for name, a, b in zip(ScoreStatistics._fields, actual, expected, strict=True):
        if name in OF_A_LOSS:
            assert a is None
        else:
            assert torch.equal(a, b), name


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("shape", [(24, 80, 12), (1, 2, 1), (7, 1003, 13), (33, 65, 300)])
def test_against_plain_pytorch(shape, normalize):
    q, k, negatives = batch(*shape)
    temperature = 0.2 if normalize else 3.0
    actual = scores(q, k, negatives, temperature=temperature, normalize=normalize)
    expected = plain(q, k, negatives, temperature, normalize)
    assert set(expected) | OF_A_LOSS == set(ScoreStatistics._fields)
    assert actual.entropy is None and actual.dq_norm is None
    tolerance = bound(temperature, largest_score(expected))
    for name, value in expected.items():
        field = getattr(actual, name)
        if name in COUNTS:
            assert field.dtype == torch.int64 and torch.equal(field, value), name
        else:
            assert field.dtype == torch.float32 and not field.requires_grad
            assert_close(field, value, tolerance, name)


@pytest.mark.parametrize("normalize", [True, False])
def test_they_are_those_of_the_loss_without_mixing(normalize):
    q, k, negatives = batch()
    options = {"temperature": 0.2, "normalize": normalize}
    _, with_loss = info_nce(q, k, negatives, return_scores=True, **options)
    alone = scores(q, k, negatives, **options)
    if torch_device.is_cpu():
        assert_same(alone, with_loss.unmixed)
    # On a GPU the loss has other tiles, and so sums in another order.
    tolerance = bound(0.2, alone.neg_max.abs().max().item())
    for name in set(ScoreStatistics._fields) - OF_A_LOSS:
        a, b = getattr(alone, name), getattr(with_loss.unmixed, name)
        assert torch.equal(a, b) if name in COUNTS else assert_close(a, b, tolerance, name) is None


@pytest.mark.parametrize("per", ["call", "element"])
def test_they_are_those_before_mixing_where_the_plain_query_is_the_anchor(per):
    q, k, negatives = batch()
    mixes = {"positive": Mix(2.0, shift=1.0, per=per), "negative": Mix(1.6, per=per), "seed": 4}
    raw = scores(q, k, negatives, temperature=0.2)
    anchored = {
        anchor: info_nce(q, k, negatives, temperature=0.2, anchor=anchor, return_scores=True, **mixes)[1].unmixed
        for anchor in ("query", "mixed")
    }
    largest = raw.neg_max.abs().max().item()
    for name in ("pos", "neg_mean", "neg_variance", "neg_min", "neg_max", "neg_log_mean_exp"):
        assert_close(getattr(raw, name), getattr(anchored["query"], name), bound(0.2, largest), name)
    for name in COUNTS:
        assert torch.equal(getattr(raw, name), getattr(anchored["query"], name)), name
    assert (raw.neg_variance - anchored["mixed"].neg_variance).abs().max() > 1e-3


def test_conventions_without_columns_and_with_one():
    q, k, negatives = batch()
    none = scores(q, k, negatives[:0])
    assert_close(none.pos, plain(q, k, negatives, 0.07)["pos"], bound(1.0))
    for name in ("neg_count", "neg_mean", "n_greater", "n_greater_equal"):
        assert (getattr(none, name) == 0).all(), name
    assert torch.isnan(none.neg_variance).all() and (none.neg_log_mean_exp == -math.inf).all()
    assert (none.neg_min == math.inf).all() and (none.neg_max == -math.inf).all()
    one = scores(q, k, negatives[:1])
    assert (one.neg_count == 1).all() and torch.isnan(one.neg_variance).all()
    assert torch.equal(one.neg_min, one.neg_max)


def test_rank_of_the_positive_with_ties():
    unit_of_tie = 2.0**-23
    q, k = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0]])
    beside = torch.tensor([-40, -16, -4, 0, 4, 16, 40, 4000]) * unit_of_tie
    negatives = torch.stack([0.5 + beside, torch.ones(8)], dim=1)
    # Scores within 8 units of 2^-23 of the positive tie with it: -4, 0 and 4. Above are 16, 40 and 4000.
    rank = scores(q, k, negatives, normalize=False)
    assert (rank.n_greater.item(), rank.n_greater_equal.item(), rank.neg_count.item()) == (3, 6, 8)


def test_a_collapsed_encoder_scores_no_hit():
    row = torch.randn(1, 24, generator=generator(2))
    rank = scores(row.expand(6, 24), row.expand(6, 24), (row / row.norm()).expand(50, 24))
    assert (rank.n_greater == 0).all() and (rank.n_greater_equal == 50).all()


def test_takes_what_the_loss_takes():
    q, k, _ = batch()
    queue = Queue(64, 12, generator=generator(3))
    expected = scores(q, k, queue.queue, temperature=0.25)
    assert_same(scores(q, k, queue, temperature=torch.tensor([0.25])), expected)
    learned = torch.nn.Parameter(torch.tensor(0.25))
    assert_same(scores(q, k, queue, temperature=learned), expected)
    strided = torch.empty(12, 64).T.copy_(queue.queue)
    assert not strided.is_contiguous()
    assert_same(scores(q.T.contiguous().T, k, strided, temperature=0.25), expected)
    for half in (torch.float16, torch.bfloat16):
        assert_same(scores(q.to(half), k.to(half), queue), scores(q.to(half).float(), k.to(half).float(), queue))


def test_nothing_has_a_gradient_and_nothing_is_changed():
    q, k, negatives = batch()
    k.requires_grad_()
    negatives.requires_grad_()
    before = [tensor.detach().clone() for tensor in (q, k, negatives)]
    temperature = torch.tensor(0.2, requires_grad=True)
    for field in scores(q, k, negatives, temperature=temperature):
        assert field is None or (field.grad_fn is None and not field.requires_grad)
    assert torch.is_grad_enabled()
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, negatives)))
    with torch.inference_mode():
        inside = scores(q, k, negatives, temperature=0.2)
    assert_same(scores(q, k, negatives, temperature=0.2), inside)


def test_a_row_that_is_not_finite_spoils_itself_alone():
    q, k, negatives = batch()
    expected = scores(q, k, negatives)
    q = q.detach().clone()
    q[5, 3] = math.nan
    actual, others = scores(q, k, negatives), torch.arange(24) != 5
    for name in ("pos", "neg_mean", "neg_variance", "neg_min", "neg_max", "neg_log_mean_exp"):
        field = getattr(actual, name)
        assert not torch.isfinite(field[5]) and torch.equal(field[others], getattr(expected, name)[others]), name


N, K, D = 6, 32, 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": torch.zeros(N, D + 1)},
        {"k": torch.zeros(N + 1, D)},
        {"k": torch.zeros(N, D, dtype=torch.float64)},
        {"k": torch.zeros(N, D, device="meta")},
        {"q": torch.zeros(D)},
        {"q": [[1.0]]},
        {"q": torch.zeros(N, D, dtype=torch.int64)},
        {"q": torch.zeros(N, D, dtype=torch.float64)},
        {"q": torch.zeros(N, 0), "k": torch.zeros(N, 0), "negatives": torch.zeros(K, 0)},
        {"negatives": torch.zeros(K, D + 1)},
        {"negatives": torch.zeros(K)},
        {"negatives": None},
        {"negatives": torch.zeros(K, D, dtype=torch.int32)},
        {"negatives": torch.zeros(K, D, dtype=torch.float64)},
        {"negatives": torch.zeros(K, D, device="meta")},
        {"temperature": 0.0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        pytest.param({"temperature": torch.tensor(-1.0)}, marks=cpu_only),
        {"temperature": torch.ones(2)},
        {"temperature": torch.tensor(0.1, device="meta")},
        {"temperature": "0.1"},
    ],
)
def test_wrong_arguments_raise_what_the_loss_raises(wrong):
    q, k, negatives = batch(N, K, D)
    arguments = {"q": q.detach(), "k": k, "negatives": negatives, **wrong}
    with pytest.raises((TypeError, ValueError)) as of_the_loss:
        info_nce(**arguments)
    with pytest.raises(of_the_loss.type) as raised:
        scores(**arguments)
    assert type(raised.value) is of_the_loss.type
    assert str(raised.value) == str(of_the_loss.value)


def test_the_operator_refuses_what_would_read_past_the_end():
    q, k, negatives = batch(N, K, D)
    op = torch.ops.flashnce.scores.default
    for name, kind, wrong in (
        ("k has shape", ValueError, (q, k[:-1], negatives)),
        ("negatives", ValueError, (q, k, negatives[:, :-1])),
        ("temperature", ValueError, (q, k, negatives, torch.ones(2))),
        ("q has type", TypeError, (q.double(), k, negatives)),
    ):
        with torch.no_grad(), pytest.raises(kind, match=name):
            op(*scores_call(*wrong))


@pytest.mark.parametrize("temperature", [None, torch.tensor([0.3])])
@pytest.mark.parametrize("normalize", [True, False])
def test_opcheck(normalize, temperature):
    q, k, negatives = batch(4, 10, 6)
    opcheck(torch.ops.flashnce.scores.default, scores_call(q.detach(), k, negatives, temperature, 0.2, normalize))


def test_opcheck_without_columns():
    q, k, negatives = batch(4, 10, 6)
    # The checks that compare values take two NaN variances for different.
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    call = scores_call(q.detach(), k, negatives[:0], None, 0.2, True)
    opcheck(torch.ops.flashnce.scores.default, call, test_utils=tests)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_without_graph_breaks(fresh_compiler, backend):
    encoder, queue = torch.nn.Linear(12, 12), Queue(64, 12)

    def step(x, queue):
        q = encoder(x)
        raw = scores(q, x, queue, temperature=0.2)
        loss = info_nce(q, x, queue, temperature=0.2)
        return loss, raw, raw.pos.mean()

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for n in (16, 8, 12):
        _, x, _ = batch(n, 1, 12)
        results = []
        for function in (step, compiled):
            encoder.zero_grad()
            loss, raw, mean = function(x, queue)
            loss.backward()
            assert not mean.requires_grad
            results.append((raw, mean, encoder.weight.grad.clone()))
        (expected, mean, grad), (actual, compiled_mean, compiled_grad) = results
        for name, a, b in zip(ScoreStatistics._fields, actual, expected):
            if name not in OF_A_LOSS:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(compiled_mean, mean)
        torch.testing.assert_close(compiled_grad, grad, rtol=1e-4, atol=1e-5)


def test_is_exported():
    assert "scores" in flashnce.torch.__all__ and flashnce.torch.scores is scores
