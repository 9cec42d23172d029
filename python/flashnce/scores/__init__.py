"""Score statistics while training: collected, written, read and explained.

    from flashnce.scores import ScoreMeter
    with ScoreMeter("runs/ft-0", details_every=200) as meter:
        ...
        meter.update(loss, scores, q=q, k=k, negatives=queue, criterion=criterion)

`python -m flashnce report RUN ...` makes a page of what it wrote, `python -m flashnce watch RUN` shows it while it is
written. read_run reads it back. explain says what one call does to one batch.

Reading needs neither NumPy nor torch; ScoreMeter and explain need PyTorch; a sink needs its own package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._folder import RunError, RunFolder
from ._row import COLUMNS, bin_edges, merge_rows
from ._runs import Run, read_run
from ._sinks import AuthorsNpy, Dictionary, Parquet, Sink, TensorBoard

if TYPE_CHECKING:
    from ._explain import Explanation, explain
    from ._meter import ScoreMeter

__all__ = [
    "COLUMNS", "AuthorsNpy", "Dictionary", "Explanation", "Parquet", "Run", "RunError", "RunFolder", "ScoreMeter",
    "Sink", "TensorBoard", "bin_edges", "explain", "merge_rows", "read_run",
]  # fmt: skip

_TORCH = {"Explanation": "_explain", "explain": "_explain", "ScoreMeter": "_meter"}


def __getattr__(name: str):
    if name in _TORCH:
        return getattr(importlib.import_module(f"{__name__}.{_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
