"""FlashNCE: the contrastive loss of a training step, and its gradients, in one fused pass.

    flashnce.torch       the loss for PyTorch: InfoNCE, Queue, ShardedQueue, Mix, info_nce, scores
    flashnce.compat      losses of other trainers, such as MoCo's and lightly's, with this one underneath
    flashnce.jax         the loss for JAX: info_nce
    flashnce.info_nce, flashnce.clip_loss    the losses for NumPy arrays
    flashnce.scores      score statistics while training, written, read and explained
    flashnce.reference   the loss in plain PyTorch and float64, to read and to test against
    flashnce.sample_lambda, flashnce.permutation    what a seed draws
    flashnce.NO_COLUMN   the id of a column that is nobody's negative

Importing this needs neither NumPy, torch nor JAX; each part imports what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import _library
from ._library import NO_COLUMN
from ._options import PRESETS, Mix

if TYPE_CHECKING:
    from . import compat as compat
    from . import jax as jax
    from . import reference as reference
    from . import scores as scores
    from . import torch as torch
    from .numpy_api import Result, info_nce, permutation, sample_lambda
    from .numpy_pairs import PairsResult, clip_loss

__version__ = _library.VERSION
__all__ = [
    "NO_COLUMN", "PRESETS", "Mix", "PairsResult", "Result", "clip_loss", "info_nce", "permutation", "sample_lambda",
]  # fmt: skip


def __getattr__(name: str):
    if name in ("compat", "jax", "reference", "scores", "torch"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("Result", "info_nce", "permutation", "sample_lambda"):
        return getattr(importlib.import_module(f"{__name__}.numpy_api"), name)
    if name in ("PairsResult", "clip_loss"):
        return getattr(importlib.import_module(f"{__name__}.numpy_pairs"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "compat", "jax", "reference", "scores", "torch"})
