"""Features of some steps, and a comparison of an adapter with what it stands for."""

from __future__ import annotations

import torch
from support import assert_close, bound
from torch.nn.functional import normalize

STEPS, D = 50, 24
TEMPERATURES = [0.07, 0.5]


def features(sizes=(32,), steps=STEPS, seed=0):
    """Queries and keys [N,D] of each step, with the sizes in turn.

    Keys are so far from their queries that no loss is small: the packages compute a small one to fewer digits.
    """
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        n = sizes[step % len(sizes)]
        q = torch.randn(n, D, generator=generator)
        yield q, q + 2 * torch.randn(n, D, generator=generator)


def leaves(q, k, key_gradient):
    return q.clone().requires_grad_(), k.clone().requires_grad_(key_gradient)


def compare(peer_loss, own_loss, temperature, *, key_gradient=True, unit=False, sizes=(32,), after=lambda: None):
    """Runs both on the same features: losses and gradients of each step, then `after`, which compares states.

    Both compute in float32, each as far from the truth as `bound` says.
    """
    for q, k in features(sizes):
        if unit:
            q, k = normalize(q, dim=1), normalize(k, dim=1)
        results = []
        for loss_of in (peer_loss, own_loss):
            one_q, one_k = leaves(q, k, key_gradient)
            loss = loss_of(one_q, one_k)
            wanted = (one_q, one_k) if key_gradient else (one_q,)
            results.append((loss.detach(), *torch.autograd.grad(loss.sum(), wanted)))
        for name, expected, actual in zip(("loss", "dq", "dk"), *results):
            assert_close(actual, expected, 2 * bound(temperature), name)
        after()
