"""clip_loss: both directions of a batch of pairs."""

from __future__ import annotations

from torch import Tensor

from .._options import number
from ._arguments import of_one_type, pair
from ._loss import info_nce


def clip_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor | None = None,
    logit_scale: float | Tensor | None = None,
    ids: Tensor | None = None,
    normalize: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """The symmetric loss of pairs, such as images and their texts: (l(a -> b) + l(b -> a)) / 2, as CLIP's.

    Each l is info_nce with the other side's batch as columns, so that no N x N logits exist and a, b and the
    temperature get their whole gradients. Equal to open_clip's ClipLoss of one process.

    Args:
        a, b: [N,D] raw features, row i of each side a pair: float32, float16 or bfloat16.
        temperature, logit_scale: one of the two, tau or 1/tau as open_clip has it (after exp), > 0: a number, or a
            tensor of one element, which may require a gradient.
        ids: int64 [N], of the pairs: those of one id are not each other's negatives. None: all others are.
        normalize: whether a and b are divided by their norms, equation (1).
        reduction: "none" | "mean" | "sum" over the N pairs.

    Returns:
        the loss, float32 [] or, with reduction "none", [N].

    Raises:
        TypeError, ValueError: as info_nce; or if none or both of temperature and logit_scale are given.
    """
    if (temperature is None) == (logit_scale is None):
        given = "neither" if temperature is None else "both"
        raise ValueError(f"{given} of temperature and logit_scale is given; one of them must be")
    if temperature is None:
        if not isinstance(logit_scale, Tensor) and not number("logit_scale", logit_scale) > 0:
            raise ValueError(f"logit_scale is {logit_scale}; it must be above 0")
        # In the type of a 16-bit scale the temperature would be another one.
        temperature = 1 / (logit_scale.float() if isinstance(logit_scale, Tensor) else logit_scale)
    # Once, for both directions.
    a, b, _ = of_one_type(*pair(a, b), None)
    options = {"temperature": temperature, "normalize": normalize, "reduction": reduction, "ids": ids, "batch": True}
    return 0.5 * (info_nce(a, b, **options) + info_nce(b, a, **options))
