"""flashnce.info_nce for NumPy arrays: the same numbers, without torch."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from support import assert_close, batch, bound, largest_score, reference_of, typed_bound

import flashnce
from flashnce import Mix

N, K, D = 6, 32, 8
NO_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
import flashnce
q, k = np.eye(4, 8, dtype=np.float32), np.eye(4, 8, dtype=np.float32)
negatives = -np.eye(8, dtype=np.float32)
result = flashnce.info_nce(q, k, negatives, temperature=0.5, negative=flashnce.Mix(1.6), seed=1, return_dq=True)
assert result.loss.shape == () and result.dq.shape == (4, 8)
assert len(flashnce.permutation(9, seed=1)) == 9
assert flashnce.sample_lambda("negative", flashnce.Mix(1.6), 8, 8, seed=1).shape == (1,)
print(result.loss > 0)
"""
NO_NUMPY = """
import sys
sys.modules["numpy"] = None
import flashnce
print(flashnce.__version__ and flashnce.Mix(1.0).alpha == 1.0)
"""


def arrays(n: int = N, k: int = K, d: int = D) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in batch(n, k, d)]


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("per", ["call", "row", "dimension", "element"])
def test_loss_gradients_and_scores_are_those_of_the_reference(per, reduction):
    q, k, negatives = batch()
    k.requires_grad_()
    mixes = Mix(2.0, shift=1.0, per=per), Mix(1.6, per=per)
    weight = torch.rand(len(q), generator=torch.Generator().manual_seed(1))
    temperature = torch.tensor(0.2, requires_grad=True)
    expected, mixed, unmixed = reference_of(
        q, k, negatives, *mixes, seed=6, temperature=temperature, weight=weight, reduction=reduction, detach_key=False,
        return_scores=True,
    )  # fmt: skip
    result = flashnce.info_nce(
        q.detach().numpy(), k.detach().numpy(), negatives.numpy(), positive=mixes[0], negative=mixes[1], seed=6,
        temperature=0.2, weight=weight.numpy(), reduction=reduction, return_dq=True, return_dk=True,
        return_dtemperature=True, return_scores=True, threads=2,
    )  # fmt: skip
    tolerance = bound(0.2, largest_score(mixed))
    wanted = torch.autograd.grad(expected.sum(), (q, k, temperature))
    assert_close(torch.from_numpy(result.loss), expected, tolerance, "loss")
    assert_close(torch.from_numpy(result.dq), wanted[0], tolerance, "dq")
    assert_close(torch.from_numpy(result.dk), wanted[1], tolerance, "dk")
    assert_close(torch.from_numpy(result.dtemperature).sum(), wanted[2], tolerance, "dtemperature")
    for actual, statistics in ((result.mixed, mixed), (result.unmixed, unmixed)):
        for name, array in actual.items():
            if name != "dq_norm":
                assert_close(torch.from_numpy(array), statistics[name], tolerance, name)
    assert np.allclose(result.mixed["dq_norm"], np.linalg.norm(result.dq, axis=1), rtol=1e-5)
    assert set(result.mixed) - set(result.unmixed) == {"entropy", "dq_norm"}


def numpy_type(name: str) -> np.dtype:
    """bfloat16 is of the package ml_dtypes."""
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if name == "bfloat16" else np.dtype(name)


@pytest.mark.parametrize("queue_type", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("feature_type", ["float32", "float16", "bfloat16"])
def test_element_types(feature_type, queue_type):
    q, k, negatives = batch()
    q = q.detach().to(getattr(torch, feature_type)).double().requires_grad_()
    k = k.to(getattr(torch, feature_type)).double().requires_grad_()
    negatives = negatives.to(getattr(torch, queue_type))
    mixes = Mix(2.0, shift=1.0), Mix(1.6)
    options = {"seed": 6, "temperature": 0.2, "return_scores": True}
    expected, mixed, _ = reference_of(q, k, negatives, *mixes, detach_key=False, **options)
    features = [x.detach().numpy().astype(numpy_type(feature_type)) for x in (q, k)]
    result = flashnce.info_nce(
        *features, negatives.float().numpy().astype(numpy_type(queue_type)), positive=mixes[0], negative=mixes[1],
        return_dq=True, return_dk=True, **options,
    )  # fmt: skip
    tolerance = typed_bound(negatives.dtype, 0.2, largest_score(mixed))
    assert_close(torch.from_numpy(result.loss), expected, tolerance, "loss")
    half_unit = torch.finfo(getattr(torch, feature_type)).eps / 2
    for name, gradient, wanted in zip(("dq", "dk"), result[1:3], torch.autograd.grad(expected, (q, k))):
        assert gradient.dtype == numpy_type(feature_type)
        assert_close(torch.from_numpy(gradient.astype(np.float32)), wanted, tolerance + half_unit, name)
    assert result.mixed["dq_norm"].dtype == np.float32


def test_only_what_was_asked_for_is_returned():
    result = flashnce.info_nce(*arrays())
    assert result.loss.dtype == np.float32 and result[1:] == (None,) * 6


def test_explicit_lambda_and_permutation():
    q, k, negatives = arrays()
    mix = Mix(1.6, per="row")
    drawn = flashnce.info_nce(q, k, negatives, negative=mix, seed=3).loss
    given = {
        "lambda_neg": flashnce.sample_lambda("negative", mix, K, D, seed=3),
        "permutation": flashnce.permutation(K, seed=3),
    }
    assert np.allclose(flashnce.info_nce(q, k, negatives, **given).loss, drawn, rtol=1e-5)


def test_views_and_no_negatives():
    q, k, negatives = arrays()
    wide = np.repeat(q, 2, axis=1)[:, ::2]
    assert flashnce.info_nce(wide, k, np.asfortranarray(negatives)).loss == flashnce.info_nce(q, k, negatives).loss
    assert flashnce.info_nce(q, k, negatives[:0]).loss == 0


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_it_works_where_torch_cannot_be_imported():
    assert run(NO_TORCH) == "True"


def test_the_package_imports_where_numpy_cannot_be_imported():
    assert run(NO_NUMPY) == "True"


WRONG = [
    ("q", TypeError, {"q": np.zeros((N, D))}),
    ("q", ValueError, {"q": np.zeros(D, np.float32)}),
    ("k", ValueError, {"k": np.zeros((N, D + 1), np.float32)}),
    ("negatives", ValueError, {"negatives": np.zeros((K, D + 1), np.float32)}),
    ("negatives", TypeError, {"negatives": np.zeros((K, D), np.float64)}),
    ("negatives", TypeError, {"negatives": np.zeros((K, D), ">f4")}),
    ("k has type float16; it must be float32", TypeError, {"k": np.zeros((N, D), np.float16)}),
    ("temperature", TypeError, {"temperature": None}),
    ("temperature", ValueError, {"temperature": math.inf}),
    ("temperature is 1e-40", ValueError, {"temperature": 1e-40}),
    ("positive", TypeError, {"positive": 1.0}),
    ("negative", TypeError, {"negative": 1.0}),
    ("columns", ValueError, {"columns": "union"}),
    ("anchor", ValueError, {"anchor": "k"}),
    ("reduction", ValueError, {"reduction": "max"}),
    ("weight", ValueError, {"weight": np.ones(N + 1, np.float32)}),
    ("weight", TypeError, {"weight": np.ones(N)}),
    ("lambda_pos", ValueError, {"lambda_pos": np.ones(N, np.float32)}),
    ("lambda_neg", TypeError, {"lambda_neg": 0.5, "seed": 1}),
    ("permutation", ValueError, {"permutation": np.arange(K)}),
    ("permutation", TypeError, {"negative": Mix(1.0), "seed": 1, "permutation": np.ones(K)}),
    ("permutation", ValueError, {"negative": Mix(1.0), "seed": 1, "permutation": np.arange(K + 1)}),
    ("permutation", ValueError, {"negative": Mix(1.0), "seed": 1, "permutation": np.arange(K) + 2**32}),
    ("permutation", ValueError, {"negative": Mix(1.0), "seed": 1, "permutation": np.zeros(K, np.int64)}),
    ("seed is None", ValueError, {"negative": Mix(1.0)}),
    ("seed", TypeError, {"negative": Mix(1.0), "seed": 1.0}),
    ("seed", ValueError, {"negative": Mix(1.0), "seed": -1}),
    ("offset", ValueError, {"negative": Mix(1.0), "seed": 1, "offset": 3}),
    ("threads", ValueError, {"threads": -1}),
]


@pytest.mark.parametrize(("words", "kind", "wrong"), WRONG)
def test_errors(words, kind, wrong):
    with pytest.raises(kind, match=words):
        flashnce.info_nce(**{**dict(zip(("q", "k", "negatives"), arrays())), **wrong})


def columns(n: int = N, k: int = K, c: int = 11) -> dict[str, np.ndarray]:
    """Ids and biases that leave some columns out."""
    rng = np.random.default_rng(0)
    ids, negative_ids, batch_ids = (rng.integers(0, 4, size) for size in (n, k, c))
    negative_ids[3] = batch_ids[1] = flashnce.NO_COLUMN
    bias, batch_bias = (rng.standard_normal(size).astype(np.float32) for size in (k, c))
    bias[4] = -np.inf
    return {
        "ids": ids, "negative_ids": negative_ids, "batch_ids": batch_ids, "bias": bias, "batch_bias": batch_bias,
        "margin": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("form", ["info_nce", "decoupled"])
def test_columns_beyond_the_queue_are_those_of_the_reference(form, reduction):
    q, k, negatives = arrays()
    x_c = np.random.default_rng(1).standard_normal((11, D)).astype(np.float32)
    options = {"temperature": 0.2, "form": form, "reduction": reduction, "return_scores": True}
    result = flashnce.info_nce(
        q, k, negatives, batch=x_c, return_dq=True, return_dk=True, return_dbatch=True, **columns(), **options
    )
    full = [torch.from_numpy(x).double().requires_grad_() for x in (q, k, x_c)]
    given = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in columns().items()}
    expected, mixed, unmixed = flashnce.reference.info_nce(
        *full[:2], torch.from_numpy(negatives), batch=full[2], detach_key=False, **given, **options
    )
    tolerance = bound(0.2, largest_score(mixed))
    assert_close(torch.from_numpy(result.loss), expected, tolerance, "loss")
    wanted = torch.autograd.grad(expected.sum(), full)
    for name, gradient in zip(("dq", "dk", "dbatch"), wanted):
        assert_close(torch.from_numpy(getattr(result, name)), gradient, tolerance, name)
    for actual, statistics in ((result.mixed, mixed), (result.unmixed, unmixed)):
        assert "entropy" not in actual
        assert np.array_equal(actual["neg_count"], statistics["neg_count"].numpy())


def test_the_batch_itself_gives_the_key_both_gradients():
    q, k, _ = arrays()
    result = flashnce.info_nce(q, k, batch=True, temperature=0.2, return_dk=True)
    full = [torch.from_numpy(x).double().requires_grad_() for x in (q, k)]
    expected = flashnce.reference.info_nce(*full, batch=True, temperature=0.2)
    assert_close(torch.from_numpy(result.loss), expected, bound(0.2))
    assert_close(torch.from_numpy(result.dk), torch.autograd.grad(expected, full[1])[0], bound(0.2))
    assert result.dbatch is None


def test_no_rows():
    q, negatives = np.empty((0, D), np.float32), arrays()[2]
    assert np.isnan(flashnce.info_nce(q, q, negatives).loss)
    assert flashnce.info_nce(q, q, negatives, reduction="sum").loss == 0
    result = flashnce.info_nce(
        q, q, negatives, batch=negatives, reduction="none", return_dq=True, return_dtemperature=True,
        return_dbatch=True, return_scores=True,
    )  # fmt: skip
    assert result.loss.shape == result.dtemperature.shape == (0,) and result.dq.shape == (0, D)
    assert result.dbatch.shape == (K, D) and not result.dbatch.any() and result.mixed["pos"].shape == (0,)
    alone = flashnce.info_nce(q, q, batch=True, return_dk=True, return_dbatch=True)
    assert alone.dbatch.shape == alone.dk.shape == (0, D)


def test_no_batch_columns_have_an_empty_gradient():
    q, k, negatives = arrays()
    result = flashnce.info_nce(q, k, negatives, batch=negatives[:0], return_dbatch=True)
    assert result.dbatch.shape == (0, D) and result.loss == flashnce.info_nce(q, k, negatives).loss


@pytest.mark.parametrize(
    ("words", "kind", "wrong"),
    [
        ("negatives is None and batch is None", ValueError, {"negatives": None}),
        ("batch is False", TypeError, {"batch": False}),
        ("batch has shape", ValueError, {"batch": np.zeros((3, D + 1), np.float32)}),
        ("batch has type float16", TypeError, {"batch": np.zeros((3, D), np.float16)}),
        ("ids has type int32", TypeError, {"negatives": None, "batch": True, "ids": np.zeros(N, np.int32)}),
        ("ids has shape", ValueError, {"negatives": None, "batch": True, "ids": np.zeros(N + 1, np.int64)}),
        ("ids is given but the negatives have none", ValueError, {"ids": np.arange(N)}),
        ("batch_ids is given but batch is None", ValueError, {"batch_ids": np.arange(N)}),
        ("bias has type float64", TypeError, {"bias": np.zeros(K)}),
        ("batch_bias is given but batch is None", ValueError, {"batch_bias": np.zeros(N, np.float32)}),
        ("margin is nan", ValueError, {"margin": math.nan}),
        ("form", ValueError, {"form": "dcl"}),
        ("return_dbatch is True but batch is None", ValueError, {"return_dbatch": True}),
    ],
)
def test_errors_of_columns(words, kind, wrong):
    with pytest.raises(kind, match=words):
        flashnce.info_nce(**{**dict(zip(("q", "k", "negatives"), arrays())), **wrong})
