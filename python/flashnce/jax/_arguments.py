"""The arguments of info_nce, checked: each error is one sentence that names the argument.

Everything here can be traced: what only the values of an array show is left to the library.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from .._options import Mix, check_temperature, integer, lambda_granularity, number, resolve_ids

_TYPES = ("float32", "float16", "bfloat16")


def array(name: str, value: object, types: tuple[str, ...]) -> jax.Array:
    """An array, where its type is one of these. NumPy's are taken too."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be an array")
    if value.dtype.name not in types:
        allowed = " or ".join(filter(None, (", ".join(types[:-1]), types[-1])))
        hint = "; flashnce.reference.info_nce computes in float64" if value.dtype == np.float64 else ""
        raise TypeError(f"{name} has type {value.dtype}; it must be {allowed}{hint}")
    return jnp.asarray(value)


def matrix(name: str, value: object, what: str, columns: int | None = None) -> jax.Array:
    found = array(name, value, _TYPES)
    if found.ndim != 2 or (columns is not None and found.shape[1] != columns):
        raise ValueError(f"{name} has shape {list(found.shape)}; it must be [{what}, {columns or 'D'}]")
    return found


def features(q: object, k: object) -> tuple[jax.Array, jax.Array]:
    q = matrix("q", q, "N")
    if not q.shape[1]:
        raise ValueError(f"q has shape {list(q.shape)}; it must have a feature")
    k = matrix("k", k, "N", q.shape[1])
    if k.shape != q.shape:
        raise ValueError(f"k has shape {list(k.shape)}; it must be that of q, {list(q.shape)}")
    return q, k


def of_one_type(*features: jax.Array | None) -> tuple[jax.Array | None, ...]:
    """The library takes one type for all features. float32 holds the values of any exactly."""
    if len({x.dtype for x in features if x is not None}) == 1:
        return features
    return tuple(None if x is None else x.astype(jnp.float32) for x in features)


def batch_columns(value: object, k: jax.Array, detached: bool) -> jax.Array | None:
    """The raw batch columns [C,D]: for True the keys, whose gradient is theirs as well."""
    if value is None or value is True:
        return None if value is None else jax.lax.stop_gradient(k) if detached else k
    if isinstance(value, bool):
        raise TypeError("batch is False; it must be None, True or an array")
    return matrix("batch", value, "C", k.shape[1])


def id_words(name: str, value: object, size: int) -> jax.Array:
    """Ids as uint32 [size,2], the low word first, as int64 lie in memory."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be an array")
    if value.dtype not in (np.int32, np.int64):
        raise TypeError(f"{name} has type {value.dtype}; it must be int64 or int32")
    if value.shape != (size,):
        raise ValueError(f"{name} has shape {list(value.shape)}; it must be [{size}]")
    if isinstance(value, jax.Array):
        return _words_of_array(value)
    # JAX would cut off the high words.
    return jnp.asarray(np.ascontiguousarray(value, "<i8").view(np.uint32).reshape(size, 2))


def ids_of(in_batch: bool, sizes: dict[str, int | None], **given: object) -> dict[str, jax.Array]:
    """The ids of the queries, the negatives and the batch columns: those of all, or none at all."""
    for name, value in given.items():
        if value is not None and sizes[name] is not None:
            given[name] = id_words(name, value, sizes[name])
    filled = lambda size, value: id_words("", np.full(size, value, np.int64), size)  # noqa: E731
    numbered = lambda size: id_words("", np.arange(size, dtype=np.int64), size)  # noqa: E731
    return resolve_ids(**given, sizes=sizes, in_batch=in_batch, full=filled, arange=numbered)


def biases_of(sizes: dict[str, int | None], **given: object) -> dict[str, jax.Array]:
    """The biases of the negatives and of the batch columns: both, or none at all."""
    if all(value is None for value in given.values()):
        return {}
    found = {}
    for name, value in given.items():
        size = sizes[name]
        if size is None and value is not None:
            raise ValueError(f"{name} is given but batch is None")
        if size is not None:
            found[name] = jnp.zeros(size, jnp.float32) if value is None else array(name, value, ("float32",))
            if found[name].shape != (size,):
                raise ValueError(f"{name} has shape {list(found[name].shape)}; it must be [{size}]")
    return found


def temperature_array(value: object) -> jax.Array:
    """float32 []. Its gradient comes back through the conversion, in the type that the temperature has."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        value = number("temperature", value)
        with np.errstate(over="ignore"):
            rounded = np.float32(value)
        check_temperature(value)
        if not 0 < rounded < math.inf:
            raise ValueError(f"temperature is {value}; it must be a finite number above 0")
        return jnp.asarray(rounded)
    if value.size != 1:
        raise ValueError(f"temperature has shape {list(value.shape)}; it must have one element")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"temperature has type {value.dtype}; it must be a floating type")
    return jnp.asarray(value).astype(jnp.float32).reshape(())


def words(name: str, value: object) -> jax.Array:
    """A 64-bit integer as uint32 [2], the low word first, as it lies in memory."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
        if value.shape != (2,):
            raise ValueError(f"{name} is a key of {list(value.shape)} words; it must be of 2, as jax.random.key(0)")
    if isinstance(value, (jax.Array, np.ndarray)):
        if value.dtype == np.uint32 and value.shape == (2,):
            return jnp.asarray(value)[::-1]
        if not jnp.issubdtype(value.dtype, jnp.integer) or value.size != 1:
            kind = f"{value.dtype} {list(value.shape)}"
            raise TypeError(f"{name} is {kind}; it must be an int, an integer array of one element or a key")
        if isinstance(value, jax.Array):
            return _words_of_array(value.reshape(()))
        # JAX would cut off the high word.
        value = value.item() % 2**64
    value = integer(name, value)
    if not 0 <= value < 2**64:
        raise ValueError(f"{name} is {value}; it must be in 0 .. 2^64-1")
    return jnp.array([value % 2**32, value // 2**32], jnp.uint32)


def _words_of_array(value: jax.Array) -> jax.Array:
    if value.dtype.itemsize == 8:
        return jax.lax.bitcast_convert_type(value, jnp.uint32)
    # Two's complement, as an int64 of the same value would have it.
    return jnp.stack([value.astype(jnp.uint32), jnp.where(value < 0, jnp.uint32(2**32 - 1), jnp.uint32(0))], -1)


def mixing(name: str, value: object, mix: Mix | None, rows: int, d: int) -> tuple[str, jax.Array | None]:
    """The granularity of a mixing and its explicit lambda."""
    if value is None:
        return ("none" if mix is None else mix.per), None
    if not isinstance(value, (jax.Array, np.ndarray, bool)):
        value = jnp.float32(number(name, value))
    value = array(name, value, ("float32",))
    return lambda_granularity(name, tuple(value.shape), rows, d, None if mix is None else mix.per), value


def permutation_array(value: object, rows: int, negatives_mixed: bool) -> jax.Array | None:
    if value is None:
        return None
    if not negatives_mixed:
        raise ValueError("permutation is given but the negatives are not mixed; give negative= or lambda_neg= too")
    value = array("permutation", value, ("int32", "int64"))
    if value.shape != (rows,):
        raise ValueError(f"permutation has shape {list(value.shape)}; it must be [{rows}]")
    # Clamped first: an index of 2^32 must not become the 0 that is missing.
    return jnp.clip(value, -1, rows).astype(jnp.int32)


def weight_or_none(value: object, n: int) -> jax.Array | None:
    if value is None:
        return None
    value = array("weight", value, ("float32",))
    if value.shape != (n,):
        raise ValueError(f"weight has shape {list(value.shape)}; it must be [{n}]")
    return value


def in_range(name: str, value: object, most: int) -> int:
    value = integer(name, value)
    if not 0 <= value <= most:
        raise ValueError(f"{name} is {value}; it must be in 0 .. {most}")
    return value
