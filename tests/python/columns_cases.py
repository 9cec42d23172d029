"""The data and options that tests of columns beyond the queue share."""

from __future__ import annotations

import math

import torch
from support import batch, generator

from flashnce import NO_COLUMN

N, K, C, D, TAU = 24, 80, 37, 12, 0.2


def data(n: int = N, k: int = K, c: int = C, d: int = D, dtype: torch.dtype = torch.float32):
    """q, k, negatives and batch columns near q; all but the negatives require a gradient."""
    q, key, negatives = batch(n, k, d)
    near = q.detach()[torch.arange(c) % n] if n else q.detach().new_zeros(c, d)
    x_c = near + 0.7 * torch.randn(c, d, generator=generator(4))
    q, key, x_c = (x.detach().to(dtype).requires_grad_() for x in (q, key, x_c))
    return q, key, negatives, x_c


def ids_of(n: int = N, k: int = K, c: int = C) -> dict:
    own = generator(5)
    ids, negative_ids, batch_ids = (torch.randint(0, 6, (size,), generator=own) for size in (n, k, c))
    ids[-1] = negative_ids[::9] = batch_ids[::7] = NO_COLUMN
    return {"ids": ids, "negative_ids": negative_ids, "batch_ids": batch_ids}


def biases_of(k: int = K, c: int = C) -> dict:
    bias, batch_bias = (torch.randn(size, generator=generator(6)) for size in (k, c))
    bias[3:6] = batch_bias[5] = -math.inf
    return {"bias": bias, "batch_bias": batch_bias}


OPTIONS = {
    "a batch": {},
    "ids": {**ids_of()},
    "bias": {**biases_of()},
    "margin": {"margin": 0.05},
    "everything": {**ids_of(), **biases_of(), "margin": 0.05},
}
