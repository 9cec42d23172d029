"""mocov2plus_loss_func as in solo-learn, solo/losses/mocov2plus.py, written again: unit vectors, a queue [D,K]."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def mocov2plus_loss_func(query, key, queue, temperature=0.1):
    positive = torch.einsum("nc,nc->n", [query, key]).unsqueeze(-1)
    negative = torch.einsum("nc,ck->nk", [query, queue])
    logits = torch.cat([positive, negative], dim=1) / temperature
    return cross_entropy(logits, torch.zeros(len(query), device=query.device, dtype=torch.long))
