"""info_nce: arguments are checked and resolved here, the foreign function computes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _library as c
from .._library import FLOAT_SCORES, INT_SCORES, LOSS_SCORES
from .._options import Mix, anything_drawn, choice, flag, integer, mix_or_none, resolve_columns
from . import _ffi
from ._arguments import array, features, in_range, matrix, mixing, permutation_array, temperature_array, words
from ._ffi import Inputs, Static, Structure

_NO_MIX = Mix(1.0)


class Scores(NamedTuple):
    """What return_scores=True adds: statistics per row [N], equation (9), by the names of fnce_score_buffers; float32,
    counts and ranks uint32. None has a gradient."""

    mixed: dict[str, jax.Array]
    """Of the scores of the loss itself."""
    unmixed: dict[str, jax.Array]
    """Of q.k and a.z_j, before q, k and the negatives are mixed, without entropy and dq_norm."""


def info_nce(
    q: jax.Array,
    k: jax.Array,
    negatives: jax.Array,
    *,
    temperature: float | jax.Array = 0.07,
    normalize: bool = True,
    positive: Mix | None = None,
    negative: Mix | None = None,
    columns: str | None = None,
    anchor: str = "mixed",
    detach_key: bool | None = None,
    reduction: str = "mean",
    weight: jax.Array | None = None,
    lambda_pos: jax.Array | float | None = None,
    lambda_neg: jax.Array | float | None = None,
    permutation: jax.Array | None = None,
    seed: int | jax.Array | None = None,
    offset: int | jax.Array = 0,
    row_offset: int = 0,
    return_scores: bool = False,
    threads: int = 0,
) -> jax.Array | tuple[jax.Array, Scores]:
    """The contrastive loss of equation (7) in one fused pass, differentiable in q, k and the temperature.

    Its numbers are those of flashnce.torch.info_nce: the same seed draws the same, and on one CPU loss and gradients
    are equal bit for bit, but that XLA sets gradients below float32's normal range to 0. Gradients are computed in the
    forward pass, those that JAX is going to ask for.

    Args:
        q, k: [N,D] queries and their keys: float32, float16 or bfloat16, which are read as they are, computed in
            float32 and get gradients of their own type, rounded once. If q and k have two types, float32 copies are
            made.
        negatives: [K,D], float32, float16 or bfloat16, used as given (never normalised). Has no gradient.
        temperature: tau > 0, a number or an array of one element and any floating type, rounded to float32.
        normalize: whether q and k are divided by their norms, equation (1).
        positive, negative: flashnce.Mix of equations (2) and (3), or None: not mixed. flashnce.PRESETS["ft"] is a pair.
        columns: "queue" | "mixed" | "union", equation (5). None: "mixed" if the negatives are, else "queue".
        anchor: what scores the negatives, equation (6): "mixed" (the mixed query) | "query".
        detach_key: False: k gets its gradient. True: it gets none, as in MoCo. None: as True where nothing that JAX
            differentiates for reaches k, an error where something does.
        reduction: "none" | "mean" | "sum".
        weight: float32 [N], weights of the rows' losses; 0 gives exactly 0, whatever the row holds. Has no gradient.
        lambda_pos, lambda_neg: explicit lambda, float32, no shift is added. The shape says how many there are: [] or
            [1], [R,1], [1,D], [R,D] with R = N or K. It may come with a Mix, of which only `renormalize` is then used
            and whose `per` must fit the shape. Has no gradient.
        permutation: explicit permutation of 0..K-1, an integer [K]. One that is no bijection is an error on the CPU and
            gives NaN on a GPU.
        seed: what the rest is drawn from, needed where something is drawn: a number in 0 .. 2^64-1, an integer array of
            one element, or a key of jax.random of two words; jax.random.key(5) draws what 5 does.
        offset: position in the sequence of draws of this seed, a multiple of 4; a call uses up 4. As an array it may
            change from call to call of a compiled program, like the seed and the temperature.
        row_offset: global index of row 0 for lambda_pos per row or element, where a batch is cut into pieces.
        return_scores: also return Scores. The second matrix product then runs even without gradients.
        threads: CPU threads; 0 stands for the library's default.

    Returns:
        the loss, float32 [] or, with reduction "none", [N]; with return_scores (loss, Scores).

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: anything else that is wrong, in one sentence that names the argument. What only the values in an
            array show is an error of XLA with such a sentence on the CPU, and NaN on a GPU.
        NotImplementedError: under jax.vmap, or for a second derivative.
    """
    flag("normalize", normalize)
    flag("return_scores", return_scores)
    if detach_key is not None:
        flag("detach_key", detach_key)
    q, k = features(q, k)
    (n, d), negatives = q.shape, matrix("negatives", negatives, "K", q.shape[1])
    rows = negatives.shape[0]
    mix_or_none("positive", positive)
    mix_or_none("negative", negative)
    choice("anchor", anchor, ("mixed", "query"))
    choice("reduction", reduction, ("none", "mean", "sum"))
    row_offset, threads = in_range("row_offset", row_offset, 2**32), in_range("threads", threads, 1024)
    if weight is not None:
        weight = array("weight", weight, ("float32",))
        if weight.shape != (n,):
            raise ValueError(f"weight has shape {list(weight.shape)}; it must be [{n}]")
    per_pos, lambda_pos = mixing("lambda_pos", lambda_pos, positive, n, d)
    per_neg, lambda_neg = mixing("lambda_neg", lambda_neg, negative, rows, d)
    permutation = permutation_array(permutation, rows, per_neg != "none")
    if seed is None and anything_drawn(per_pos, lambda_pos, per_neg, lambda_neg, permutation):
        raise ValueError("seed is None but lambda or the permutation is drawn; it must be an int or a jax.random.key")
    if not isinstance(offset, (jax.Array, np.ndarray)) and integer("offset", offset) % 4:
        raise ValueError(f"offset is {offset}; it must be in 0 .. 2^64-1, a multiple of 4")
    mixes = per_pos != "none" or per_neg != "none"
    positive, negative = positive or _NO_MIX, negative or _NO_MIX
    structure = Structure(
        normalize=int(normalize),
        per_pos=c.LAMBDA[per_pos],
        given_pos=int(lambda_pos is not None),
        renormalize_pos=int(positive.renormalize),
        per_neg=c.LAMBDA[per_neg],
        given_neg=int(lambda_neg is not None),
        renormalize_neg=int(negative.renormalize),
        given_permutation=int(permutation is not None),
        columns=resolve_columns(columns, per_neg != "none"),
        anchor=c.ANCHOR[anchor],
        reduction=c.REDUCTION[reduction],
        scores=(c.SCORES_MIXED | c.SCORES_UNMIXED if mixes else c.SCORES_MIXED) if return_scores else c.SCORES_NONE,
        row_offset=row_offset,
        threads=threads,
    )
    mix_numbers = np.array([positive.alpha, positive.shift, negative.alpha, negative.shift], np.float32)
    inputs = Inputs(
        q, k, negatives, jnp.concatenate([temperature_array(temperature)[None], mix_numbers]),
        jnp.concatenate([words("seed", 0 if seed is None else seed), words("offset", offset)]),
        weight, lambda_pos, lambda_neg, permutation,
    )  # fmt: skip
    loss, floats, integers = _ffi.loss(Static(structure, detach_key, q.dtype.name), _ffi.alike_inputs(inputs))
    return (loss, _unpack(floats, integers, mixes)) if return_scores else loss


def _unpack(floats: jax.Array, integers: jax.Array, two: bool) -> Scores:
    """Scores out of packed rows; `two` where the unmixed ones follow the mixed."""
    names, count = FLOAT_SCORES + LOSS_SCORES, len(INT_SCORES)
    # Counts are at most 2K, which the low word holds.
    integers = jax.lax.stop_gradient(integers)[..., 0]
    floats = jax.lax.stop_gradient(floats)
    mixed = dict(zip(names, floats)) | dict(zip(INT_SCORES, integers))
    if not two:
        return Scores(mixed, {name: value for name, value in mixed.items() if name not in LOSS_SCORES})
    return Scores(mixed, dict(zip(FLOAT_SCORES, floats[len(names) :])) | dict(zip(INT_SCORES, integers[count:])))
