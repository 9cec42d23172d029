"""What the trainer takes from moco-v3 of Facebook Research (moco/builder.py), of one process."""

import torch
from torch import nn


def contrastive_loss(q, k, T):  # noqa: N803
    # normalize
    q = nn.functional.normalize(q, dim=1)
    k = nn.functional.normalize(k, dim=1)
    # Einstein sum is more intuitive
    logits = torch.einsum("nc,mc->nm", [q, k]) / T
    labels = torch.arange(logits.shape[0], dtype=torch.long)
    return nn.CrossEntropyLoss()(logits, labels) * (2 * T)
