"""Columns beyond the queue in flashnce.jax.info_nce, beside flashnce.torch.info_nce: the same numbers bit for bit."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

# Skips this file where JAX is not to be had.
from test_jax import FT, TYPES, arrays, equal, tensor

import jax
import jax.numpy as jnp

import flashnce.torch
from flashnce.jax import NO_COLUMN, Mix, info_nce
from jax.sharding import Mesh, PartitionSpec as P

N, K, C, D, TAU = 24, 80, 37, 12, 0.2
own = np.random.default_rng(5)
IDS = {name: own.integers(0, 6, size) for name, size in (("ids", N), ("negative_ids", K), ("batch_ids", C))}
IDS["ids"][-1] = IDS["negative_ids"][::9] = IDS["batch_ids"][::7] = NO_COLUMN
BIASES = {name: own.standard_normal(size).astype(np.float32) for name, size in (("bias", K), ("batch_bias", C))}
BIASES["bias"][3:6] = BIASES["batch_bias"][5] = -np.inf
OPTIONS = {
    "a batch": {},
    "ids": IDS,
    "bias": BIASES,
    "margin": {"margin": 0.05},
    "decoupled": {"form": "decoupled"},
    "everything": {**IDS, **BIASES, "margin": 0.05, "form": "decoupled"},
    "beside mixed negatives": {**IDS, "margin": 0.1, **FT, "columns": "union", "seed": 5},
}


def columns(types=("float32", "float32")) -> list[jax.Array]:
    """q, k, negatives and batch columns near q."""
    q, k, negatives = arrays(N, K, D, types)
    noise = np.random.default_rng(4).standard_normal((C, D)).astype(np.float32)
    return [q, k, negatives, (q[jnp.arange(C) % N] + 0.7 * noise).astype(types[0])]


def in_torch(options: dict) -> dict:
    return {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}


def compare(q, k, negatives, x_c, upstream=None, **options) -> None:
    leaves = [tensor(x).requires_grad_() for x in (q, k, x_c)]
    rows = None if negatives is None else tensor(negatives)
    theirs, scores = flashnce.torch.info_nce(
        *leaves[:2], rows, batch=leaves[2], temperature=TAU, detach_key=False, return_scores=True, **in_torch(options)
    )
    wanted = torch.autograd.grad(theirs, leaves, None if upstream is None else torch.from_numpy(upstream))

    def loss_of(q, k, x_c):
        return info_nce(
            q, k, negatives, batch=x_c, temperature=TAU, detach_key=False, return_scores=True, **options
        )

    loss, pull, ours = jax.vjp(loss_of, q, k, x_c, has_aux=True)
    equal(loss, theirs, "loss")
    found = pull(jnp.ones_like(loss) if upstream is None else jnp.asarray(upstream))
    for name, mine, other in zip(("dq", "dk", "dx_c"), found, wanted):
        assert mine.dtype.name == q.dtype.name
        equal(mine, other, name)
    assert jnp.abs(found[2].astype(jnp.float32)).max() > 1e-6
    for mine, other in ((ours.mixed, scores.mixed), (ours.unmixed, scores.unmixed)):
        assert set(mine) == {name for name, value in other._asdict().items() if value is not None}
        for name, value in mine.items():
            equal(value, getattr(other, name), name)


@pytest.mark.parametrize("queue", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_bits_are_those_of_pytorch(name, queue):
    q, k, negatives, x_c = columns()
    options = dict(OPTIONS[name])
    if not queue:
        if "negative" in options:
            return
        negatives = None
        options = {key: value for key, value in options.items() if key not in ("negative_ids", "bias")}
    compare(q, k, negatives, x_c, **options)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_upstream_gradients_and_weights(reduction):
    weight = np.random.default_rng(1).random(N).astype(np.float32)
    weight[4] = 0
    size = N if reduction == "none" else ()
    upstream = np.float32(np.random.default_rng(2).standard_normal(size))
    compare(*columns(), upstream=np.asarray(upstream), reduction=reduction, weight=weight, **OPTIONS["everything"])


@pytest.mark.parametrize("queue_type", TYPES)
@pytest.mark.parametrize("feature_type", TYPES)
def test_element_types(feature_type, queue_type):
    compare(*columns((feature_type, queue_type)), **IDS, margin=0.05)


@pytest.mark.parametrize("options", [{}, {"ids": np.arange(N) // 2}, {"ids": jnp.arange(N) // 2}])
def test_the_batch_itself_gives_the_key_both_gradients(options):
    q, k, *_ = columns()
    loss, found = jax.jit(jax.value_and_grad(lambda q, k: info_nce(q, k, batch=True, **options), (0, 1)))(q, k)
    leaves = [tensor(x).requires_grad_() for x in (q, k)]
    given = {name: torch.from_numpy(np.asarray(x)) for name, x in options.items()}
    theirs = flashnce.torch.info_nce(*leaves, batch=True, **given)
    equal(loss, theirs, "loss")
    for mine, other in zip(found, torch.autograd.grad(theirs, leaves)):
        # Both packages add the two gradients of a key.
        assert np.allclose(mine, other.numpy(), rtol=1e-6, atol=1e-8)
    detached = jax.grad(lambda q, k: info_nce(q, k, batch=True, detach_key=True, **options), (0, 1))(q, k)
    assert np.array_equal(detached[0], found[0]) and not detached[1].any()


def test_ids_of_every_integer_type_and_the_id_of_nobody():
    q, k, negatives, _ = columns()
    numbers = np.arange(K) % 7
    losses = [
        info_nce(q, k, negatives, ids=jnp.arange(N) % 5, negative_ids=ids)
        for ids in (jnp.asarray(numbers), numbers, numbers.astype(np.int32))
    ]
    assert losses[0] == losses[1] == losses[2] != info_nce(q, k, negatives)
    large = numbers + 2**40
    far = info_nce(q, k, negatives, ids=jnp.arange(N) % 5, negative_ids=large)
    assert far == info_nce(q, k, negatives)
    nobody = info_nce(q, k, negatives, ids=np.arange(N), negative_ids=np.full(K, NO_COLUMN))
    assert nobody == 0
    negative = info_nce(q, k, negatives, ids=-jnp.arange(N), negative_ids=-numbers)
    assert negative == info_nce(q, k, negatives, ids=np.arange(N), negative_ids=numbers)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_no_rows_and_no_columns(reduction):
    q, k, negatives, x_c = columns()
    none = q[:0]
    loss, scores = info_nce(none, none, negatives, batch=True, reduction=reduction, return_scores=True)
    theirs = flashnce.torch.info_nce(tensor(none), tensor(none), tensor(negatives), batch=True, reduction=reduction)
    assert np.array_equal(loss, theirs.numpy(), equal_nan=True) and scores.mixed["pos"].shape == (0,)
    found = jax.grad(lambda q, k, x: info_nce(q, k, batch=x, reduction="sum", detach_key=False), (0, 1, 2))(
        none, none, x_c
    )
    assert found[0].shape == found[1].shape == (0, D) and found[2].shape == (C, D) and not found[2].any()
    empty = jax.grad(lambda x: info_nce(q, k, negatives, batch=x, detach_key=True))(x_c[:0])
    assert empty.shape == (0, D)


def test_a_jitted_step_whose_ids_and_bias_are_traced():
    q, k, negatives, x_c = columns()
    traced = []

    @jax.jit
    def step(x_c, ids, bias):
        traced.append(1)
        options = {"ids": ids, "negative_ids": jnp.arange(K), "batch_ids": jnp.arange(C), "batch_bias": bias}
        return jax.value_and_grad(lambda x: info_nce(q, k, negatives, batch=x, detach_key=True, **options))(x_c)

    for shift in (0, 3):
        ids, bias = jnp.arange(N) + shift, jnp.ones(C) * shift
        loss, gradient = step(x_c, ids, bias)
        leaf = tensor(x_c).requires_grad_()
        theirs = flashnce.torch.info_nce(
            tensor(q), tensor(k), tensor(negatives), batch=leaf, ids=torch.arange(N) + shift,
            negative_ids=torch.arange(K), batch_ids=torch.arange(C), batch_bias=torch.ones(C) * shift,
        )  # fmt: skip
        equal(loss, theirs, "loss")
        equal(gradient, torch.autograd.grad(theirs, leaf)[0], "dx_c")
    assert len(traced) == 1


def test_each_device_has_a_batch_of_its_own_under_shard_map():
    q, k, *_ = columns()
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    def local(q, k):
        return jax.lax.psum(info_nce(q, k, batch=True, reduction="sum"), "data")

    spread = jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())
    loss, found = jax.jit(jax.value_and_grad(spread, (0, 1)))(q, k)
    both = lambda q, k: sum(  # noqa: E731
        info_nce(q[i : i + 12], k[i : i + 12], batch=True, reduction="sum") for i in (0, 12)
    )
    expected, wanted = jax.value_and_grad(both, (0, 1))(q, k)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    for mine, other in zip(found, wanted):
        assert np.allclose(mine, other, rtol=1e-5, atol=1e-7)


def test_what_has_no_derivative_says_so():
    q, k, negatives, x_c = columns()
    loss_of = lambda x: info_nce(q, k, batch=x, detach_key=True)  # noqa: E731
    with pytest.raises(NotImplementedError, match="no second one"):
        jax.grad(lambda x: jax.grad(loss_of)(x).sum())(x_c)
    with pytest.raises(NotImplementedError, match="is not batched by jax.vmap"):
        jax.vmap(jax.grad(loss_of))(x_c[None])
    with pytest.raises(ValueError, match="bias is differentiated"):
        jax.grad(lambda bias: info_nce(q, k, negatives, bias=bias))(jnp.zeros(K))
    with pytest.raises(ValueError, match="negatives is differentiated.*are batch="):
        jax.grad(lambda z: info_nce(q, k, z))(negatives)


WRONG = [
    ("negatives is None and batch is None", ValueError, {"negatives": None}),
    ("batch is False", TypeError, {"batch": False}),
    ("batch has shape", ValueError, {"batch": np.zeros((3, D + 1), np.float32)}),
    ("batch has type", TypeError, {"batch": np.zeros((3, D))}),
    ("ids is a list", TypeError, {"ids": [1]}),
    ("ids has type float32", TypeError, {"batch": True, "negatives": None, "ids": np.zeros(N, np.float32)}),
    ("ids has shape", ValueError, {"batch": True, "negatives": None, "ids": np.arange(N + 1)}),
    ("ids is given but the negatives have none", ValueError, {"ids": np.arange(N)}),
    ("batch_ids is given but batch is None", ValueError, {"batch_ids": np.arange(N)}),
    ("bias has shape", ValueError, {"bias": np.zeros(3, np.float32)}),
    ("bias has type float64", TypeError, {"bias": np.zeros(K)}),
    ("batch_bias is given but batch is None", ValueError, {"batch_bias": np.zeros(N, np.float32)}),
    ("margin is a str", TypeError, {"margin": "0.1"}),
    ("form is 'dcl'", ValueError, {"form": "dcl"}),
    ("temperature is 1e-39; it must be at least", ValueError, {"temperature": 1e-39}),
]


@pytest.mark.parametrize(("words", "kind", "wrong"), WRONG)
def test_errors(words, kind, wrong):
    with pytest.raises(kind, match=re.escape(words)):
        info_nce(**{**dict(zip(("q", "k", "negatives"), columns())), **wrong})


def test_what_only_values_show_is_said_by_the_library():
    with pytest.raises(Exception, match="INVALID_ARGUMENT: .*margin is nan"):
        jax.block_until_ready(info_nce(*columns()[:3], margin=float("nan")))
