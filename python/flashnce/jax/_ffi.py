"""The foreign function: the handlers are registered here, called, and differentiated."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _library as c
from .._library import FLOAT_SCORES, INT_SCORES, LOSS_SCORES
from .._names import PYTHON_NAMES
from .._options import key_is_detached

_TARGET, _COLUMNS_TARGET = "flashnce_info_nce", "flashnce_columns_backward"


def _api_version() -> int | None:
    """The version of the interface that this jaxlib has, by its own header; it takes handlers of this one and older."""
    header = Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h"
    text = header.read_text() if header.is_file() else ""
    numbers = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", text))
    return int(numbers["MAJOR"]) * 1000 + int(numbers["MINOR"]) if len(numbers) == 2 else None


def _register() -> None:
    """Tells XLA of the handlers, which call the library that Python has loaded."""
    path = c.PATH.with_name("libflashnce_jax.so")
    if not path.is_file():
        raise ImportError(
            f"{path} is missing: this flashnce was built where jaxlib's headers were not found; install jaxlib, then "
            "build flashnce with pip install --no-build-isolation, or with FLASHNCE_JAX_INCLUDE set to what "
            "jax.ffi.include_dir() returns"
        )
    handlers = ctypes.CDLL(str(path))
    handlers.flashnce_jax_bind.restype = ctypes.c_char_p
    handlers.flashnce_jax_bind.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    names = "\n".join(f"{field}={name}" for field, name in PYTHON_NAMES.items())
    if wrong := handlers.flashnce_jax_bind(str(c.PATH).encode(), names.encode()):
        raise ImportError(f"{path} cannot use {c.PATH}: {wrong.decode()}")
    built, found = handlers.flashnce_jax_api_version(), _api_version()
    if found is not None and built > found:
        # Registered all the same, they would take JAX's backend down with them.
        words = [f"{version // 1000}.{version % 1000}" for version in (built, found)]
        raise ImportError(
            f"{path} was built with the headers of a newer jaxlib, XLA's foreign function interface {words[0]}, than "
            f"this one, {words[1]}; update jaxlib, or build flashnce where this one is installed"
        )
    for target, name in ((_TARGET, "info_nce"), (_COLUMNS_TARGET, "columns")):
        for platform in ("cpu", "CUDA"):
            handler = getattr(handlers, f"flashnce_jax_{name}_{platform.lower()}")
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform=platform)


_register()


class Structure(NamedTuple):
    """What is computed, fixed in a compiled program: what the handlers read as `structure`, in their order."""

    normalize: int
    per_pos: int
    given_pos: int
    renormalize_pos: int
    per_neg: int
    given_neg: int
    renormalize_neg: int
    given_permutation: int
    columns: int
    anchor: int
    reduction: int
    scores: int
    row_offset: int
    threads: int
    form: int
    id_mask: int
    column_bias: int
    margin_mask: int


class Static(NamedTuple):
    """What a compiled program depends on besides shapes and types."""

    structure: Structure
    detach_key: bool | None
    feature_type: str
    in_batch: bool
    """Whether the batch columns are the keys."""


class Inputs(NamedTuple):
    """What a call reads, in the order of the handlers; None where nothing is given."""

    q: jax.Array
    k: jax.Array
    negatives: jax.Array
    numbers: jax.Array
    draws: jax.Array
    weight: jax.Array | None
    lambda_pos: jax.Array | None
    lambda_neg: jax.Array | None
    permutation: jax.Array | None
    batch: jax.Array
    ids: jax.Array | None
    negative_ids: jax.Array | None
    batch_ids: jax.Array | None
    bias: jax.Array | None
    batch_bias: jax.Array | None


def _results(structure: Structure, q: jax.Array, need: tuple[bool, ...]) -> list[tuple[tuple[int, ...], type]]:
    """Shape and type of what a handler writes; what is not needed has no elements."""
    n = q.shape[0]
    shape = (n,) if structure.reduction == c.REDUCTION["none"] else ()
    both = 2 if structure.scores & c.SCORES_UNMIXED else 1
    floats = both * len(FLOAT_SCORES) + len(LOSS_SCORES) if structure.scores else 0
    integers = both * len(INT_SCORES) if structure.scores else 0
    return [
        (shape, jnp.float32),
        (q.shape if need[0] else (0,), jnp.float32),
        (q.shape if need[1] else (0,), jnp.float32),
        (shape if need[2] else (0,), jnp.float32),
        ((n,) if need[3] else (0,), jnp.float32),
        ((floats, n), jnp.float32),
        ((integers, n, 2), jnp.uint32),
    ]


def _axes(array: jax.Array) -> tuple[dict, frozenset]:
    """The mesh axes along which an array differs under shard_map, which are a part of its type: as the argument of
    ShapeDtypeStruct, whose name has changed, and as names. Older versions of JAX do not track them."""
    aval = jax.typeof(array)
    if (kind := getattr(aval, "mat", None)) is not None:
        if not kind.varying:
            return {}, frozenset()
        everywhere = jax.sharding.NamedSharding(aval.sharding.mesh, jax.sharding.PartitionSpec())
        return {"manual_axis_type": kind, "sharding": everywhere}, kind.varying
    if (axes := getattr(aval, "vma", None)) is not None:
        return {"vma": axes}, axes
    return {}, frozenset()


def alike_inputs(inputs: Inputs) -> Inputs:
    """Arrays that all differ along the axes of any, as a call of the foreign function wants them."""
    axes = frozenset().union(*(_axes(value)[1] for value in inputs if value is not None))
    if not axes:
        return inputs

    def added(value: jax.Array) -> jax.Array:
        missing = tuple(axes - _axes(value)[1])
        return jax.lax.pcast(value, missing, to="varying") if missing else value

    return jax.tree.map(added, inputs)


def _call(structure: Structure, need: tuple[bool, ...], inputs: Inputs) -> tuple[jax.Array, ...]:
    """The loss, dq, dk, d/dtemperature, log-sum-exps and the packed statistics; `need` says which of dq, dk and
    d/dtemperature are wanted, and whether a gradient of the batch is."""
    return _foreign(_TARGET, structure, _results(structure, inputs.q, need), inputs)


def _columns(structure: Structure, inputs: Inputs, log_sum_exp: jax.Array, upstream: jax.Array) -> jax.Array:
    """Equation (16), by a problem that has no queue."""
    none = dict.fromkeys(("lambda_neg", "permutation", "negative_ids", "bias"))
    inputs = inputs._replace(negatives=inputs.negatives[:0], **none)
    structure = structure._replace(
        per_neg=0, given_neg=0, renormalize_neg=0, given_permutation=0, columns=c.COLUMNS["queue"], scores=c.SCORES_NONE
    )
    result = (inputs.batch.shape, inputs.batch.dtype)
    return _foreign(_COLUMNS_TARGET, structure, [result], (*inputs, log_sum_exp, upstream.reshape(-1)))[0]


def _foreign(target: str, structure: Structure, results: list, inputs: Sequence) -> tuple[jax.Array, ...]:
    """A foreign function, of whose arrays those that are not given are empty."""
    nothing = inputs[Inputs._fields.index("numbers")][:0]
    arrays = [nothing if value is None else value for value in inputs]

    def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        axes, _ = _axes(arrays[0])
        out = [jax.ShapeDtypeStruct(shape, dtype, **axes) for shape, dtype in results]
        return tuple(jax.ffi.ffi_call(target, out)(*arrays, structure=np.array(structure, np.int64)))

    unbatched = jax.custom_batching.custom_vmap(call)
    unbatched.def_vmap(_refuse_vmap)
    once = jax.custom_jvp(unbatched)
    once.defjvp(_refuse_derivative)
    return once(*arrays)


def _refuse_vmap(*_):
    raise NotImplementedError(
        "flashnce.jax.info_nce is not batched by jax.vmap: all rows of a call share its negatives; put the rows of "
        "several batches into one call, or call it in jax.lax.map"
    )


def _refuse_derivative(*_):
    raise NotImplementedError(
        "flashnce.jax.info_nce has a first derivative by jax.grad, no second one and no forward mode; "
        "flashnce.reference.info_nce has all of them in PyTorch"
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def loss(static: Static, inputs: Inputs) -> tuple[jax.Array, jax.Array, jax.Array]:
    value, *_, floats, integers = _call(static.structure, (False,) * 4, inputs)
    return value, floats, integers


def of_no_rows(structure: Structure, q: jax.Array) -> tuple[jax.Array, ...]:
    """What a call of no rows returns: as PyTorch's losses, 0 for the sum of nothing and NaN for its mean."""
    (shape, _), *_, floats, integers = _results(structure, q, (False,) * 4)
    value = jnp.nan if structure.reduction == c.REDUCTION["mean"] else 0.0
    return jnp.full(shape, value, jnp.float32), *(jnp.zeros(*of) for of in (floats, integers))


# Whatever else is differentiated has no gradient here, and silence would train another model.
_NO_GRADIENT = {
    "negatives": "apply jax.lax.stop_gradient to the queue of a momentum encoder; columns that need a gradient are "
    "batch=, raw features that are normalised like q, and batch=True takes the keys of this call",
    **dict.fromkeys(("weight", "lambda_pos", "lambda_neg", "bias", "batch_bias"), "apply jax.lax.stop_gradient to it"),
}


def _forward(static: Static, inputs: Inputs):
    """The loss with the gradients that JAX is going to ask for."""
    for name, instead in _NO_GRADIENT.items():
        value = getattr(inputs, name)
        if value is not None and value.perturbed:
            raise ValueError(f"{name} is differentiated, and the loss has no gradient for it; {instead}")
    detached = key_is_detached(static.detach_key, inputs.k.perturbed, static.in_batch)
    of_batch = inputs.batch.perturbed and len(inputs.batch.value) > 0
    need = inputs.q.perturbed, inputs.k.perturbed and not detached, inputs.numbers.perturbed, of_batch
    values = Inputs(*(None if x is None else x.value for x in inputs))
    value, *gradients, log_sum_exp, floats, integers = _call(static.structure, need, values)
    made = tuple(x if wanted else None for x, wanted in zip(gradients, need))
    return (value, floats, integers), (made, (values, log_sum_exp) if of_batch else None)


def _backward(static: Static, kept, upstream):
    """Equation (8) times the upstream gradient, in the type of the features, rounded once, and (16)."""
    (gradients, columns), upstream = kept, upstream[0]
    if isinstance(upstream, jax.custom_derivatives.SymbolicZero):
        return (Inputs(*(None,) * len(Inputs._fields)),)
    per_row = upstream if not upstream.ndim else upstream[:, None]
    dq, dk = (None if x is None else (x * per_row).astype(static.feature_type) for x in gradients[:2])
    dnumbers = None
    if gradients[2] is not None:
        dnumbers = jnp.pad(jnp.sum(gradients[2] * upstream)[None], (0, 5))
    dbatch = None if columns is None else _columns(static.structure, *columns, upstream)
    found = _NONE._replace(q=dq, k=dk, numbers=dnumbers, batch=dbatch)
    return (found,)


_NONE = Inputs(*(None,) * len(Inputs._fields))


loss.defvjp(_forward, _backward, symbolic_zeros=True)
