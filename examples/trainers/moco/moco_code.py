"""MoCo and accuracy as in facebookresearch/moco, moco/builder.py and main_moco.py, written again for one process: the
logits of N queries against K negatives are made, and the queue is [D,K]."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize


class MoCo(nn.Module):
    def __init__(self, base_encoder, dim=128, K=65536, m=0.999, T=0.07):
        super().__init__()
        self.K, self.m, self.T = K, m, T
        self.encoder_q = base_encoder(num_classes=dim)
        self.encoder_k = base_encoder(num_classes=dim)
        for param_q, param_k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            param_k.data.copy_(param_q.data)
            param_k.requires_grad = False
        self.register_buffer("queue", normalize(torch.randn(dim, K), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def _keys(self, im_k):
        for param_q, param_k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            param_k.mul_(self.m).add_(param_q.mul(1.0 - self.m))
        return normalize(self.encoder_k(im_k), dim=1)

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys):
        ptr, batch_size = int(self.queue_ptr), keys.shape[0]
        assert self.K % batch_size == 0
        self.queue[:, ptr : ptr + batch_size] = keys.T
        self.queue_ptr[0] = (ptr + batch_size) % self.K

    def forward(self, im_q, im_k):
        q = normalize(self.encoder_q(im_q), dim=1)
        k = self._keys(im_k)
        positive = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", [q, self.queue.clone().detach()])
        logits = torch.cat([positive, negative], dim=1) / self.T
        self._dequeue_and_enqueue(k)
        return logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)


@torch.no_grad()
def accuracy(output, target, topk=(1,)):
    _, predicted = output.topk(max(topk), dim=1)
    correct = predicted.eq(target[:, None])
    return [correct[:, :k].any(1).float().mean().reshape(1) * 100 for k in topk]
