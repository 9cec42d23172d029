"""Each wrong argument raises the right type of exception, in a sentence that names it."""

from __future__ import annotations

import math
import re

import pytest
import torch
from support import batch

import flashnce
from flashnce import _library, _names, _options
from flashnce.torch import InfoNCE, Mix, Queue, info_nce

N, K, D = 6, 32, 8
C_NAMES = re.compile(r"\b(problem|args|push|pairs|anchors)\.")
FT = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6), "seed": 1}
GIVEN_NEGATIVE = {"negative": Mix(1.6), "seed": 1}


def double_zero() -> torch.Tensor:
    permutation = torch.randperm(K)
    permutation[permutation == 5] = 0
    return permutation


WRONG = [
    ("k", ValueError, {"k": torch.zeros(N, D + 1)}),
    ("k", ValueError, {"k": torch.zeros(N + 1, D)}),
    ("q", ValueError, {"q": torch.zeros(D)}),
    ("q", TypeError, {"q": [[1.0]]}),
    ("q", TypeError, {"q": torch.zeros(N, D, dtype=torch.int64)}),
    ("q.*flashnce.reference.info_nce", TypeError, {"q": torch.zeros(N, D, dtype=torch.float64)}),
    ("k.*flashnce.reference.info_nce", TypeError, {"k": torch.zeros(N, D, dtype=torch.float64)}),
    (
        r"q\.shape\[1\] is 0",
        ValueError,
        {"q": torch.zeros(N, 0), "k": torch.zeros(N, 0), "negatives": torch.zeros(K, 0)},
    ),
    ("k is on meta", ValueError, {"k": torch.zeros(N, D, device="meta")}),
    ("negatives", ValueError, {"negatives": torch.zeros(K, D + 1)}),
    ("negatives", ValueError, {"negatives": torch.zeros(K)}),
    ("negatives is None and batch is None", ValueError, {"negatives": None}),
    ("negatives", TypeError, {"negatives": torch.zeros(K, D, dtype=torch.int32)}),
    ("negatives", TypeError, {"negatives": torch.zeros(K, D, dtype=torch.float64)}),
    ("negatives.*flashnce.reference.info_nce", TypeError, {"negatives": torch.zeros(K, D, dtype=torch.float64)}),
    (
        "negatives requires a gradient.*batch=True.*own key",
        ValueError,
        {"negatives": torch.zeros(K, D, requires_grad=True)},
    ),
    ("temperature", ValueError, {"temperature": 0.0}),
    ("temperature", ValueError, {"temperature": -0.1}),
    ("temperature", ValueError, {"temperature": math.nan}),
    ("temperature", ValueError, {"temperature": torch.tensor(-1.0)}),
    ("temperature", ValueError, {"temperature": torch.ones(2)}),
    ("temperature", TypeError, {"temperature": torch.tensor(1)}),
    ("temperature", TypeError, {"temperature": "0.1"}),
    ("temperature is 1e-40.*2..-126", ValueError, {"temperature": 1e-40}),
    ("temperature is 1e-300", ValueError, {"temperature": 1e-300}),
    ("temperature is 9.9.*e-41", ValueError, {"temperature": torch.tensor(1e-40)}),
    ("positive", TypeError, {"positive": 2.0}),
    ("negative", TypeError, {"negative": "ft"}),
    ("columns", ValueError, {"columns": "all"}),
    ("columns", ValueError, {"columns": "union"}),
    ("columns", ValueError, {**FT, "columns": "queue"}),
    ("anchor", ValueError, {"anchor": "key"}),
    ("reduction", ValueError, {"reduction": "max"}),
    ("rng", ValueError, {"rng": "world"}),
    ("weight", ValueError, {"weight": torch.ones(N + 1)}),
    ("weight", TypeError, {"weight": torch.ones(N, dtype=torch.float64)}),
    ("weight", TypeError, {"weight": [1.0] * N}),
    ("weight requires a gradient", ValueError, {"weight": torch.ones(N, requires_grad=True)}),
    ("lambda_pos", ValueError, {"lambda_pos": torch.ones(N)}),
    ("lambda_pos", ValueError, {"lambda_pos": torch.ones(K, 1)}),
    ("lambda_pos", ValueError, {"lambda_pos": torch.ones(N, 1), "positive": Mix(1.0, per="element")}),
    ("lambda_pos", TypeError, {"lambda_pos": torch.ones(1, dtype=torch.float64)}),
    ("lambda_neg", ValueError, {"lambda_neg": torch.ones(N, 1), "seed": 1}),
    ("lambda_neg", TypeError, {"lambda_neg": "0.5", "seed": 1}),
    ("permutation", ValueError, {"permutation": torch.randperm(K)}),
    ("permutation", ValueError, {**GIVEN_NEGATIVE, "permutation": torch.randperm(K + 1)}),
    ("permutation", TypeError, {**GIVEN_NEGATIVE, "permutation": torch.rand(K)}),
    ("permutation", TypeError, {**GIVEN_NEGATIVE, "permutation": list(range(K))}),
    ("permutation", ValueError, {**GIVEN_NEGATIVE, "permutation": double_zero()}),
    ("permutation", ValueError, {**GIVEN_NEGATIVE, "permutation": torch.arange(K) + 1}),
    ("permutation", ValueError, {**GIVEN_NEGATIVE, "permutation": torch.arange(K) - 1}),
    ("permutation", ValueError, {**GIVEN_NEGATIVE, "permutation": torch.arange(K) + (torch.arange(K) == 0) * 2**32}),
    ("seed", TypeError, {**FT, "seed": 1.5}),
    ("seed", ValueError, {**FT, "seed": -1}),
    ("seed", ValueError, {**FT, "seed": 2**64}),
    ("seed", ValueError, {**FT, "seed": torch.zeros(2, dtype=torch.int64)}),
    ("offset", ValueError, {**FT, "offset": 6}),
    ("offset", TypeError, {**FT, "offset": 1.0}),
    ("offset", ValueError, {**FT, "offset": -4}),
]


@pytest.mark.parametrize(("words", "kind", "wrong"), WRONG)
def test_info_nce(words, kind, wrong):
    q, k, negatives = batch(N, K, D)
    arguments = {"q": q, "k": k, "negatives": negatives, **wrong}
    with pytest.raises(kind, match=words) as raised:
        info_nce(**arguments)
    assert not C_NAMES.search(str(raised.value))


@pytest.mark.parametrize(
    ("words", "kind", "wrong"),
    [
        ("alpha", ValueError, {"alpha": 0.0}),
        ("alpha", ValueError, {"alpha": math.inf}),
        ("alpha", TypeError, {"alpha": "2"}),
        ("shift", ValueError, {"alpha": 1.0, "shift": math.nan}),
        ("per", ValueError, {"alpha": 1.0, "per": "column"}),
    ],
)
def test_mix(words, kind, wrong):
    with pytest.raises(kind, match=words):
        Mix(**wrong)


@pytest.mark.parametrize(
    ("words", "kind", "wrong"),
    [
        ("preset", ValueError, {"preset": "simclr"}),
        ("positive", TypeError, {"positive": 1}),
        ("columns", ValueError, {"columns": "union"}),
        ("anchor", ValueError, {"anchor": ""}),
        ("reduction", ValueError, {"reduction": None}),
        ("temperature", TypeError, {"temperature": None}),
    ],
)
def test_module(words, kind, wrong):
    with pytest.raises(kind, match=words):
        InfoNCE(**wrong)


def test_module_refuses_an_option_that_does_not_exist():
    with pytest.raises(TypeError, match="temprature"):
        InfoNCE()(*batch(), temprature=0.1)


@pytest.mark.parametrize(
    ("words", "kind", "keys"),
    [
        ("keys", TypeError, [[0.0]]),
        ("keys", TypeError, torch.zeros(2, 4, dtype=torch.float64)),
        ("keys", ValueError, torch.zeros(2, 5)),
        ("keys", ValueError, torch.zeros(4)),
        ("keys is on meta", ValueError, torch.zeros(2, 4, device="meta")),
    ],
)
def test_push(words, kind, keys):
    queue = Queue(8, 4)
    before = queue.queue.clone()
    with pytest.raises(kind, match=words):
        queue.push(keys)
    assert torch.equal(queue.queue, before) and queue.position.item() == 0


@pytest.mark.parametrize(
    ("words", "kind", "sizes"),
    [("size", ValueError, (0, 4)), ("features", ValueError, (4, 0)), ("size", TypeError, (4.0, 4))],
)
def test_queue(words, kind, sizes):
    with pytest.raises(kind, match=words):
        Queue(*sizes)


@pytest.mark.parametrize(
    ("words", "kind", "call"),
    [
        ("side", ValueError, lambda: flashnce.sample_lambda("both", Mix(1.0), 4, 4, seed=1)),
        ("mix", TypeError, lambda: flashnce.sample_lambda("positive", None, 4, 4, seed=1)),
        ("seed", TypeError, lambda: flashnce.sample_lambda("positive", Mix(1.0), 4, 4, seed=None)),
        ("offset", ValueError, lambda: flashnce.sample_lambda("positive", Mix(1.0), 4, 4, seed=1, offset=2)),
        ("^rows is 0", ValueError, lambda: flashnce.sample_lambda("positive", Mix(1.0), 0, 4, seed=1)),
        ("^k is -1", ValueError, lambda: flashnce.permutation(-1, seed=1)),
        ("seed", ValueError, lambda: flashnce.permutation(4, seed=2**64)),
    ],
)
def test_inspection(words, kind, call):
    with pytest.raises(kind, match=words) as raised:
        call()
    assert not C_NAMES.search(str(raised.value))


def test_every_field_of_the_c_interface_has_a_name_of_python():
    """A sentence of the library names a field of its structs; what Python says instead is no field of a struct."""
    structs = {
        "problem": _library.Problem, "args": _library.Args, "push": _library.Push, "pairs": _library.Pairs,
        "anchors": _library.Anchors,
    }  # fmt: skip
    fields = {f"{name}.{field}" for name, struct in structs.items() for field, _ in struct._fields_}
    assert not (set(_names.PYTHON_NAMES) | set(_names.PAIR_NAMES)) - fields
    for field in fields:
        sentence = _names.in_python(f"{field} is 3; it must be 0 where {field} is 1")
        assert not C_NAMES.search(sentence) and sentence.endswith("is 1")
    assert _names.in_python("args.mixed.pos is NULL") == "mixed.pos is NULL"


def test_an_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="infonce"):
        flashnce.infonce  # noqa: B018


@pytest.mark.skipif(_library.device_count(_library.CUDA) > 0, reason="there is a CUDA device")
def test_cuda_where_there_is_none():
    options = dict.fromkeys(_options.PLAN_FIELDS, 0)
    options |= {"n": N, "k": K, "d": D, "device": _library.CUDA, "feature_type": 1}
    options |= {"queue_type": 1, "gradient_type": 1}
    with pytest.raises(ValueError, match="device"):
        _options.plan_for(tuple(options.values()))
