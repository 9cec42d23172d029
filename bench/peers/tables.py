"""Who takes part in which table of a record, and what is compared with what there.

A table is a function of a job that gives the peers, name: maker, a maker being a function of the inputs, and the names
of those that the ratios of every peer are taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from . import ours, pages, steps
from .steps import Inputs, Shape

GEMMS = ("gemms-torch", "gemms-numpy")
TRANSFORMATIONS = ("moco", "ft", "ft-elementwise")
TYPES = ("float32", "bfloat16", "float16")
Makers = dict[str, Callable[[Inputs], object]]

# name: (numerator, denominator), for every cell in which both ran
COMPARISONS = {
    "FT over no FT": ("flashnce-ft-c", "flashnce-moco-c"),
    "elementwise FT over no FT": ("flashnce-ft-elementwise-c", "flashnce-moco-c"),
    "binding over C interface": ("flashnce-ft-torch", "flashnce-ft-c"),
    "MoCo code over FlashNCE": ("moco-code", "flashnce-moco-torch"),
    "eager FT over FlashNCE": ("eager-ft", "flashnce-ft-torch"),
    "compiled FT over FlashNCE": ("compiled-ft", "flashnce-ft-torch"),
    "eager elementwise FT over FlashNCE": ("eager-ft-elementwise", "flashnce-ft-elementwise-torch"),
    **{
        f"{element} over float32, {transformation}": (
            f"flashnce-{transformation}-{element}",
            f"flashnce-{transformation}-float32",
        )
        for element in TYPES[1:]
        for transformation in TRANSFORMATIONS
    },
    **{
        f"{element} {transformation} over its GEMMs": (
            f"flashnce-{transformation}-{element}",
            f"gemms-torch-{element}",
        )
        for element in TYPES[1:]
        for transformation in TRANSFORMATIONS
    },
    "queue on 2M pages over 4K": ("ft-queue-2m", "ft-4k"),
    "all on 2M pages over 4K": ("ft-all-2m", "ft-4k"),
}


class Optional:
    """A maker whose peer this build of the library, or this processor, need not have."""

    def __init__(self, make: Callable[[Inputs], object], missing: Callable[[], str | None] = lambda: None) -> None:
        self.make, self.missing = make, missing

    def __call__(self, inputs: Inputs) -> object:
        return self.make(inputs)


def c_interface(transformation: str) -> Callable[[Inputs], object]:
    return partial(ours.CInterface, transformation=transformation)


def all_steps(job: dict, inputs: Inputs | None) -> tuple[Makers, tuple[str, ...]]:
    peers: Makers = {"gemms-torch": steps.TorchGemms, "gemms-numpy": steps.NumpyGemms}
    for transformation in TRANSFORMATIONS:
        peers[f"flashnce-{transformation}-c"] = c_interface(transformation)
        peers[f"flashnce-{transformation}-torch"] = partial(ours.Binding, transformation=transformation)
    peers |= {
        "moco-code": steps.MocoCode,
        "eager-ft": steps.EagerFt,
        "compiled-ft": steps.CompiledFt,
        "eager-ft-elementwise": steps.EagerFtElementwise,
    }
    return {name: make for name, make in peers.items() if name not in job["without"]}, GEMMS


def c_steps(job: dict, inputs: Inputs) -> tuple[Makers, tuple[str, ...]]:
    """FlashNCE in C and the GEMMs, of which one pair of arrays of scores is enough."""
    scores = torch.zeros(inputs.shape.n, inputs.shape.k)
    peers: Makers = {
        "gemms-torch": partial(steps.TorchGemms, scores=scores),
        "gemms-numpy": partial(steps.NumpyGemms, scores=scores),
    }
    for transformation in ("ft",) if job["table"] == "shapes" else TRANSFORMATIONS:
        peers[f"flashnce-{transformation}-c"] = c_interface(transformation)
    return peers, GEMMS


def typed(make: Callable[[Inputs], object], element: str) -> Callable[[Inputs], object]:
    return lambda inputs: make(inputs.of_type(getattr(torch, element)))


def types(job: dict, inputs: Inputs) -> tuple[Makers, tuple[str, ...]]:
    """Features and queue of one type, as a trainer under autocast has them."""
    peers: Makers = {
        "gemms-torch": steps.TorchGemms,
        "gemms-numpy": steps.NumpyGemms,
        "gemms-torch-bfloat16": typed(steps.TorchGemms, "bfloat16"),
        "gemms-torch-float16": Optional(typed(steps.HalfGemms, "float16"), steps.HalfGemms.missing),
    }
    for element in TYPES:
        for transformation in TRANSFORMATIONS:
            make = typed(c_interface(transformation), element)
            peers[f"flashnce-{transformation}-{element}"] = make if element == "float32" else Optional(make)
    return peers, GEMMS


def page_sizes(job: dict, inputs: Inputs) -> tuple[Makers, tuple[str, ...]]:
    """FT with its queue, then also its workspace, on large pages."""
    places = {"ft-4k": (False, False), "ft-queue-2m": (True, False), "ft-all-2m": (True, True)}
    return {
        name: Optional(partial(pages.make, large_queue=queue, large_workspace=workspace), pages.missing)
        for name, (queue, workspace) in places.items()
    }, ()


# table: what makes its peers
TABLES = {"steps": all_steps, "shapes": c_steps, "types": types, "isa": c_steps, "pages": page_sizes}
# Tables whose errors are of a few queries against float64; of the others, of all.
SOME_ROWS = ("shapes", "types", "isa", "pages")


def step_of(shape: Shape) -> float:
    """Operations of the two matrix products."""
    return 4.0 * shape.n * shape.k * shape.d
