"""InfoNCE and info_nce of info-nce-pytorch 0.1.4 (`from info_nce import InfoNCE`), with that package's defaults.

Its temperature is 0.1, positive keys get gradients, and negatives are divided by their norms: flashnce.torch.InfoNCE
differs in all three.
"""

from __future__ import annotations

from torch import Tensor, nn

from .._options import choice
from ._backend import check_backend, contrast_with

_PAIRED = (
    "negative_mode is 'paired', negatives [N,M,D] of each query's own; FlashNCE takes negatives [M,D] that all queries "
    "share: negative_mode='unpaired'"
)


def _shapes_or_raise(query: Tensor, positive_key: Tensor, negative_keys: Tensor | None) -> None:
    given = {"query": query, "positive_key": positive_key, "negative_keys": negative_keys}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if value.dim() != 2:
            raise ValueError(f"<{name}> must have 2 dimensions; it has shape {list(value.shape)}")
    if len(query) != len(positive_key):
        raise ValueError(
            f"<query> and <positive_key> must have the same number of samples; they have {len(query)} and "
            f"{len(positive_key)}"
        )
    for name, value in given.items():
        if value.shape[1] != query.shape[1]:
            raise ValueError(
                f"vectors of <query> and <{name}> must have the same number of components; they have "
                f"{query.shape[1]} and {value.shape[1]}"
            )


def info_nce(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: str = "mean",
    negative_mode: str = "unpaired",
    *,
    backend: str = "auto",
) -> Tensor:
    """The cross entropy of each query's positive among it and all negatives, of unit vectors; equation (7).

    Args:
        query, positive_key: [N,D], float32, float16 or bfloat16; both get gradients.
        negative_keys: [M,D], shared by all queries ("unpaired"), with a gradient if they require one; None: the
            positive keys of the other rows.
        temperature: > 0, a number or a tensor of one element, which may require a gradient.
        reduction: "none" | "sum" | "mean".
        negative_mode: "unpaired"; "paired" raises.
        backend: see flashnce.compat.

    Returns: float32 [], or [N] with reduction "none".

    Raises:
        NotImplementedError: negative_keys with negative_mode "paired".
        ValueError, TypeError: shapes, as in the package; the rest as flashnce.torch.info_nce.
    """
    choice("negative_mode", negative_mode, ("paired", "unpaired"))
    if negative_mode == "paired" and negative_keys is not None:
        raise NotImplementedError(_PAIRED)
    _shapes_or_raise(query, positive_key, negative_keys)
    return contrast_with(
        query, positive_key, negative_keys, temperature=temperature, reduction=reduction,
        detach_key=False, backend=backend,
    )  # fmt: skip


class InfoNCE(nn.Module):
    """info_nce as a module, with the package's constructor: `InfoNCE()(query, positive_key, negative_keys)`.

    Raises:
        NotImplementedError: negative_mode is "paired".
    """

    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        reduction: str = "mean",
        negative_mode: str = "unpaired",
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        choice("negative_mode", negative_mode, ("paired", "unpaired"))
        if negative_mode == "paired":
            raise NotImplementedError(_PAIRED)
        self.temperature, self.reduction, self.negative_mode = temperature, reduction, negative_mode
        self.backend = check_backend(backend)

    def forward(self, query: Tensor, positive_key: Tensor, negative_keys: Tensor | None = None) -> Tensor:
        return info_nce(
            query, positive_key, negative_keys, temperature=self.temperature, reduction=self.reduction,
            negative_mode=self.negative_mode, backend=self.backend,
        )  # fmt: skip
