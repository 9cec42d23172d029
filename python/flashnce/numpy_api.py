"""The loss for NumPy arrays, and what a seed draws. It needs NumPy and not torch, and runs on the CPU:

result = flashnce.info_nce(q, k, queue, temperature=0.2, negative=flashnce.Mix(1.6), seed=step, return_dq=True)
result.loss, result.dq
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import _library as c
from ._options import (
    Mix, Plan, anything_drawn, check_temperature, choice, flag, integer, lambda_granularity, mix_or_none, number,
    plan_for, resolve_columns, resolve_ids,
)  # fmt: skip

_SCORE_TYPES = {
    **dict.fromkeys(c.FLOAT_SCORES + c.LOSS_SCORES, np.float32),
    **dict.fromkeys(c.INT_SCORES, np.int64),
}


class Result(NamedTuple):
    """What info_nce returns; None where it was not asked for."""

    loss: np.ndarray
    """float32 [], or [N] with reduction "none": equation (7)."""
    dq: np.ndarray | None
    """[N,D], of the type of q: its gradient, equation (8)."""
    dk: np.ndarray | None
    """[N,D], of the type of k: its gradient; with batch=True the sum of that as positives and that as columns."""
    dtemperature: np.ndarray | None
    """float32 [], or [N] with reduction "none": gradient of the temperature."""
    mixed: dict[str, np.ndarray] | None
    """Statistics of the scores of the loss, equation (9): each [N]; the names are those of fnce_score_buffers."""
    unmixed: dict[str, np.ndarray] | None
    """The same before mixing, of q.k and a.z_j, without entropy and dq_norm."""
    dbatch: np.ndarray | None = None
    """[C,D], of the type of q: the gradient of the batch columns, equation (16)."""


# The keys are names, because NumPy knows bfloat16 only where a package such as ml_dtypes has taught it.
_ELEMENT_TYPES = {"float32": c.FLOAT32, "float16": c.FLOAT16, "bfloat16": c.BFLOAT16}


def _array(name: str, value: object, shape: tuple[int, ...] | None = None, like: np.dtype | None = None) -> np.ndarray:
    """A dense array of float32 or, where `like` is given, of that type."""
    array, like = np.asarray(value), np.dtype(np.float32) if like is None else like
    if array.dtype != like:
        raise TypeError(f"{name} has type {array.dtype}; it must be {like}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {list(array.shape)}; it must be {list(shape)}")
    return np.ascontiguousarray(array)


def _matrix(name: str, value: object, columns: int | None = None) -> np.ndarray:
    """A dense matrix of any element type of the library."""
    array = np.asarray(value)
    if array.dtype.name not in _ELEMENT_TYPES or not array.dtype.isnative:
        raise TypeError(f"{name} has type {array.dtype}; it must be float32, float16 or bfloat16")
    if array.ndim != 2 or (columns is not None and array.shape[1] != columns):
        raise ValueError(f"{name} has shape {list(array.shape)}; it must be [rows, {columns or 'features'}]")
    return np.ascontiguousarray(array)


def _workspace(size: int) -> tuple[np.ndarray, int]:
    buffer = np.empty(size + c.ALIGNMENT, np.uint8)
    return buffer, -(-buffer.ctypes.data // c.ALIGNMENT) * c.ALIGNMENT


def _set_draws(args: c.Args, positive: Mix | None, negative: Mix | None, seed: int, offset: int) -> None:
    for name, value in (("seed", seed), ("offset", offset)):
        value = integer(name, value)
        if not 0 <= value < 2**64:
            raise ValueError(f"{name} is {value}; it must be in 0 .. 2^64-1")
    if positive is not None:
        args.alpha_pos, args.shift_pos = positive.alpha, positive.shift
    if negative is not None:
        args.alpha_neg, args.shift_neg = negative.alpha, negative.shift
    args.seed, args.offset = int(seed), int(offset)


def _point(args: c.Args, **arrays: np.ndarray | None) -> None:
    for name, array in arrays.items():
        setattr(args, name, None if array is None else array.ctypes.data)


def _point_scores(args: c.Args, n: int, biased: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    mixed = {name: np.empty(n, dtype) for name, dtype in _SCORE_TYPES.items() if not (biased and name == "entropy")}
    unmixed = {name: np.empty(n, dtype) for name, dtype in _SCORE_TYPES.items() if name not in c.LOSS_SCORES}
    for buffers, arrays in ((args.mixed, mixed), (args.unmixed, unmixed)):
        for name, array in arrays.items():
            setattr(buffers, name, array.ctypes.data)
    return mixed, unmixed


def info_nce(
    q: np.ndarray,
    k: np.ndarray,
    negatives: np.ndarray | None = None,
    *,
    batch: np.ndarray | bool | None = None,
    ids: np.ndarray | None = None,
    negative_ids: np.ndarray | None = None,
    batch_ids: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    batch_bias: np.ndarray | None = None,
    margin: float | None = None,
    form: str = "info_nce",
    temperature: float = 0.07,
    normalize: bool = True,
    positive: Mix | None = None,
    negative: Mix | None = None,
    columns: str | None = None,
    anchor: str = "mixed",
    reduction: str = "mean",
    weight: np.ndarray | None = None,
    lambda_pos: np.ndarray | None = None,
    lambda_neg: np.ndarray | None = None,
    permutation: np.ndarray | None = None,
    seed: int | None = None,
    offset: int = 0,
    return_dq: bool = False,
    return_dk: bool = False,
    return_dtemperature: bool = False,
    return_dbatch: bool = False,
    return_scores: bool = False,
    threads: int = 0,
) -> Result:
    """The loss of equation (7) and, where asked for, its gradients (8), (16) and score statistics (9).

    Gradients are those of the loss; with reduction "none", of the sum of all losses.

    Args:
        q, k: [N,D], queries and their keys: float32, float16 or (of the package ml_dtypes) bfloat16, both of one type.
        negatives: [K,D] of one of those types, used as it is (never normalised), or None.
        batch: batch columns [C,D] of the type of q, normalised like q, equation (13). True: k, and row numbers for ids
            that are None.
        ids, negative_ids, batch_ids: int64 [N], [K] and [C], equation (14): a column is left out for the rows of its
            id, and for all rows with flashnce.NO_COLUMN. Where rows have ids, all columns need them.
        bias, batch_bias: float32 [K] and [C], equation (15); -inf leaves a column out.
        margin: leaves out what scores above the positive by more, before the division by the temperature.
        form: "info_nce" | "decoupled", equation (7).
        temperature: tau > 0, at least 2**-126.
        normalize: whether q and k are divided by their norms, equation (1).
        positive, negative: Mix of equations (2) and (3), or None.
        columns: "queue" | "mixed" | "union", equation (5); None follows the mixing.
        anchor: "mixed" | "query", equation (6).
        reduction: "none" | "mean" | "sum".
        weight: float32 [N] or None; 0 gives exactly 0.
        lambda_pos, lambda_neg: explicit lambda, float32; its shape [], [R,1], [1,D] or [R,D] says how many there are.
        permutation: explicit permutation, an integer [K], a bijection of 0..K-1.
        seed, offset: the rest is drawn from these, 0 .. 2^64-1; offset is a multiple of 4. A seed is needed only where
            something is drawn.
        threads: CPU threads; 0 stands for the process's default.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: anything else is wrong; one sentence names the argument.
    """
    _check_options(
        positive, negative, anchor, reduction, form, normalize=normalize, return_dq=return_dq, return_dk=return_dk,
        return_dtemperature=return_dtemperature, return_dbatch=return_dbatch, return_scores=return_scores,
    )  # fmt: skip
    q = _matrix("q", q)
    n, d = q.shape
    k, in_batch = _array("k", k, None, q.dtype), batch is True
    if k.shape != q.shape:
        raise ValueError(f"k has shape {list(k.shape)}; it must be that of q, {list(q.shape)}")
    negatives, batch = _columns(negatives, batch, k, return_dbatch)
    feature_type, queue_type = _ELEMENT_TYPES[q.dtype.name], _ELEMENT_TYPES[negatives.dtype.name]
    rows, count = negatives.shape[0], 0 if batch is None else batch.shape[0]
    temperature, threads = number("temperature", temperature), integer("threads", threads)
    check_temperature(temperature)
    weight = None if weight is None else _array("weight", weight, (n,))
    per_pos, lambda_pos = _mixing("lambda_pos", lambda_pos, positive, n, d)
    per_neg, lambda_neg = _mixing("lambda_neg", lambda_neg, negative, rows, d)
    permutation = _checked_permutation(permutation, rows, per_neg)
    _check_seed(seed, anything_drawn(per_pos, lambda_pos, per_neg, lambda_neg, permutation))
    sizes = {"ids": n, "negative_ids": rows, "batch_ids": None if batch is None else count}
    masks = _ids(sizes, in_batch, ids, negative_ids, batch_ids) | _biases(rows, batch, bias, batch_bias)
    plan = plan_for(
        (max(n, 1), rows, d, 0, 0, 0, 0, c.CPU, 0, feature_type, queue_type, feature_type, int(normalize),
         c.LAMBDA[per_pos], int(lambda_pos is not None), int(positive is not None and positive.renormalize),
         c.LAMBDA[per_neg], int(lambda_neg is not None), int(negative is not None and negative.renormalize),
         int(permutation is not None),
         resolve_columns(columns, per_neg != "none"), c.ANCHOR[anchor], c.REDUCTION[reduction],
         c.SCORES_MIXED | c.SCORES_UNMIXED if return_scores else c.SCORES_NONE, threads,
         c.FORM[form], int("ids" in masks), int("bias" in masks), int(margin is not None), count)
    )  # fmt: skip
    args = c.new_args()
    args.temperature, args.margin = temperature, 0.0 if margin is None else number("margin", margin)
    _set_draws(args, positive, negative, 0 if seed is None else seed, offset)
    # The mean of no rows is NaN, as PyTorch has it; for one row or more the library writes it.
    loss = np.full(n if reduction == "none" else (), np.nan if reduction == "mean" else 0.0, np.float32)
    result = Result(
        loss,
        np.empty((n, d), q.dtype) if return_dq else None,
        np.empty((n, d), q.dtype) if return_dk else None,
        np.zeros_like(loss) if return_dtemperature else None,
        *(_point_scores(args, n, "bias" in masks) if return_scores else (None, None)),
        np.zeros((count, d), q.dtype) if return_dbatch or (return_dk and in_batch) else None,
    )
    log_sum_exp = None if result.dbatch is None else np.empty(n, np.float32)
    _point(args, x_q=q, x_k=k, queue=negatives if rows else None, weight=weight, lambda_pos=lambda_pos)
    _point(args, lambda_neg=lambda_neg, permutation=permutation, loss=loss, dq=result.dq, dk=result.dk)
    _point(args, **{"dtemperature_rows" if reduction == "none" else "dtemperature": result.dtemperature})
    _point(args, x_c=batch if count else None, log_sum_exp=log_sum_exp)
    _point(args, **{_POINTERS[name]: array for name, array in masks.items() if array is not None and array.size})
    args.checks, (buffer, address) = c.CHECK_PERMUTATION, _workspace(plan.workspace_bytes)
    if n:
        c.check(c.LIBRARY.fnce_loss(plan.handle, args, address, plan.workspace_bytes, None))
    if n and count and result.dbatch is not None:
        _columns_backward(plan, args, log_sum_exp, result.dbatch, address)
    if in_batch and return_dk:
        result.dk[...] += result.dbatch
    return result if return_dbatch else result._replace(dbatch=None)


def _columns_backward(plan: Plan, args: c.Args, log_sum_exp: np.ndarray, dbatch: np.ndarray, workspace: int) -> None:
    """Equation (16), for the gradient 1 from above."""
    upstream, size = np.ones(1, np.float32), plan.workspace_bytes
    arrays = (array.ctypes.data for array in (log_sum_exp, upstream))
    out = dbatch.ctypes.data
    c.check(c.LIBRARY.fnce_columns_backward(plan.handle, args, None, *arrays, 1, out, workspace, size, None))


_POINTERS = {
    "ids": "query_ids", "negative_ids": "column_ids", "batch_ids": "batch_ids", "bias": "column_bias",
    "batch_bias": "batch_bias",
}  # fmt: skip


def _columns(
    negatives: object, batch: object, k: np.ndarray, return_dbatch: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The negatives, none of which may be there, and the batch columns: for True the keys."""
    if negatives is None and batch is None:
        raise ValueError("negatives is None and batch is None; one of them must give columns")
    if batch is None and return_dbatch:
        raise ValueError("return_dbatch is True but batch is None; there are no columns to have a gradient")
    d = k.shape[1]
    negatives = np.empty((0, d), k.dtype) if negatives is None else _matrix("negatives", negatives, d)
    if batch is None or batch is True:
        return negatives, k if batch else None
    if isinstance(batch, bool):
        raise TypeError("batch is False; it must be None, True or an array")
    batch = _matrix("batch", batch, d)
    if batch.dtype != k.dtype:
        raise TypeError(f"batch has type {batch.dtype}; it must be {k.dtype}")
    return negatives, batch


def _ids(sizes: dict[str, int | None], in_batch: bool, ids, negative_ids, batch_ids) -> dict[str, np.ndarray | None]:
    """The ids of all rows and columns, or nothing."""
    given = {"ids": ids, "negative_ids": negative_ids, "batch_ids": batch_ids}
    for name, value in given.items():
        if value is not None and sizes[name] is not None:
            given[name] = _array(name, value, (sizes[name],), np.dtype(np.int64))
    return resolve_ids(
        **given, sizes=sizes, in_batch=in_batch, full=lambda size, value: np.full(size, value, np.int64),
        arange=lambda size: np.arange(size, dtype=np.int64),
    )  # fmt: skip


def _biases(rows: int, batch: np.ndarray | None, bias, batch_bias) -> dict[str, np.ndarray]:
    """The biases of all columns, or nothing; a side without one has zeros."""
    if bias is None and batch_bias is None:
        return {}
    if batch is None and batch_bias is not None:
        raise ValueError("batch_bias is given but batch is None")
    given = (("bias", bias, rows), ("batch_bias", batch_bias, 0 if batch is None else batch.shape[0]))
    return {name: np.zeros(n, np.float32) if value is None else _array(name, value, (n,)) for name, value, n in given}


def _check_options(
    positive: object, negative: object, anchor: object, reduction: object, form: object, **flags: object
) -> None:
    for name, value in flags.items():
        flag(name, value)
    mix_or_none("positive", positive)
    mix_or_none("negative", negative)
    choice("anchor", anchor, ("mixed", "query"))
    choice("reduction", reduction, ("none", "mean", "sum"))
    choice("form", form, tuple(c.FORM))


def _check_seed(seed: object, draws: bool) -> None:
    if draws and seed is None:
        raise ValueError("seed is None but lambda or the permutation is drawn; it must be an int in 0 .. 2^64-1")


def _mixing(name: str, value: object, mix: Mix | None, rows: int, d: int) -> tuple[str, np.ndarray | None]:
    """The granularity of a mixing and its explicit lambda."""
    if value is None:
        return ("none" if mix is None else mix.per), None
    array = _array(name, value)
    return lambda_granularity(name, array.shape, rows, d, None if mix is None else mix.per), array


def _checked_permutation(value: object, rows: int, per_neg: str) -> np.ndarray | None:
    if value is None:
        return None
    if per_neg == "none":
        raise ValueError("permutation is given but the negatives are not mixed; give negative= or lambda_neg= too")
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"permutation has type {array.dtype}; it must be an integer type")
    if array.shape != (rows,):
        raise ValueError(f"permutation has shape {list(array.shape)}; it must be [{rows}]")
    if rows and not (0 <= array.min() and array.max() < rows):
        raise ValueError(
            f"permutation has values in {array.min()} .. {array.max()}; it must be a bijection of 0 .. {rows - 1}"
        )
    return np.ascontiguousarray(array, np.int32)


def sample_lambda(
    side: str, mix: Mix, rows: int, d: int, *, seed: int, offset: int = 0, first_row: int = 0
) -> np.ndarray:
    """The lambda that a call with this seed draws, equations (2) and (3).

    Args:
        side: "positive" (rows = N queries) or "negative" (rows = K negatives).
        mix: what is drawn.
        rows, d: the sizes of the call.
        seed, offset: those of the call, as Scores.seed and Scores.offset report them.
        first_row: the global index of row 0; not 0 only where rows are spread over processes. A multiple of 16 for the
            negatives.

    Returns:
        float32 [1] | [R,1] | [1,D] | [R,D] by mix.per: what info_nce takes as an explicit lambda.
    """
    choice("side", side, ("positive", "negative"))
    if not isinstance(mix, Mix):
        raise TypeError(f"mix is a {type(mix).__name__}; it must be a Mix")
    rows, d, first_row = integer("rows", rows), integer("d", d), integer("first_row", first_row)
    problem, args = c.new_problem(), c.new_args()
    problem.n, problem.k, problem.d = (rows, 0, d) if side == "positive" else (1, rows, d)
    if side == "positive":
        problem.lambda_pos, problem.row_offset = c.LAMBDA[mix.per], first_row
        _set_draws(args, mix, None, seed, offset)
        sample = c.LIBRARY.fnce_sample_lambda_pos
    else:
        problem.lambda_neg, problem.columns = c.LAMBDA[mix.per], c.COLUMNS["mixed"]
        if first_row:
            problem.column_offset, problem.k_global, problem.perm_block = first_row, first_row + rows, 16
        _set_draws(args, None, mix, seed, offset)
        sample = c.LIBRARY.fnce_sample_lambda_neg
    shape = {"call": (1,), "row": (rows, 1), "dimension": (1, d), "element": (rows, d)}[mix.per]
    out = np.empty([max(size, 0) for size in shape], np.float32)
    names = {"problem.n": "rows", "problem.k": "rows", "problem.d": "d", "problem.row_offset": "first_row"}
    c.check(sample(problem, args, out.ctypes.data, out.size), names)
    return out


def permutation(
    k: int, *, seed: int, offset: int = 0, perm_block: int = 0, first_row: int = 0, k_global: int = 0
) -> np.ndarray:
    """The permutation that a call with this seed draws, equation (3).

    Args:
        k: rows of the queue, or of one shard of it.
        seed, offset: those of the call, as Scores.seed and Scores.offset report them.
        perm_block: the permutation stays inside blocks of this many rows, a multiple of 16; 0 means one block of all.
        first_row, k_global: the global index of the shard's row 0, and the rows of the whole queue (0 stands for k).

    Returns:
        int32 [K], a bijection of 0..K-1: which row each row is mixed with.
    """
    k, perm_block = integer("k", k), integer("perm_block", perm_block)
    first_row, k_global = integer("first_row", first_row), integer("k_global", k_global)
    problem, args = c.new_problem(), c.new_args()
    problem.n, problem.k, problem.d = 1, k, 1
    problem.perm_block, problem.column_offset, problem.k_global = perm_block, first_row, k_global
    problem.lambda_neg, problem.columns = c.LAMBDA["call"], c.COLUMNS["mixed"]
    _set_draws(args, None, None, seed, offset)
    out = np.empty(max(k, 0), np.int32)
    c.check(c.LIBRARY.fnce_permutation(problem, args, out.ctypes.data, out.size), {"problem.k": "k"})
    return out
