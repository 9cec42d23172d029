"""Wrong arguments of columns beyond the queue: one sentence that names the argument."""

from __future__ import annotations

import math

import pytest
import torch
from support import batch

from flashnce import reference
from flashnce.torch import InfoNCE, Queue, clip_loss, info_nce, scores

N, K, D = 6, 32, 8


def data():
    q, k, negatives = batch(N, K, D)
    return q, k.requires_grad_(), negatives, None


TWO = torch.zeros(2, dtype=torch.int64)
WRONG = [
    ("batch is a bool", TypeError, {"batch": False}),
    ("batch is a list", TypeError, {"batch": [1.0]}),
    (r"batch has shape \[4\]", ValueError, {"batch": torch.zeros(4)}),
    (r"batch has shape \[4, 3\]", ValueError, {"batch": torch.zeros(4, 3)}),
    ("batch has type", TypeError, {"batch": torch.zeros(4, D, dtype=torch.float64)}),
    ("batch is on meta", ValueError, {"batch": torch.zeros(4, D, device="meta")}),
    ("negatives is None and batch is None", ValueError, {"negatives": None}),
    ("ids has shape", ValueError, {"batch": True, "negatives": None, "ids": TWO}),
    ("ids has type", TypeError, {"batch": True, "negatives": None, "ids": torch.zeros(N)}),
    ("ids is on meta", ValueError, {"batch": True, "negatives": None, "ids": torch.arange(N, device="meta")}),
    ("ids is given but the negatives have none", ValueError, {"ids": torch.arange(N)}),
    ("ids is given but the negatives have none", ValueError, {"ids": torch.arange(N), "negatives": Queue(K, D)}),
    ("ids is given but the negatives have none", ValueError, {
        "ids": torch.arange(N), "negatives": Queue(K, D, empty=True)
    }),
    ("ids is given but batch_ids is None", ValueError, {
        "ids": torch.arange(N), "negatives": None, "batch": torch.zeros(4, D)
    }),
    ("ids is None but the negatives have ids", ValueError, {"batch": True, "negatives": Queue(K, D, ids=True)}),
    ("ids is None but batch_ids is given", ValueError, {"batch": True, "batch_ids": torch.arange(N)}),
    ("negative_ids has shape", ValueError, {"negative_ids": TWO}),
    ("negative_ids is given, but the Queue", ValueError, {
        "negative_ids": torch.arange(K), "negatives": Queue(K, D, ids=True)
    }),
    ("batch_ids is given but batch is None", ValueError, {"batch_ids": TWO}),
    ("batch_ids has shape", ValueError, {"batch": torch.zeros(4, D), "batch_ids": TWO}),
    ("bias has shape", ValueError, {"bias": torch.zeros(3)}),
    ("bias has type", TypeError, {"bias": torch.zeros(K, dtype=torch.float64)}),
    ("bias requires a gradient", ValueError, {"bias": torch.zeros(K, requires_grad=True)}),
    ("batch_bias is given but batch is None", ValueError, {"batch_bias": torch.zeros(K)}),
    ("batch_bias has shape", ValueError, {"batch": True, "batch_bias": torch.zeros(3)}),
    ("margin is nan", ValueError, {"margin": math.nan}),
    ("margin is a str", TypeError, {"margin": "0.1"}),
    ("form", ValueError, {"form": "dcl"}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "kind", "wrong"), WRONG)
def test_wrong_arguments(words, kind, wrong):
    q, k, negatives, _ = data()
    for function in (info_nce, scores):
        # scores has neither.
        if function is scores and ("form" in wrong or "requires a gradient" in words):
            continue
        with pytest.raises(kind, match=words):
            function(**{"q": q.detach(), "k": k.detach(), "negatives": negatives, **wrong})


# It takes any integers on any device, and no Queue.
OF_REFERENCE = [
    (words, kind, wrong)
    for words, kind, wrong in WRONG
    if ("ids" in words or "bias has shape" in words)
    and not isinstance(wrong.get("negatives"), Queue)
    and "meta" not in words
]


@pytest.mark.parametrize(("words", "kind", "wrong"), OF_REFERENCE)
def test_the_reference_refuses_the_same_ids_and_biases(words, kind, wrong):
    q, k, negatives, _ = data()
    with pytest.raises(kind, match=words):
        reference.info_nce(**{"q": q.detach(), "k": k.detach(), "negatives": negatives, **wrong})


@pytest.mark.parametrize(
    ("words", "kind", "wrong"),
    [
        ("b has shape", ValueError, {"b": torch.zeros(3, D)}),
        (r"^a has shape \[6\]", ValueError, {"a": torch.zeros(N)}),
        ("b has type torch.int64", TypeError, {"b": torch.zeros(N, D, dtype=torch.int64)}),
        ("b is a list", TypeError, {"b": [1.0]}),
        ("^ids has shape", ValueError, {"ids": TWO}),
        ("^ids is a list", TypeError, {"ids": [0] * N}),
        ("b_ids is given but ids is None", ValueError, {"b_ids": torch.arange(N)}),
        ("b_ids has type", TypeError, {"ids": torch.arange(N), "b_ids": torch.zeros(N)}),
        ("a_bias has shape", ValueError, {"a_bias": torch.zeros(N - 1)}),
        ("b_bias is a float", TypeError, {"b_bias": 0.5}),
        ("weight has shape", ValueError, {"weight": torch.zeros(N, 1)}),
        ("reduction is 'all'", ValueError, {"reduction": "all"}),
    ],
)
def test_wrong_arguments_of_the_reference_of_clip_loss(words, kind, wrong):
    a, b, _, _ = data()
    with pytest.raises(kind, match=words):
        reference.clip_loss(**{"a": a, "b": b, **wrong})


@pytest.mark.parametrize(
    ("words", "kind", "wrong"),
    [
        ("neither of temperature and logit_scale", ValueError, {}),
        ("both of temperature and logit_scale", ValueError, {"temperature": 0.1, "logit_scale": 10.0}),
        ("logit_scale is -1", ValueError, {"logit_scale": -1.0}),
        ("logit_scale is a str", TypeError, {"logit_scale": "1"}),
        ("b has shape", ValueError, {"temperature": 0.1, "b": torch.zeros(3, D)}),
        (r"^a\.shape\[1\] is 0", ValueError, {"temperature": 0.1, "a": torch.zeros(N, 0), "b": torch.zeros(N, 0)}),
        ("ids has shape", ValueError, {"temperature": 0.1, "ids": TWO}),
        ("b has type torch.float64", TypeError, {"temperature": 0.1, "b": torch.zeros(N, D, dtype=torch.float64)}),
        ("b is a list", TypeError, {"temperature": 0.1, "b": [1.0]}),
        ("a is on meta", ValueError, {
            "temperature": 0.1, "a": torch.zeros(N, D, device="meta"), "b": torch.zeros(N, D, device="meta")
        }),
        ("b_ids is given but ids is None", ValueError, {"temperature": 0.1, "b_ids": torch.arange(N)}),
        ("b_ids has type", TypeError, {"temperature": 0.1, "ids": torch.arange(N), "b_ids": torch.zeros(N)}),
        ("a_bias has shape", ValueError, {"temperature": 0.1, "a_bias": torch.zeros(N - 1)}),
        ("b_bias has type", TypeError, {"temperature": 0.1, "b_bias": torch.zeros(N, dtype=torch.float64)}),
        ("b_bias requires a gradient", ValueError, {"temperature": 0.1, "b_bias": torch.zeros(N, requires_grad=True)}),
        ("weight has shape", ValueError, {"temperature": 0.1, "weight": torch.zeros(N, 1)}),
        ("reduction is 'all'", ValueError, {"temperature": 0.1, "reduction": "all"}),
        ("normalize is a int", TypeError, {"temperature": 0.1, "normalize": 1}),
        ("temperature is -1", ValueError, {"temperature": -1.0}),
        ("temperature is 0", ValueError, {"temperature": torch.tensor(0.0)}),
    ],
)
def test_wrong_arguments_of_clip_loss(words, kind, wrong):
    a, b, _, _ = data()
    with pytest.raises(kind, match=words):
        clip_loss(**{"a": a, "b": b, **wrong})


@pytest.mark.parametrize("wrong", [{"batch": False}, {"batch": torch.zeros(2, 2)}, {"form": "x"}, {"margin": "1"}])
def test_wrong_arguments_of_the_module(wrong):
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        InfoNCE(**wrong)
