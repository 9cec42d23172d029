"""info_nce: arguments are checked and resolved here, the foreign function computes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _library as c
from .._library import FLOAT_SCORES, INT_SCORES, LOSS_SCORES
from .._options import Mix, anything_drawn, choice, flag, integer, mix_or_none, number, resolve_columns
from . import _ffi
from ._arguments import (
    batch_columns, biases_of, features, ids_of, in_range, matrix, mixing, of_one_type, permutation_array,
    temperature_array, weight_or_none, words,
)  # fmt: skip
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
    negatives: jax.Array | None = None,
    *,
    batch: jax.Array | bool | None = None,
    ids: jax.Array | None = None,
    negative_ids: jax.Array | None = None,
    batch_ids: jax.Array | None = None,
    bias: jax.Array | None = None,
    batch_bias: jax.Array | None = None,
    margin: float | None = None,
    form: str = "info_nce",
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
    """The contrastive loss of equation (7) in one fused pass, differentiable in q, k, the batch columns and the
    temperature.

    Its numbers are those of flashnce.torch.info_nce: the same seed draws the same, and on one CPU loss and gradients
    are equal bit for bit, but that XLA sets gradients below float32's normal range to 0. Gradients are computed in the
    forward pass, those that JAX is going to ask for, and those of batch columns in the backward pass.

    Args:
        q, k: [N,D] queries and their keys: float32, float16 or bfloat16, which are read as they are, computed in
            float32 and get gradients of their own type, rounded once. If features have two types, float32 copies are
            made.
        negatives: [K,D], float32, float16 or bfloat16, used as given (never normalised), or None. Has no gradient.
        batch: [C,D] raw features of q's kinds, columns that are normalised like q and never mixed, equation (13), with
            a gradient. True: the keys of this call; ids that are None are then row numbers, so that each row leaves its
            own key out, and k gets both gradients.
        ids: an integer [N]: a column whose id is the row's is none of its negatives, equation (14). All columns then
            need ids, negative_ids [K] and batch_ids [C] (those of the rows, for batch=True). NO_COLUMN, which needs
            NumPy's int64 or JAX's x64 option, makes a column nobody's negative.
        bias, batch_bias: float32 [K] and [C], added to the scores of the columns after the division by the
            temperature, equation (15); -inf leaves a column out. Have no gradient.
        margin: a number; leaves columns out that score above the positive by more, before the division by the
            temperature, equation (14).
        form: "info_nce" | "decoupled": whether the positive is in the sum of equation (7).
        temperature: tau > 0, a number or an array of one element and any floating type, rounded to float32.
        normalize: whether q and k are divided by their norms, equation (1).
        positive, negative: flashnce.Mix of equations (2) and (3), or None: not mixed. flashnce.PRESETS["ft"] is a pair.
        columns: "queue" | "mixed" | "union", equation (5). None: "mixed" if the negatives are, else "queue".
        anchor: what scores the negatives, equation (6): "mixed" (the mixed query) | "query".
        detach_key: False: k gets its gradient. True: it gets none, as in MoCo. None: as True where nothing that JAX
            differentiates for reaches k, an error where something does, and as False with batch=True.
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
    _check_options(normalize, return_scores, detach_key, form, anchor, reduction, positive, negative)
    q, k = features(q, k)
    if negatives is None and batch is None:
        raise ValueError("negatives is None and batch is None; one of them must give columns")
    (n, d), in_batch = q.shape, batch is True
    q, k, batch = of_one_type(q, k, batch_columns(batch, k, detach_key is True))
    negatives = jnp.zeros((0, d), q.dtype) if negatives is None else matrix("negatives", negatives, "K", d)
    rows, count = negatives.shape[0], None if batch is None else batch.shape[0]
    row_offset, threads = in_range("row_offset", row_offset, 2**32), in_range("threads", threads, 1024)
    sizes = {"ids": n, "negative_ids": rows, "batch_ids": count, "bias": rows, "batch_bias": count}
    masks = ids_of(in_batch, sizes, ids=ids, negative_ids=negative_ids, batch_ids=batch_ids)
    biases = biases_of(sizes, bias=bias, batch_bias=batch_bias)
    margin_number = 0.0 if margin is None else number("margin", margin)
    weight = weight_or_none(weight, n)
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
        form=c.FORM[form],
        id_mask=int(bool(masks)),
        column_bias=int(bool(biases)),
        margin_mask=int(margin is not None),
    )
    mix_numbers = [positive.alpha, positive.shift, negative.alpha, negative.shift, margin_number]
    inputs = Inputs(
        q, k, negatives, jnp.concatenate([temperature_array(temperature)[None], np.array(mix_numbers, np.float32)]),
        jnp.concatenate([words("seed", 0 if seed is None else seed), words("offset", offset)]),
        weight, lambda_pos, lambda_neg, permutation, q[:0] if batch is None else batch,
        *(masks.get(name) for name in ("ids", "negative_ids", "batch_ids")), *map(biases.get, ("bias", "batch_bias")),
    )  # fmt: skip
    if n:
        static = Static(structure, detach_key, q.dtype.name, in_batch)
        loss, floats, integers = _ffi.loss(static, _ffi.alike_inputs(inputs))
    else:
        loss, floats, integers = _ffi.of_no_rows(structure, q)
    return (loss, _unpack(floats, integers, mixes, bool(biases))) if return_scores else loss


def _check_options(normalize, return_scores, detach_key, form, anchor, reduction, positive, negative) -> None:
    flag("normalize", normalize)
    flag("return_scores", return_scores)
    if detach_key is not None:
        flag("detach_key", detach_key)
    choice("form", form, tuple(c.FORM))
    choice("anchor", anchor, ("mixed", "query"))
    choice("reduction", reduction, ("none", "mean", "sum"))
    mix_or_none("positive", positive)
    mix_or_none("negative", negative)


def _unpack(floats: jax.Array, integers: jax.Array, two: bool, biased: bool) -> Scores:
    """Scores out of packed rows; `two` where the unmixed ones follow the mixed, `biased` where columns have a bias, and
    the mixed ones no entropy."""
    names, count = FLOAT_SCORES + LOSS_SCORES, len(INT_SCORES)
    # Counts are at most 2K + C, which the low word holds.
    integers = jax.lax.stop_gradient(integers)[..., 0]
    floats = jax.lax.stop_gradient(floats)
    mixed = dict(zip(names, floats)) | dict(zip(INT_SCORES, integers))
    if biased:
        del mixed["entropy"]
    if not two:
        return Scores(mixed, {name: value for name, value in mixed.items() if name not in LOSS_SCORES})
    return Scores(mixed, dict(zip(FLOAT_SCORES, floats[len(names) :])) | dict(zip(INT_SCORES, integers[count:])))
