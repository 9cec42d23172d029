"""The symmetric loss of a batch of pairs for NumPy arrays, equation (17). It needs NumPy and not torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import _library as c
from ._names import PAIR_NAMES
from ._options import check_temperature, choice, flag, integer, number, pairs_plan
from .numpy_api import _ELEMENT_TYPES, _array, _matrix, _point, _workspace


class PairsResult(NamedTuple):
    """What clip_loss returns; None where it was not asked for."""

    loss: np.ndarray
    """float32 [], or [N] with reduction "none"."""
    da: np.ndarray | None
    """[N,D], of the type of a: its gradient."""
    db: np.ndarray | None
    """[N,D], of the type of b: its gradient."""
    dtemperature: np.ndarray | None
    """float32 []: gradient of the temperature."""


def clip_loss(
    a: np.ndarray,
    b: np.ndarray,
    *,
    temperature: float = 0.07,
    ids: np.ndarray | None = None,
    b_ids: np.ndarray | None = None,
    a_bias: np.ndarray | None = None,
    b_bias: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    normalize: bool = True,
    reduction: str = "mean",
    return_da: bool = False,
    return_db: bool = False,
    return_dtemperature: bool = False,
    threads: int = 0,
) -> PairsResult:
    """The symmetric loss of pairs, (l(a -> b) + l(b -> a)) / 2, and its gradients where they are asked for.

    Gradients are those of the loss; with reduction "none", of the sum of all losses.

    Args:
        a, b: [N,D], row i of each side a pair: float32, float16 or (of the package ml_dtypes) bfloat16, of one type.
        temperature: tau > 0, at least 2**-126.
        ids, b_ids: int64 [N], of the pairs, or of a and b where they differ: rows of one id are not each other's
            columns, and a row of flashnce.NO_COLUMN is nobody's. None: each pair has its own.
        a_bias, b_bias: float32 [N], added to the scores of the rows of a, or of b, as columns; -inf leaves one out.
        weight: float32 [N] or None; 0 gives exactly 0.
        normalize: whether a and b are divided by their norms, equation (1).
        reduction: "none" | "mean" | "sum".
        threads: CPU threads; 0 stands for the process's default.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: anything else is wrong; one sentence names the argument.
    """
    for name, value in {
        "normalize": normalize, "return_da": return_da, "return_db": return_db,
        "return_dtemperature": return_dtemperature,
    }.items():  # fmt: skip
        flag(name, value)
    choice("reduction", reduction, ("none", "mean", "sum"))
    a = _matrix("a", a)
    (n, d), b = a.shape, _array("b", b, np.shape(a), a.dtype)
    temperature, threads = number("temperature", temperature), integer("threads", threads)
    check_temperature(temperature)
    if b_ids is not None and ids is None:
        raise ValueError("b_ids is given but ids is None; the rows of a need ids where those of b have them")
    given = {"a_ids": ids, "b_ids": ids if b_ids is None else b_ids, "weight": weight}
    if a_bias is not None or b_bias is not None:
        given |= {"a_bias": a_bias, "b_bias": b_bias}
    names = {"a_ids": "ids", "b_ids": "ids" if b_ids is None else "b_ids"}
    for name, value in given.items():
        if value is None and name.endswith("bias"):
            given[name] = np.zeros(n, np.float32)
        elif value is not None:
            given[name] = _array(names.get(name, name), value, (n,), np.dtype(np.int64) if name in names else None)
    # The mean of no rows is NaN, as PyTorch has it; for one row or more the library writes it.
    loss = np.full(n if reduction == "none" else (), np.nan if reduction == "mean" else 0.0, np.float32)
    result = PairsResult(
        loss,
        np.empty((n, d), a.dtype) if return_da else None,
        np.empty((n, d), a.dtype) if return_db else None,
        np.zeros((), np.float32) if return_dtemperature else None,
    )
    if not n:
        return result
    plan = pairs_plan(
        n, d, c.CPU, 0, _ELEMENT_TYPES[a.dtype.name], int(normalize), c.REDUCTION[reduction], threads, ids is not None,
        "a_bias" in given,
    )  # fmt: skip
    args, sums = c.new_pairs(), np.empty((2, n), np.float32)
    args.temperature = temperature
    _point(args, x_a=a, x_b=b, loss=loss, a_log_sum_exp=sums[0], b_log_sum_exp=sums[1], **given)
    _point(args, da=result.da, db=result.db, dtemperature=result.dtemperature)
    (buffer, address), size = _workspace(plan.workspace_bytes), plan.workspace_bytes
    c.check(c.LIBRARY.fnce_symmetric(plan.handle, args, address, size, None), PAIR_NAMES)
    if return_da or return_db or return_dtemperature:
        one = np.ones(1, np.float32)
        backward = c.LIBRARY.fnce_symmetric_backward
        c.check(backward(plan.handle, args, one.ctypes.data, 1, address, size, None), PAIR_NAMES)
    return result
