"""Who computes an adapter's loss: the library or the reference, and never the second without a word."""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from .. import reference
from .._options import Mix, choice
from ..torch import Queue, Scores, ScoreStatistics, ShardedQueue, clip_loss
from ..torch import info_nce as fused
from ..torch._arguments import temperature_of

BACKENDS = ("auto", "fused", "reference")
VARIABLE = "FLASHNCE_COMPAT_BACKEND"
_override = os.environ.get(VARIABLE) or None


def check_backend(backend: str) -> str:
    """`backend`, or what the environment says instead, if it is one of BACKENDS."""
    choice("backend", backend, BACKENDS)
    if _override is None:
        return backend
    choice(f"{VARIABLE} in the environment", _override, BACKENDS)
    return _override


def _chosen(backend: str, q: Tensor) -> str:
    backend = check_backend(backend)
    if backend != "auto" or not isinstance(q, Tensor):
        return "fused" if backend == "auto" else backend
    if q.dtype == torch.float64:
        reason = "the features are float64"
    elif q.device.type not in ("cpu", "cuda"):
        reason = f"the features are on {q.device}"
    else:
        return "fused"
    warnings.warn(
        f"flashnce.compat: the reference computes this loss, with all logits in memory, because {reason}; "
        "backend='fused' makes this an error, backend='reference' makes it no warning",
        RuntimeWarning,
        stacklevel=4,
    )
    return "reference"


def contrast_with(q: Tensor, k: Tensor, negatives: Tensor | None, *, backend: str, **options) -> Tensor:
    """The loss of unit vectors, where negatives [M,D] are divided by their norms as well and may have a gradient; None:
    the keys of the other rows."""
    if negatives is None:
        return contrast(q, k, None, batch=True, backend=backend, **options)
    if negatives.requires_grad and torch.is_grad_enabled():
        return contrast(q, k, None, batch=negatives, backend=backend, **options)
    return contrast(q, k, unit(negatives, dim=1), backend=backend, **options)


def contrast(
    q: Tensor,
    k: Tensor,
    negatives: Queue | ShardedQueue | Tensor | None,
    *,
    backend: str,
    return_scores: bool = False,
    **options,
) -> Tensor | tuple[Tensor, Scores]:
    """The loss of equation (7) by the backend that is asked for.

    Args:
        q, k, negatives: [N,D], [N,D], and a Queue or [K,D] or None, as of flashnce.torch.info_nce.
        options: gather, and any of its keyword arguments that the reference knows as well: batch, ids, batch_ids,
            temperature, normalize, positive, negative, columns, detach_key, reduction, weight, lambda_pos,
            lambda_neg, permutation, seed.

    Returns:
        the loss, float32 [] or [N], and with return_scores its Scores.
    """
    if _chosen(backend, q) == "fused":
        return fused(q, k, negatives, return_scores=return_scores, **options)
    if options.pop("gather", False):
        raise ValueError("columns of several processes are asked for; the reference has those of one")
    return _by_reference(q, k, negatives, return_scores, **options)


def contrast_pairs(
    a: Tensor, b: Tensor, *, logit_scale: float | Tensor, normalize: bool = True, gather: bool = False, backend: str
) -> Tensor:
    """The mean of flashnce.torch.clip_loss, float32 [], of a and b [N,D] by the backend that is asked for; with
    `gather` each side's columns are those of all processes."""
    backend = _chosen(backend, a)
    # clip_loss, which makes each score once for both directions, runs on the CPU alone and in one process.
    if not gather and backend == "fused" and a.device.type != "cuda":
        return clip_loss(a, b, logit_scale=logit_scale, normalize=normalize)
    # The reference takes all that a scale of float64 has.
    dtype = torch.float32 if backend == "fused" else torch.float64
    temperature = temperature_of("logit_scale", logit_scale, dtype)
    options = {"batch": True, "temperature": temperature, "normalize": normalize, "backend": backend}
    if gather:
        options["gather"] = True
    return 0.5 * (contrast(a, b, None, **options) + contrast(b, a, None, **options))


def _by_reference(q, k, negatives, return_scores, positive=None, negative=None, seed=None, **options):
    if isinstance(negatives, ShardedQueue):
        raise ValueError("negatives is a ShardedQueue; backend='reference' takes a Queue or a Tensor of all negatives")
    rows = negatives
    if isinstance(negatives, Queue):
        # Empty slots count for nobody.
        rows, options = negatives.queue, {"negative_ids": negatives.ids} | options
    drawn, seed = _drawn(q, rows, positive, negative, seed, options)
    result = reference.info_nce(
        q, k, rows,
        renormalize_pos=positive is not None and positive.renormalize,
        renormalize_neg=negative is not None and negative.renormalize,
        return_scores=return_scores, **options | drawn,
    )  # fmt: skip
    if not return_scores:
        return result.float()
    loss, *statistics = result
    mixed, unmixed = (_statistics(named) for named in statistics)
    return loss.float(), Scores(mixed, unmixed, seed, 0)


def _statistics(named: dict[str, Tensor]) -> ScoreStatistics:
    single = {name: value.float() if value.is_floating_point() else value for name, value in named.items()}
    return ScoreStatistics(**single, dq_norm=None)


def _drawn(q: Tensor, rows: Tensor | None, positive: Mix | None, negative: Mix | None, seed, options: dict):
    """What the library would draw from this seed and is not given, as keyword arguments, and the seed."""
    from .. import permutation, sample_lambda

    drawn = {}
    mixed = negative is not None or options.get("lambda_neg") is not None
    sides = {
        "lambda_pos": ("positive", positive, q.shape[0]),
        "lambda_neg": ("negative", negative, 0 if rows is None else rows.shape[0]),
    }
    wanted = {name: s for name, s in sides.items() if s[1] is not None and options.get(name) is None}
    permuted = mixed and options.get("permutation") is None
    if not wanted and not permuted:
        return drawn, None
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (1,), dtype=torch.int64, device=q.device)
    # The library reads an int64 as 64 bits without a sign.
    number = int(seed) % 2**64
    for name, (side, mix, count) in wanted.items():
        drawn[name] = torch.from_numpy(sample_lambda(side, mix, count, q.shape[1], seed=number)).to(q.device)
    if permuted:
        drawn["permutation"] = torch.from_numpy(permutation(rows.shape[0], seed=number).astype("int64")).to(q.device)
    return drawn, seed
