"""The NumPy functions, Mix and the reference against wrong arguments of every kind: a TypeError or ValueError that
names the argument (test_bad_input.py has the PyTorch functions)."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

import flashnce
from flashnce import Mix, reference

N, K, D = 6, 32, 8
SHAPES = {
    "q": (N, D), "k": (N, D), "negatives": (K, D), "weight": (N,), "lambda_pos": (N, 1), "lambda_neg": (K, 1),
    "permutation": (K,),
}  # fmt: skip
WRONG_ARRAYS = {
    "one dimension more": lambda good: np.zeros((3, *good.shape), good.dtype),
    "a row more": lambda good: np.zeros((good.shape[0] + 1, *good.shape[1:]), good.dtype),
    "empty": lambda good: np.zeros((0, *good.shape[1:]), good.dtype),
    "float64": lambda good: good.astype(np.float64),
    "complex": lambda good: good.astype(np.complex64),
    "boolean": lambda good: good.astype(bool),
    "text": lambda good: "0.5",
    "object": lambda good: object(),
    "ragged": lambda good: np.array([[1], [1, 2]], dtype=object),
}
RIGHT = {("negatives", "a row more"), ("negatives", "empty")}


def good_of(name: str) -> np.ndarray:
    if name == "permutation":
        return np.arange(K, dtype=np.int32)
    return np.full(SHAPES[name], 0.5, np.float32)


def raises(name: str, call) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        call()


def numpy_call(name: str, wrong: object) -> functools.partial:
    arguments = {x: good_of(x) for x in ("q", "k", "negatives")}
    options = {"positive": Mix(2.0, per="row"), "negative": Mix(1.6, per="row"), "seed": 1}
    return functools.partial(flashnce.info_nce, **arguments | options | {name: wrong})


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in SHAPES for kind in WRONG_ARRAYS if (name, kind) not in RIGHT]
)
def test_wrong_arrays(name, kind):
    raises(name, numpy_call(name, WRONG_ARRAYS[kind](good_of(name))))


FLAGS = ("normalize", "return_dq", "return_dk", "return_dtemperature", "return_scores")
OTHERS = {
    **{name: (1, "yes", None, 0.5) for name in FLAGS},
    **{name: (1, "all", b"mean", ["mean"]) for name in ("columns", "anchor", "reduction")},
    "temperature": ("0.2", None, True, [0.2], 0.0, -1.0, float("nan"), float("inf"), 1e-40),
    "positive": (2.0, "ft", (2.0, 1.0)),
    "negative": (2.0, "ft", (2.0, 1.0)),
    "seed": (1.5, "3", None, True, -1, 2**64),
    "offset": (1.5, "4", None, True, -4, 6, 2**64),
    "threads": (1.5, "4", None, True, -1, 10**6),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OTHERS.items() for value in values])
def test_the_other_arguments(name, value):
    raises(name, numpy_call(name, value))


MIX = {
    "alpha": (0.0, -1.0, float("nan"), float("inf"), "2", None, True, [2.0]),
    "shift": (float("nan"), float("inf"), "1", None, True),
    "per": ("column", 1, None, ["row"]),
    "renormalize": (1, "yes", None),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in MIX.items() for value in values])
def test_mix(name, value):
    raises(name, lambda: Mix(**{"alpha": 2.0, name: value}))


INSPECTION = {
    "sample_lambda": {
        "side": ("both", 1, None), "mix": (None, 2.0), "rows": (0, -1, 1.5, "4", None), "d": (0, -1, 1.5, None),
        "seed": (None, -1, 2**64, 1.5), "offset": (2, -4, None, 1.5), "first_row": (-1, 1.5, None, 2**33),
    },
    "permutation": {
        "k": (-1, 1.5, "4", None), "seed": (None, -1, 2**64, 1.5), "offset": (2, -4, None, 1.5),
        "perm_block": (-16, 8, 1.5, None), "first_row": (-16, 1.5, None), "k_global": (-1, 1.5, None),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [(f, name, value) for f, table in INSPECTION.items() for name, values in table.items() for value in values],
)
def test_what_a_seed_draws(function, name, value):
    good = {
        "sample_lambda": {"side": "positive", "mix": Mix(2.0, per="row"), "rows": 4, "d": 4, "seed": 1},
        "permutation": {"k": 32, "seed": 1},
    }[function]
    raises(name, lambda: getattr(flashnce, function)(**good | {name: value}))


REFERENCE = {
    "q": (None, [[1.0]], torch.ones(D), torch.ones(N, D, dtype=torch.int64)),
    "k": (None, torch.ones(N, D + 1), torch.ones(N + 1, D), torch.ones(D)),
    "negatives": (torch.ones(K), torch.ones(K, D + 1), torch.ones(K, D, dtype=torch.bool)),
    "weight": (torch.ones(N + 1), torch.ones(N, 1)),
    "permutation": (torch.arange(K),),
    "lambda_neg": (torch.ones(1),),
    "columns": ("all", "union", 1),
    "anchor": ("key", None, 1),
    "reduction": ("max", None, 1),
    "detach_key": ("no", 1),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFERENCE.items() for value in values])
def test_the_reference(name, value):
    good = {"q": torch.ones(N, D), "k": torch.ones(N, D), "negatives": torch.ones(K, D)}
    raises(name, lambda: reference.info_nce(**good | {name: value}))
