"""MoCo and accuracy of facebookresearch/moco (moco/builder.py, main_moco.py), without logits.

`loss, ranks = model(im_q=..., im_k=...)` stands for `output, target = model(...)` and `criterion(output, target)`,
and `accuracy(ranks, topk=(1, 5))` for `accuracy(output, target, topk=(1, 5))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from ..torch import FeatureTransform
from ._backend import check_backend, contrast
from ._rows import gathered, push, queue_of


class MoCo(nn.Module):
    """Query encoder, key encoder and queue, as in moco/builder.py.

    An official checkpoint loads: its `queue` [D,K] and `queue_ptr` become those of the Queue `queue`. A batch of any
    size is pushed; K need be no multiple of it.

    Args:
        base_encoder: base_encoder(num_classes=dim) makes an encoder; called twice.
        dim: features D. K: negatives. m: momentum of the key encoder. T: temperature.
        mlp: whether `fc` of both encoders becomes a head of two layers, as in MoCo v2.
        backend: see flashnce.compat.
        transform: mixes features by its schedule; whoever trains calls its step().
    """

    def __init__(
        self,
        base_encoder: Callable[..., nn.Module],
        dim: int = 128,
        K: int = 65536,
        m: float = 0.999,
        T: float = 0.07,
        mlp: bool = False,
        *,
        backend: str = "auto",
        transform: FeatureTransform | None = None,
    ) -> None:
        super().__init__()
        self.K, self.m, self.T, self.backend = K, m, T, check_backend(backend)
        self.encoder_q = base_encoder(num_classes=dim)
        self.encoder_k = base_encoder(num_classes=dim)
        if mlp:
            for encoder in (self.encoder_q, self.encoder_k):
                width = encoder.fc.weight.shape[1]
                encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder.fc)
        for query_parameter, key_parameter in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            key_parameter.data.copy_(query_parameter.data)
            key_parameter.requires_grad = False
        self.queue = queue_of(unit(torch.randn(dim, K), dim=0).T)
        self.transform = transform

    @torch.no_grad()
    def _update_key_encoder(self) -> None:
        for query_parameter, key_parameter in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            key_parameter.mul_(self.m).add_(query_parameter * (1 - self.m))

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        """The keys of `images`; under torch.distributed of batches shuffled over all processes, for their BatchNorm."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return self.encoder_k(images)
        everyone = gathered("im_k", images)
        order = torch.randperm(len(everyone)).to(images.device)
        distributed.broadcast(order, src=0)
        ranks, rank = distributed.get_world_size(), distributed.get_rank()
        keys = gathered("k", self.encoder_k(everyone[order.view(ranks, -1)[rank]]))
        return keys[torch.argsort(order).view(ranks, -1)[rank]]

    def forward(self, im_q: Tensor, im_k: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and, afterwards, a push of all processes' keys.

        Args:
            im_q, im_k: two views of a batch of N images.

        Returns:
            the loss, float32 []; ranks, int64 [N]: the negatives that score as high as the positive or higher.
        """
        q = self.encoder_q(im_q)
        with torch.no_grad():
            self._update_key_encoder()
            k = self._keys(im_k)
        given = {} if self.transform is None else self.transform()
        loss, scores = contrast(
            q, k, self.queue, temperature=self.T, detach_key=True, return_scores=True, backend=self.backend, **given
        )
        push(self.queue, gathered("k", k))
        return loss, scores.mixed.n_greater_equal


@torch.no_grad()
def accuracy(ranks: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """For each k of `topk` the percentage, float32 [1], of rows whose positive is among the k highest of all columns.

    A negative that ties with the positive counts as higher, where topk of logits takes either.

    Args:
        ranks: int64 [N], as MoCo.forward returns them.
    """
    return [(ranks < k).float().mean().reshape(1) * 100 for k in topk]
