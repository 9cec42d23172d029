"""What the Python tests share: data, the reference with what a seed drew, the tolerance, the compilers.

Data is drawn on the CPU, so that it is the same for every device of torch_device.py, and lies on torch's default one.

Tolerance, one rule: the fast path computes scores in float32, each off by a few units of 2^-23 of the largest score;
the loss moves with score / temperature by at most the same, and a gradient, relative to its largest element, likewise.
Matrix units multiply 16-bit numbers, and round to them what is not of that type: typed_bound.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil

import pytest
import torch
import torch_device
from torch import Tensor
from torch.nn.functional import normalize

import flashnce
from flashnce import _library as c
from flashnce import reference
from flashnce.torch import _call, _ops

cpu_only = pytest.mark.skipif(not torch_device.is_cpu(), reason="what only the CPU backend promises")

# The backends of torch.compile; "inductor" needs a C++ compiler, and Triton for a GPU.
BACKENDS = ["aot_eager"]
if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
    if not torch_device.name().startswith("cuda") or importlib.util.find_spec("triton"):
        BACKENDS.append(pytest.param("inductor", marks=pytest.mark.full))

EPSILON = 2.0**-23
UNITS = 8
# Rounding to bfloat16 moves a number by this, relatively, in the mean, and by twice that at most.
BFLOAT16_UNIT = 2.0**-9
# The same for the products that a plan says it has.
PRODUCT_UNITS = {c.PRODUCTS["bfloat16"]: BFLOAT16_UNIT, c.PRODUCTS["float16"]: 2.0**-12}


def instruction_sets() -> list[str]:
    """Those that this library can use on this processor, worst first."""
    return re.search(r"cpu \(\w+ of ([\w, ]+)\)", c.LIBRARY.fnce_build_info().decode())[1].split(", ")


def generator(seed: int) -> torch.Generator:
    """Of the default device."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def rng_state() -> Tensor:
    """Of the default device's default generator."""
    return torch.cuda.get_rng_state() if torch.get_default_device().type == "cuda" else torch.get_rng_state()


def set_rng_state(state: Tensor) -> None:
    if torch.get_default_device().type == "cuda":
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def batch(n: int = 24, k: int = 80, d: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """q that requires a gradient, k near it, unit negatives."""
    options = {"generator": torch.Generator().manual_seed(seed), "device": "cpu"}
    q = torch.randn(n, d, **options)
    key = q + 0.5 * torch.randn(n, d, **options)
    negatives = normalize(torch.randn(k, d, **options), dim=1)
    q, key, negatives = (x.to(torch.get_default_device()) for x in (q, key, negatives))
    return q.requires_grad_(), key, negatives


def drawn(positive, negative, n: int, k: int, d: int, seed: int, offset: int = 0, device=None) -> dict:
    """The keyword arguments that give the reference (or an explicit call) what this seed draws."""
    given, at = {}, {"seed": seed, "offset": offset}
    if positive is not None:
        given["lambda_pos"] = flashnce.sample_lambda("positive", positive, n, d, **at)
    if negative is not None:
        given["lambda_neg"] = flashnce.sample_lambda("negative", negative, k, d, **at)
        given["permutation"] = flashnce.permutation(k, **at).astype("int64")
    device = torch.get_default_device() if device is None else device
    return {name: torch.from_numpy(value).to(device) for name, value in given.items()}


def reference_of(q, k, negatives, positive=None, negative=None, *, seed: int = 0, offset: int = 0, **options):
    """flashnce.reference.info_nce for the arguments of flashnce.torch.info_nce."""
    given = drawn(positive, negative, *q.shape[:1], negatives.shape[0], q.shape[1], seed, offset, q.device)
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


@functools.cache
def product_unit(queue: torch.dtype, device: torch.device) -> float:
    """What the products of a plan with such a queue round anchors, softmax weights and mixed rows to; 0: they do
    not."""
    one = torch.ones(1, 1, device=device)
    return PRODUCT_UNITS.get(_call.plan_of(one, one.to(queue), _ops.PLAIN).info().products, 0.0)


def typed_bound(queue: torch.dtype, temperature: float, largest_score: float = 1.0, device=None) -> float:
    """With a bfloat16 queue anchors and softmax weights may be rounded to bfloat16; so may they to float16 on a GPU."""
    unit = product_unit(queue, torch.get_default_device() if device is None else device)
    if queue == torch.bfloat16:
        unit = max(unit, BFLOAT16_UNIT)
    return max(bound(temperature, largest_score), unit * (1 + largest_score / temperature))


def scores_call(q, k, negatives, temperature=None, value: float = 0.2, normalize: bool = True) -> tuple:
    """The arguments of the operator `scores`."""
    structure = _ops.PLAIN._replace(normalize=int(normalize))
    return *_call.Inputs(q, k, negatives, temperature=temperature), list(structure), [value, 1.0, 0.0, 1.0, 0.0, 0.0]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """Each element within `tolerance` times the largest expected magnitude (1e-3, where that is nearly 0)."""
    assert actual.shape == expected.shape, f"{what} {list(actual.shape)} {list(expected.shape)}"
    error = (actual.detach().double() - expected.detach().double()).abs().max().item() if actual.numel() else 0.0
    allowed = tolerance * max(expected.detach().abs().max().item(), 1e-3) if actual.numel() else 0.0
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


def gradients(loss: Tensor, *inputs: Tensor, upstream: Tensor | None = None) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs, upstream, retain_graph=True))
