"""Histograms through a training as densities, and the pairs beside the formula, for page and figures alike."""

from __future__ import annotations

from typing import Any

from ..scores import Run, bin_edges
from ..scores._row import BINS, WIDTH

NAMES = {"pos": "positives", "neg": "negatives"}
WHEN = {"before": "before mixing", "after": "in the loss"}
RIDGES = 12


def centres() -> list[float]:
    return [edge + WIDTH / 2 for edge in bin_edges()[:-1]]


def density(counts: list[int]) -> list[float]:
    """Per unit of score; what lies outside the bins is a part of the whole."""
    total = sum(counts)
    return [count / (total * WIDTH) if total else 0.0 for count in counts[1 : BINS + 1]]


def outside(counts: list[int]) -> float:
    """The part of the scores that lies outside the bins."""
    total = sum(counts)
    return (counts[0] + counts[-1]) / total if total else 0.0


def chosen(details: list[dict[str, Any]], most: int) -> list[int]:
    """Indices of at most so many, evenly spread, the first and the last among them."""
    if len(details) <= most:
        return list(range(len(details)))
    return [round(i * (len(details) - 1) / (most - 1)) for i in range(most)]


def expected(score: float, factor: float) -> float:
    """The score of an extrapolated pair of unit vectors, equation (2)."""
    return score + 2 * factor * (1 - factor) * (1 - score)


def _pairs(one: dict[str, Any]) -> dict[str, list[float]]:
    """Pairs of a step, before and after, that are finite: a log has null for what is not."""
    lists = [one.get("pairs", {}).get(when) or [] for when in WHEN]
    both = [pair for pair in zip(*lists) if None not in pair]
    return {when: [round(pair[i], 4) for pair in both] for i, when in enumerate(WHEN)}


def series(run: Run, most: int = 200) -> dict[str, Any] | None:
    """Densities, pairs and lambdas of the steps with details; None where the run has none."""
    kept = [run.details[i] for i in chosen(run.details, most)]
    if not kept:
        return None
    names = [name for name in ("pos_before", "pos_after", "neg_before", "neg_after")
             if all(name in one["histograms"] for one in kept)]  # fmt: skip
    # Where nothing is ever mixed there is nothing to show beside.
    mixes = any(one["histograms"].get(f"{side}_after") != one["histograms"].get(f"{side}_before")
                for one in kept for side in NAMES)  # fmt: skip
    if not mixes:
        names = [name for name in names if name.endswith("before")]
    return {
        "mixes": mixes,
        "steps": [one["step"] for one in kept],
        "densities": {name: [[round(x, 5) for x in density(one["histograms"][name])] for one in kept]
                      for name in names},
        "outside": {name: [round(outside(one["histograms"][name]), 5) for one in kept] for name in names},
        "pairs": [_pairs(one) for one in kept],
        "lambda": [one.get("lambda_pos") for one in kept],
        "lambda_neg": [one.get("lambda_neg") for one in kept],
    }  # fmt: skip
