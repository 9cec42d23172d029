"""F.info_nce_loss and nn.InfoNCELoss as proposed for torch (pytorch#195380, open), where negatives are given.

The proposal is not merged, so `temperature` has no default here: one that differed would train another model.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from ._backend import check_backend, contrast
from ._rows import without_negatives_gradient


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
        negative_keys: [M,D], shared by all queries, as given: divided by their norms here, in a copy.
        temperature: > 0, a number or a tensor of one element, which may require a gradient.
        reduction: "none" | "mean" | "sum".
        backend: see flashnce.compat.

    Returns: float32 [], or [N] with reduction "none".

    Raises:
        NotImplementedError: negative_keys is None (in-batch negatives) or requires a gradient.
        TypeError, ValueError: as flashnce.torch.info_nce.
    """
    if negative_keys is None:
        raise NotImplementedError(
            "negative_keys is None: in-batch negatives have gradients, which this adapter does not pass on; give "
            "negatives of a queue, or call flashnce.torch.info_nce(..., batch=True)"
        )
    without_negatives_gradient("negative_keys", negative_keys)
    return contrast(
        query, positive_key, unit(negative_keys, dim=1), temperature=temperature, reduction=reduction,
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
