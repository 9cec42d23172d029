"""F.info_nce_loss and nn.InfoNCELoss as proposed for torch (pytorch#195380, open).

The proposal is not merged, so `temperature` has no default here: one that differed would train another model.
"""

from __future__ import annotations

from torch import Tensor, nn

from ._backend import check_backend, contrast_with


def info_nce_loss(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    *,
    temperature: float | Tensor,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """The cross entropy of each query's positive among it and all negatives, of unit vectors; equation (7).

    Args:
        query, positive_key: [N,D], float32, float16 or bfloat16; both get gradients.
        negative_keys: [M,D], shared by all queries, with a gradient if they require one; None: the positive keys of the
            other rows.
        temperature: > 0, a number or a tensor of one element, which may require a gradient.
        reduction: "none" | "mean" | "sum".
        backend: see flashnce.compat.

    Returns: float32 [], or [N] with reduction "none".

    Raises:
        TypeError, ValueError: as flashnce.torch.info_nce.
    """
    return contrast_with(
        query, positive_key, negative_keys, temperature=temperature, reduction=reduction,
        detach_key=False, backend=backend,
    )  # fmt: skip


class InfoNCELoss(nn.Module):
    """info_nce_loss as a module: `InfoNCELoss(temperature=0.07)(query, positive_key, negative_keys)`."""

    def __init__(self, *, temperature: float | Tensor, reduction: str = "mean", backend: str = "auto") -> None:
        super().__init__()
        self.temperature, self.reduction, self.backend = temperature, reduction, check_backend(backend)

    def forward(self, query: Tensor, positive_key: Tensor, negative_keys: Tensor | None = None) -> Tensor:
        return info_nce_loss(
            query, positive_key, negative_keys, temperature=self.temperature, reduction=self.reduction,
            backend=self.backend,
        )  # fmt: skip
