"""flashnce.jax.info_nce beside flashnce.torch.info_nce: the same numbers bit for bit, under JAX's transformations.

Both run on the CPU backend, whose results depend on no thread, so that nothing here has a tolerance but what XLA adds
up.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_device
from support import batch
from test_loss import MIXES

if not torch_device.is_cpu():
    pytest.skip("the handlers lie beside the library of the CPU backend alone", allow_module_level=True)
if sys.version_info < (3, 11):
    pytest.skip("the JAX of tools/requirements.txt needs Python 3.11", allow_module_level=True)

import jax
import jax.numpy as jnp

# Before anything asks for devices, which then stay as they are.
jax.config.update("jax_num_cpu_devices", 2)

import flashnce  # noqa: E402
import flashnce.torch  # noqa: E402
from flashnce import _library as c  # noqa: E402
from flashnce.jax import Mix, info_nce  # noqa: E402
from jax.sharding import Mesh, PartitionSpec as P  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FT = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6)}
TYPES = ("float32", "float16", "bfloat16")


def arrays(n: int = 24, k: int = 80, d: int = 12, types=("float32", "float32")) -> list[jax.Array]:
    q, key, negatives = (jnp.asarray(x.detach().numpy()) for x in batch(n, k, d))
    return [q.astype(types[0]), key.astype(types[0]), negatives.astype(types[1])]


def tensor(array: jax.Array) -> torch.Tensor:
    return torch.tensor(np.asarray(array.astype(jnp.float32))).to(getattr(torch, array.dtype.name))


def bits(value) -> np.ndarray:
    value = value.detach().float().numpy() if isinstance(value, torch.Tensor) else np.asarray(value.astype(jnp.float32))
    return value.view(np.uint32)


def equal(ours, theirs, what: str) -> None:
    assert np.array_equal(bits(ours), bits(theirs)), what


def of_torch(q, k, negatives, temperature: float = 0.2, upstream: jax.Array | None = None, **options):
    """flashnce.torch.info_nce of the same arrays: loss, gradients of q, k and the temperature, Scores."""
    q, k = tensor(q).requires_grad_(), tensor(k).requires_grad_()
    tau = torch.tensor(temperature, requires_grad=True)
    options = {name: tensor(x) if isinstance(x, jax.Array) else x for name, x in options.items()}
    loss, scores = flashnce.torch.info_nce(
        q, k, tensor(negatives), temperature=tau, detach_key=False, return_scores=True, **options
    )
    return loss, torch.autograd.grad(loss, (q, k, tau), None if upstream is None else tensor(upstream)), scores


def of_jax(q, k, negatives, temperature: float = 0.2, upstream: jax.Array | None = None, **options):
    def loss_and_scores(q, k, tau):
        loss, scores = info_nce(q, k, negatives, temperature=tau, detach_key=False, return_scores=True, **options)
        return loss, scores

    loss, pull, scores = jax.vjp(loss_and_scores, q, k, jnp.float32(temperature), has_aux=True)
    return loss, pull(jnp.ones_like(loss) if upstream is None else upstream), scores


def compare(q, k, negatives, **options) -> None:
    ours, theirs = (call(q, k, negatives, seed=5, **options) for call in (of_jax, of_torch))
    equal(ours[0], theirs[0], "loss")
    for name, mine, other in zip(("dq", "dk"), ours[1], theirs[1]):
        assert mine.dtype.name == q.dtype.name
        equal(mine, other, name)
    # Where it has an upstream gradient per row, XLA and PyTorch add in orders of their own.
    assert float(ours[1][2]) == pytest.approx(theirs[1][2].item(), rel=1e-5)
    for mine, other in ((ours[2].mixed, theirs[2].mixed), (ours[2].unmixed, theirs[2].unmixed)):
        assert set(mine) == {name for name, value in other._asdict().items() if value is not None}
        for name, value in mine.items():
            equal(value, getattr(other, name), name)


@pytest.mark.parametrize("anchor", ["mixed", "query"])
@pytest.mark.parametrize("mixes", MIXES)
def test_bits_are_those_of_pytorch(mixes, anchor):
    compare(*arrays(), positive=mixes[0], negative=mixes[1], anchor=anchor)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_reductions_weights_and_upstream_gradients(reduction, weighted):
    own = np.random.default_rng(1)
    weight = jnp.asarray(own.random(24, np.float32)) if weighted else None
    upstream = jnp.asarray(own.standard_normal(24, np.float32)) if reduction == "none" else jnp.float32(-1.7)
    compare(*arrays(), reduction=reduction, weight=weight, upstream=upstream, columns="union", **FT)


@pytest.mark.parametrize("queue_type", TYPES)
@pytest.mark.parametrize("feature_type", TYPES)
def test_element_types(feature_type, queue_type):
    compare(*arrays(types=(feature_type, queue_type)), **FT)


def test_two_types_of_features():
    q, k, negatives = arrays()
    loss, dq = jax.value_and_grad(lambda q: info_nce(q, k, negatives))(q.astype(jnp.bfloat16))
    assert dq.dtype == jnp.bfloat16 and loss == info_nce(q.astype(jnp.bfloat16).astype(jnp.float32), k, negatives)


def test_denormal_losses_are_not_flushed():
    """XLA's threads flush denormals, which would make results depend on who computes a row."""
    q = jnp.eye(8, dtype=jnp.float32)
    loss = info_nce(q, q, -q[:1], temperature=1 / 95.0, reduction="none")
    theirs = flashnce.torch.info_nce(tensor(q), tensor(q), tensor(-q[:1]), temperature=1 / 95.0, reduction="none")
    assert 0 < np.asarray(loss).view(np.uint32)[1] < np.float32(2**-126).view(np.uint32)
    equal(loss, theirs, "loss")


SEEDS = {
    "a number": (5, 5),
    "a large number": (2**64 - 3, 2**64 - 3),
    "NumPy's int64": (np.int64(2**40), 2**40),
    "NumPy's array": (np.array(2**40), 2**40),
    "an array": (lambda: jnp.int32(5), 5),
    "a negative one": (lambda: jnp.int32(-3), 2**64 - 3),
    "a key": (lambda: jax.random.key(5), 5),
    "words of a key": (lambda: jax.random.PRNGKey(5), 5),
    "a key of two words": (lambda: jax.random.wrap_key_data(jnp.array([256, 7], jnp.uint32)), 2**40 + 7),
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_and_offsets_draw_what_they_draw_elsewhere(name):
    seed, number = SEEDS[name]
    seed, (q, k, negatives) = seed() if callable(seed) else seed, arrays()
    mix = Mix(1.6, per="row")
    given = {
        "lambda_neg": flashnce.sample_lambda("negative", mix, 80, 12, seed=number, offset=8),
        "permutation": flashnce.permutation(80, seed=number, offset=8),
    }
    theirs = flashnce.torch.info_nce(tensor(q), tensor(k), tensor(negatives), negative=mix, seed=number, offset=8)
    for offset in (8, jnp.int32(8)):
        equal(info_nce(q, k, negatives, negative=mix, seed=seed, offset=offset), theirs, "loss")
    # A given permutation is mixed while rows are packed, a drawn one as scores.
    assert float(info_nce(q, k, negatives, **given)) == pytest.approx(theirs.item(), rel=1e-5)


def test_one_program_for_all_seeds_temperatures_and_offsets():
    q, k, negatives = arrays()
    traced = []

    @jax.jit
    def step(q, temperature, seed, offset):
        traced.append(1)
        return jax.value_and_grad(
            lambda q: info_nce(q, k, negatives, temperature=temperature, seed=seed, offset=offset, **FT)
        )(q)

    for temperature, seed, offset in ((0.2, 1, 0), (0.1, 2, 4), (0.07, 3, 400)):
        loss, dq = step(q, temperature, seed, offset)
        theirs, gradients, _ = of_torch(q, k, negatives, temperature, seed=seed, offset=offset, **FT)
        equal(loss, theirs, "loss")
        equal(dq, gradients[0], "dq")
    assert len(traced) == 1


def test_scan_and_checkpoint():
    q, k, negatives = arrays()
    losses = jax.lax.scan(lambda _, seed: (None, info_nce(q, k, negatives, seed=seed, **FT)), None, jnp.arange(3))[1]
    for seed, loss in enumerate(losses):
        equal(loss, info_nce(q, k, negatives, seed=seed, **FT), "loss")
    loss_of = lambda q: info_nce(q, k, negatives, seed=1, **FT)  # noqa: E731
    equal(jax.grad(jax.checkpoint(loss_of))(q), jax.grad(loss_of)(q), "dq")


def test_no_negatives_and_a_row_of_weight_zero():
    q, k, negatives = arrays()
    assert info_nce(q, k, negatives[:0]) == 0
    weight = jnp.ones(24).at[3].set(0)
    loss, dq = jax.value_and_grad(lambda q: info_nce(q, k, negatives, weight=weight))(q.at[3].set(jnp.nan))
    assert jnp.isfinite(loss) and not dq[3].any()


def test_pieces_of_a_batch_draw_what_the_whole_batch_draws():
    q, k, negatives = arrays()
    options = {"positive": Mix(2.0, shift=1.0, per="row"), "seed": 3, "reduction": "none"}
    whole = info_nce(q, k, negatives, **options)
    # Another number of rows is another tiling, by which sums round differently.
    second = info_nce(q[12:], k[12:], negatives, row_offset=12, **options)
    assert np.allclose(second, whole[12:], rtol=1e-5)
    assert not np.allclose(info_nce(q[12:], k[12:], negatives, **options), whole[12:], rtol=1e-3)


@pytest.mark.parametrize("check", [True, False])
def test_rows_spread_by_shard_map(check):
    q, k, negatives = arrays()
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    options = {"seed": 3, **FT}

    def local(q, k, negatives, tau):
        loss = info_nce(q, k, negatives, temperature=tau, reduction="sum", **options)
        return jax.lax.psum(loss, "data") / 24

    spread = jax.shard_map(
        local, mesh=mesh, in_specs=(P("data"), P("data"), P(), P()), out_specs=P(), check_vma=check
    )
    whole = lambda q, tau: info_nce(q, k, negatives, temperature=tau, **options)  # noqa: E731
    tau = jnp.float32(0.2)
    loss, gradients = jax.jit(jax.value_and_grad(lambda q, tau: spread(q, k, negatives, tau), (0, 1)))(q, tau)
    expected, wanted = jax.value_and_grad(whole, (0, 1))(q, tau)
    # The rows' losses are added in another order.
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    for mine, other in zip(gradients, wanted):
        assert np.allclose(mine, other, rtol=1e-5, atol=1e-7)


def test_only_what_is_differentiated_is_computed():
    q, k, negatives = arrays()
    loss_of = lambda q, k, **options: info_nce(q, k, negatives, **options)  # noqa: E731
    with pytest.raises(ValueError, match="k requires a gradient and detach_key is None"):
        jax.grad(loss_of, 1)(q, k)
    assert not jax.grad(loss_of, 1)(q, k, detach_key=True).any()
    assert not jax.grad(lambda k: loss_of(q, jax.lax.stop_gradient(k)))(k).any()
    # The shapes of the gradients that the handler writes say what it computes.
    written = str(jax.make_jaxpr(jax.grad(loss_of))(q, k))
    call = re.search(r"(\S+:f32\[\]) (\S+:f32\[24,12\]) (\S+:f32\[0\]) (\S+:f32\[0\])[^=]*= ffi_call", written)
    assert call, written
    assert "f32[24,12]" not in re.search(r".*= ffi_call", str(jax.make_jaxpr(loss_of)(q, k)))[0]


def test_what_has_no_derivative_says_so():
    q, k, negatives = arrays()
    loss_of = lambda q: info_nce(q, k, negatives)  # noqa: E731
    for batched in (loss_of, jax.grad(loss_of), jax.jit(loss_of)):
        with pytest.raises(NotImplementedError, match="is not batched by jax.vmap.*; put the rows of"):
            jax.vmap(batched)(q[None])
    for twice in (jax.hessian(loss_of), jax.grad(lambda q: jax.grad(loss_of)(q).sum())):
        with pytest.raises(NotImplementedError, match="no second one and no forward mode"):
            twice(q)
    with pytest.raises(ValueError, match="negatives is differentiated, and the loss has no gradient for it; apply"):
        jax.grad(lambda negatives: info_nce(q, k, negatives))(negatives)
    with pytest.raises(ValueError, match="weight is differentiated"):
        jax.grad(lambda weight: info_nce(q, k, negatives, weight=weight))(jnp.ones(24))


N, K, D = 24, 80, 12
WRONG = [
    ("q is a list; it must be an array", TypeError, {"q": [[1.0]]}),
    ("q has type int32; it must be float32, float16 or bfloat16", TypeError, {"q": np.zeros((N, D), np.int32)}),
    ("flashnce.reference.info_nce computes in float64", TypeError, {"q": np.zeros((N, D))}),
    ("q has shape", ValueError, {"q": np.zeros(D, np.float32)}),
    ("q has shape", ValueError, {"q": np.zeros((N, 0), np.float32)}),
    ("k has shape", ValueError, {"k": np.zeros((N - 1, D), np.float32)}),
    ("negatives has shape", ValueError, {"negatives": np.zeros((K, D + 1), np.float32)}),
    ("temperature is a str", TypeError, {"temperature": "a"}),
    ("temperature is 0", ValueError, {"temperature": 0}),
    ("temperature is inf", ValueError, {"temperature": float("inf")}),
    ("temperature has shape", ValueError, {"temperature": np.ones(2, np.float32)}),
    ("temperature has type int32", TypeError, {"temperature": np.ones(1, np.int32)}),
    ("normalize is a int", TypeError, {"normalize": 1}),
    ("positive is a float", TypeError, {"positive": 1.0}),
    ("columns is 'union'", ValueError, {"columns": "union"}),
    ("anchor is 'k'", ValueError, {"anchor": "k"}),
    ("detach_key is a int", TypeError, {"detach_key": 1}),
    ("reduction is 'max'", ValueError, {"reduction": "max"}),
    ("weight has shape", ValueError, {"weight": np.ones(N + 1, np.float32)}),
    ("weight has type float64; it must be float32", TypeError, {"weight": np.ones(N)}),
    ("lambda_pos has shape", ValueError, {"lambda_pos": np.ones(N, np.float32)}),
    ("lambda_neg is a str", TypeError, {"lambda_neg": "a"}),
    ("permutation is given", ValueError, {"permutation": np.arange(K)}),
    ("permutation has shape", ValueError, {"negative": Mix(1.0), "seed": 1, "permutation": np.arange(K + 1)}),
    ("permutation has type float32", TypeError, {"negative": Mix(1.0), "permutation": np.ones(K, np.float32)}),
    ("seed is None", ValueError, {"negative": Mix(1.0)}),
    ("seed is a float", TypeError, {"negative": Mix(1.0), "seed": 1.0}),
    ("seed is -1", ValueError, {"negative": Mix(1.0), "seed": -1}),
    ("seed is float32", TypeError, {"negative": Mix(1.0), "seed": np.ones(1, np.float32)}),
    ("offset is 3", ValueError, {"offset": 3}),
    ("row_offset is -1", ValueError, {"row_offset": -1}),
    ("threads is 5000", ValueError, {"threads": 5000}),
]


@pytest.mark.parametrize(("words", "kind", "wrong"), WRONG)
def test_errors(words, kind, wrong):
    with pytest.raises(kind, match=re.escape(words)):
        info_nce(**{**dict(zip(("q", "k", "negatives"), arrays())), **wrong})


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("temperature is -1; allowed: finite numbers > 0", {"temperature": jnp.float32(-1)}),
        ("offset is 3; allowed: multiples of 4", {"offset": jnp.int32(3), "seed": 1, "negative": Mix(1.0)}),
        ("permutation", {"lambda_neg": 0.5, "permutation": jnp.zeros(K, jnp.int32)}),
    ],
)
def test_what_only_values_show_is_said_by_the_library(words, options):
    with pytest.raises(Exception, match=f"INVALID_ARGUMENT: .*{re.escape(words)}"):
        jax.block_until_ready(jax.jit(lambda *arrays: info_nce(*arrays, **options))(*arrays()))


def test_the_recipe_in_the_documents_runs():
    found = re.findall(r"<!-- example: python -->\s*```python\n(.*?)```", (ROOT / "docs/jax.md").read_text(), re.S)
    assert len(found) == 3
    for example in found:
        exec(compile(example, "docs/jax.md", "exec"), {"jax": jax, "jnp": jnp})


def run(code: str, **environment: str) -> str:
    return subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True,
                          timeout=120).stderr  # fmt: skip


def test_the_package_imports_without_jax_and_says_what_is_missing(tmp_path):
    assert run("import sys; sys.modules['jax'] = None; import flashnce, flashnce.torch") == ""
    library = shutil.copy(c.PATH, tmp_path / "libflashnce.so")
    wrong = run("import flashnce.jax", FLASHNCE_LIBRARY=str(library))
    assert "libflashnce_jax.so is missing" in wrong and "FLASHNCE_JAX_INCLUDE" in wrong


def test_handlers_of_a_newer_jaxlib_are_refused_before_they_are_registered(tmp_path):
    header = tmp_path / "xla/ffi/api/c_api.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define XLA_FFI_API_MAJOR 0\n#define XLA_FFI_API_MINOR 0\n")
    wrong = run(f"import jax; jax.ffi.include_dir = lambda: {str(tmp_path)!r}; import flashnce.jax")
    assert re.search(r"ImportError: .* built with the headers of a newer jaxlib, .* 0\.\d+, than this one, 0\.0", wrong)


def test_the_handlers_call_the_library_that_is_loaded(tmp_path):
    (tmp_path / "libflashnce_jax.so").write_bytes(c.PATH.with_name("libflashnce_jax.so").read_bytes())
    library = shutil.copy(c.PATH, tmp_path / "libflashnce.so")
    code = "import flashnce.jax; print(*{l.split()[-1] for l in open('/proc/self/maps') if 'libflashnce' in l})"
    found = subprocess.run([sys.executable, "-c", code], env=os.environ | {"FLASHNCE_LIBRARY": str(library)},
                           capture_output=True, text=True, timeout=120).stdout  # fmt: skip
    assert {str(library), str(tmp_path / "libflashnce_jax.so")} == set(found.split())
