"""What the Python tests share: data, the reference with what a seed drew, the tolerance, the compilers.

Tolerance, one rule: the fast path computes scores in float32, each off by a few units of 2^-23 of the largest score; the
loss moves with score / temperature by at most the same, and a gradient, relative to its largest element, likewise.
"""

from __future__ import annotations

import shutil

import torch
from torch import Tensor
from torch.nn.functional import normalize

import flashnce
from flashnce import reference

# Of torch.compile; "inductor" needs a C++ compiler.
BACKENDS = ["aot_eager"]
if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
    BACKENDS.append("inductor")

EPSILON = 2.0**-23
UNITS = 8
# What rounding to bfloat16 moves a number by, relatively, in the mean; at most it is twice that.
BFLOAT16_UNIT = 2.0**-9


def batch(n: int = 24, k: int = 80, d: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """q that requires a gradient, k near it, unit negatives."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(n, d, generator=generator)
    key = q + 0.5 * torch.randn(n, d, generator=generator)
    negatives = normalize(torch.randn(k, d, generator=generator), dim=1)
    return q.requires_grad_(), key, negatives


def drawn(positive, negative, n: int, k: int, d: int, seed: int, offset: int = 0) -> dict:
    """The keyword arguments that give the reference (or an explicit call) what this seed draws."""
    given, at = {}, {"seed": seed, "offset": offset}
    if positive is not None:
        given["lambda_pos"] = torch.from_numpy(flashnce.sample_lambda("positive", positive, n, d, **at))
    if negative is not None:
        given["lambda_neg"] = torch.from_numpy(flashnce.sample_lambda("negative", negative, k, d, **at))
        given["permutation"] = torch.from_numpy(flashnce.permutation(k, **at)).long()
    return given


def reference_of(q, k, negatives, positive=None, negative=None, *, seed: int = 0, offset: int = 0, **options):
    """flashnce.reference.info_nce for the arguments of flashnce.torch.info_nce."""
    given = drawn(positive, negative, *q.shape[:1], negatives.shape[0], q.shape[1], seed, offset)
    return reference.info_nce(
        q, k, negatives, **given,
        renormalize_pos=positive is not None and positive.renormalize,
        renormalize_neg=negative is not None and negative.renormalize,
        **options,
    )  # fmt: skip


def largest_score(statistics: dict) -> float:
    """The largest magnitude among the scores of the reference's statistics."""
    return max(statistics[name].abs().max().item() for name in ("pos", "neg_min", "neg_max"))


def bound(temperature: float, largest_score: float = 1.0) -> float:
    return UNITS * EPSILON * (1 + largest_score / temperature)


def typed_bound(queue: torch.dtype, temperature: float, largest_score: float = 1.0) -> float:
    """With a bfloat16 queue anchors and softmax weights may be rounded to bfloat16."""
    if queue == torch.bfloat16:
        return BFLOAT16_UNIT * (1 + largest_score / temperature)
    return bound(temperature, largest_score)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """Each element within `tolerance` times the largest expected magnitude (1e-3, where that is nearly 0)."""
    assert actual.shape == expected.shape, f"{what} {list(actual.shape)} {list(expected.shape)}"
    error = (actual.detach().double() - expected.detach().double()).abs().max().item() if actual.numel() else 0.0
    allowed = tolerance * max(expected.detach().abs().max().item(), 1e-3) if actual.numel() else 0.0
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


def gradients(loss: Tensor, *inputs: Tensor, upstream: Tensor | None = None) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs, upstream, retain_graph=True))
