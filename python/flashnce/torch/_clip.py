"""clip_loss: both directions of a batch of pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _library as c
from .._options import choice, flag
from ._arguments import features, float_tensor, of_one_type, temperature_of, temperature_or_number
from ._call import same_device
from ._queue import check_ids
from ._symmetric import Pairs, Rest, symmetric


def clip_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor | None = None,
    logit_scale: float | Tensor | None = None,
    ids: Tensor | None = None,
    b_ids: Tensor | None = None,
    a_bias: Tensor | None = None,
    b_bias: Tensor | None = None,
    weight: Tensor | None = None,
    normalize: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """The symmetric loss of pairs (images and their texts), equation (17): (l(a -> b) + l(b -> a)) / 2, as CLIP's.

    Each score is made once for both directions, and once more for the gradient of either side: no N x N logits exist,
    and a, b and the temperature get their whole gradients. Equal to open_clip's ClipLoss of one process. On the CPU
    alone so far.

    Args:
        a, b: [N,D] raw features, row i of each side a pair: float32, float16 or bfloat16. With bfloat16 ones,
            processors that can multiply numbers of that type: both sides are rounded to it, and sums are float32.
        temperature, logit_scale: one of the two, tau or 1/tau as open_clip has it (after exp), > 0: a number, or a
            tensor of one element, which may require a gradient.
        ids: int64 [N], of the pairs: those of one id are not each other's negatives. None: all others are. NO_COLUMN
            makes both rows nobody's negatives (padding; its own loss goes with a weight of 0).
        b_ids: int64 [N], those of the rows of b, where they are not those of a.
        a_bias, b_bias: float32 [N], added to the scores of the rows of a, or of b, as columns; -inf leaves one out.
            Have no gradient.
        weight: float32 [N], weights of the pairs' losses. Has no gradient.
        normalize: whether a and b are divided by their norms, equation (1).
        reduction: "none" | "mean" | "sum" over the N pairs.

    Returns:
        the loss, float32 [] or, with reduction "none", [N].

    Raises:
        TypeError, ValueError: an argument is wrong, in one sentence that names it; none or both of temperature and
            logit_scale are given.
    """
    if (temperature is None) == (logit_scale is None):
        given = "neither" if temperature is None else "both"
        raise ValueError(f"{given} of temperature and logit_scale is given; one of them must be")
    if temperature is None:
        temperature = temperature_of("logit_scale", logit_scale)
    flag("normalize", normalize)
    choice("reduction", reduction, ("none", "mean", "sum"))
    a, b = features("a", a), features("b", b)
    if b.shape != a.shape:
        raise ValueError(f"b has shape {list(b.shape)}; it must be that of a, {list(a.shape)}")
    same_device("b", b, a)
    if a.device.type != "cpu":
        raise ValueError(f"a is on {a.device}; clip_loss runs on the CPU alone so far")
    a, b, _ = of_one_type(a, b, None)
    temperature, value = temperature_or_number(temperature, a)
    sides = {"a_bias": a_bias, "b_bias": b_bias}
    if any(bias is not None for bias in sides.values()):
        zeros = a.new_zeros(a.shape[0], dtype=torch.float32)
        sides = {name: zeros if bias is None else _of_rows(name, bias, a) for name, bias in sides.items()}
    weight = None if weight is None else _of_rows("weight", weight, a)
    pairs = Pairs(a, b, temperature, weight, *_ids(ids, b_ids, a), *sides.values())
    return symmetric(pairs, Rest(int(normalize), c.REDUCTION[reduction], value))


def _of_rows(name: str, value: object, a: Tensor) -> Tensor:
    value = float_tensor(name, value, a)
    if tuple(value.shape) != (a.shape[0],):
        raise ValueError(f"{name} has shape {list(value.shape)}; it must be [{a.shape[0]}]")
    return value


def _ids(ids: object, b_ids: object, a: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Those of both sides, or of neither."""
    if ids is None:
        if b_ids is not None:
            raise ValueError("b_ids is given but ids is None; the rows of a need ids where those of b have them")
        return None, None
    ids = check_ids("ids", ids, (a.shape[0],), a.device)
    return ids, ids if b_ids is None else check_ids("b_ids", b_ids, (a.shape[0],), a.device)
