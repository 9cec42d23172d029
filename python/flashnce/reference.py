"""The loss in plain PyTorch and float64, written to be read: the twin that the fast path is tested against.

Equations are those of docs/maths.md. Everything random is an input (flashnce.sample_lambda and flashnce.permutation
give what a seed draws), gradients come from autograd, and nothing is clever. Memory and time are those of the [N,K]
logits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from ._options import choice, key_is_detached, resolve_columns


def info_nce(
    q: Tensor,
    k: Tensor,
    negatives: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    epsilon: float = 1e-12,
    lambda_pos: Tensor | None = None,
    lambda_neg: Tensor | None = None,
    permutation: Tensor | None = None,
    renormalize_pos: bool = False,
    renormalize_neg: bool = False,
    columns: str | None = None,
    anchor: str = "mixed",
    detach_key: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
    return_scores: bool = False,
):
    """InfoNCE of queries against their keys and a queue of negatives, with both feature transformations.

    Args:
        q, k: [N,D] raw features, any floating type. Computed in float64.
        negatives: [K,D], used as it is.
        temperature: tau, a number or a tensor of one element; has a gradient.
        lambda_pos: broadcastable to [N,D]: [], [N,1], [1,D] or [N,D]; None: no mixing, equation (2).
        lambda_neg: broadcastable to [K,D]; None: no mixing, equation (3). Needs `permutation`, int64 [K].
        columns: "queue" | "mixed" | "union", equation (5); None: "mixed" where lambda_neg is given, else "queue".
        anchor: "mixed" | "query", equation (6).
        detach_key: whether k gets no gradient; None: it gets none, and an error where it requires one.
        reduction: "none" | "mean" | "sum", equation (7), with `weight` [N]; a weight of 0 selects an exact 0.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or value; the sentence names it.

    Returns:
        the loss, float64, [] or [N]; with return_scores (loss, mixed, unmixed): two dicts of equation (9).
    """
    for name, value in (("q", q), ("k", k), ("negatives", negatives)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; it must be a Tensor")
        if value.dim() != 2 or value.shape[1] != q.shape[1] or (name == "k" and k.shape != q.shape):
            raise ValueError(f"{name} has shape {list(value.shape)}; q and k must be [N,D], negatives [K,D]")
        if not value.is_floating_point():
            raise TypeError(f"{name} has type {value.dtype}; it must be a floating type")
    if weight is not None and tuple(weight.shape) != (len(q),):
        raise ValueError(f"weight has shape {list(weight.shape)}; it must be [{len(q)}]")
    if (lambda_neg is None) != (permutation is None):
        raise ValueError("lambda_neg and permutation belong together; give both or neither")
    choice("anchor", anchor, ("mixed", "query"))
    choice("reduction", reduction, ("none", "mean", "sum"))
    resolve_columns(columns, lambda_neg is not None)
    if key_is_detached(detach_key, k.requires_grad and torch.is_grad_enabled()):
        k = k.detach()
    q, k, negatives = q.double(), k.double(), negatives.double()
    lambda_pos = None if lambda_pos is None else torch.as_tensor(lambda_pos).double()
    lambda_neg = None if lambda_neg is None else torch.as_tensor(lambda_neg).double()
    if weight is not None:
        # A row of weight 0 is replaced before anything is computed, so that not even a NaN of it comes through.
        active = (weight != 0)[:, None]
        q, k = torch.where(active, q, 1.0), torch.where(active, k, 1.0)
    if normalize:
        q, k = unit(q, dim=1, eps=epsilon), unit(k, dim=1, eps=epsilon)  # (1)
    q_mixed, k_mixed, negatives_mixed = q, k, negatives
    if lambda_pos is not None:
        q_mixed, k_mixed = lambda_pos * q + (1 - lambda_pos) * k, lambda_pos * k + (1 - lambda_pos) * q  # (2)
        if renormalize_pos:
            q_mixed, k_mixed = unit(q_mixed, dim=1, eps=epsilon), unit(k_mixed, dim=1, eps=epsilon)  # (4)
    if lambda_neg is not None:
        negatives_mixed = lambda_neg * negatives + (1 - lambda_neg) * negatives[permutation.long()]  # (3)
        if renormalize_neg:
            negatives_mixed = unit(negatives_mixed, dim=1, eps=epsilon)  # (4)
    a = {"mixed": q_mixed, "query": q}[anchor]  # (6)
    columns = columns or ("queue" if lambda_neg is None else "mixed")
    z = {"queue": negatives, "mixed": negatives_mixed, "union": torch.cat([negatives_mixed, negatives])}[columns]  # (5)

    positive = (q_mixed * k_mixed).sum(1)
    negative = a @ z.T
    x = torch.logsumexp(negative / temperature, dim=1) - positive / temperature  # (7)
    loss = torch.logaddexp(x, torch.zeros_like(x))
    if weight is not None:
        loss = torch.where(weight != 0, weight.double() * loss, 0.0)
    loss = {"none": loss, "mean": loss.sum() / len(loss), "sum": loss.sum()}[reduction]
    if not return_scores:
        return loss
    return loss, statistics(positive, negative, temperature), statistics((q * k).sum(1), a @ negatives.T, temperature)


@torch.no_grad()
def statistics(positive: Tensor, negative: Tensor, temperature: float | Tensor) -> dict[str, Tensor]:
    """Equation (9) of positive scores [N] and negative scores [N,K], without the ties of float32."""
    n, k = negative.shape
    log_p = torch.log_softmax(torch.cat([positive[:, None], negative], 1) / temperature, dim=1)
    none = lambda value: torch.full((n,), value, dtype=torch.float64, device=negative.device)  # noqa: E731
    return {
        "pos": positive,
        "neg_count": torch.full((n,), k, device=negative.device),
        "neg_mean": negative.mean(1) if k else none(0.0),
        "neg_variance": negative.var(1) if k > 1 else none(math.nan),
        "neg_min": negative.amin(1) if k else none(math.inf),
        "neg_max": negative.amax(1) if k else none(-math.inf),
        "neg_log_mean_exp": torch.logsumexp(negative / temperature, 1) - math.log(k) if k else none(-math.inf),
        "n_greater": (negative > positive[:, None]).sum(1),
        "n_greater_equal": (negative >= positive[:, None]).sum(1),
        "entropy": -(log_p.exp() * log_p).nan_to_num(nan=0.0).sum(1),
    }
