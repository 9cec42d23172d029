"""contrastive_loss of moco-v3 (moco/builder.py of facebookresearch/moco-v3), whose keys are those of all processes."""

from __future__ import annotations

import torch
from torch import Tensor

from ._backend import contrast
from ._rows import gathered, own_rows


def contrastive_loss(q: Tensor, k: Tensor, T: float = 1.0, *, backend: str = "auto") -> Tensor:  # noqa: N803
    """2 T times the cross entropy of each query's key among the keys of all processes, of unit vectors: what
    MoCo.contrastive_loss(q, k) is with its self.T.

    Args:
        q: [N,D], float32, float16 or bfloat16, with a gradient.
        k: [N,D] of the momentum encoder, without one; the same N on each process.
        T: temperature, > 0.
        backend: see flashnce.compat.

    Returns: float32 [].

    Raises: TypeError, ValueError as flashnce.torch.info_nce.
    """
    everyone = gathered("k", k.detach())
    return 2 * T * contrast(
        q, k, None, batch=everyone, ids=own_rows({"q": q, "k": k}, gather=True), temperature=T, detach_key=True,
        batch_ids=torch.arange(len(everyone), device=q.device), backend=backend,
    )  # fmt: skip
