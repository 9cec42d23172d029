"""What is kept of one step: the columns of a log, with their units, and how the rows of several ranks become one.

It needs neither NumPy nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

FORMAT, VERSION = "flashnce-scores", 1

Row = dict[str, float]

# Where scores come from: those of the loss; q.k and a.z_j before q, k and the negatives are mixed; q.k and q.z_j, on
# steps with details and every raw_every steps.
SETS = ("mixed", "unmixed", "raw")
# The columns of one set: meaning, what weighs it where rows are merged.
SET_COLUMNS = {
    "pos_mean": ("mean over the queries of the positive's score", "rows"),
    "pos_variance": ("its unbiased variance over the queries", "rows"),
    "neg_mean": ("mean over the queries of the mean of their negatives' scores", "neg_rows"),
    "neg_variance": ("mean over the queries of the unbiased variance of their negatives' scores", "neg_pairs"),
    "neg_log_mean_exp": ("mean over the queries of log mean exp(score / temperature)", "neg_rows"),
    "neg_min": ("least score of a negative", "min"),
    "neg_max": ("largest score of a negative", "max"),
    "acc1": ("part of the queries whose positive lies above all negatives", "rows"),
    "acc5": ("part of the queries with fewer than five negatives at or above the positive", "rows"),
    "neg_count": ("scores of negatives", "sum"),
    "neg_rows": ("queries that have a negative", "sum"),
    "neg_pairs": ("queries that have two negatives", "sum"),
}
COMMON_COLUMNS = {
    "rows": ("queries", "sum"),
    "loss": ("mean of the loss, nats", "rows"),
    "entropy": ("mean entropy of the softmax over all columns, nats", "rows"),
    "effective_negatives": ("mean of exp(entropy)", "rows"),
    "gradient_norm": ("mean over the queries of the L2 norm of their row of q's gradient", "rows"),
}
WHEN = ("step", "epoch", "seconds")
MEASURED = (*COMMON_COLUMNS, *(f"{name}_{column}" for name in SETS for column in SET_COLUMNS))
COLUMNS = (*WHEN, *MEASURED)


def _rule(column: str) -> tuple[str, str]:
    """The set's prefix of a column, and what weighs it."""
    if column in COMMON_COLUMNS:
        return "", COMMON_COLUMNS[column][1]
    prefix, name = column.split("_", 1)
    return prefix + "_", SET_COLUMNS[name][1]


def _weighted(parts: list[Row], column: str, weight: str) -> float:
    """The mean over all rows of all parts: each part's mean with its number of rows, which 0 rows leave out."""
    counted = [(part[weight], part[column]) for part in parts if part.get(weight)]
    total = sum(count for count, _ in counted)
    return math.fsum(count * value for count, value in counted) / total if total else math.nan


def _variance(parts: list[Row], mean: str, column: str) -> float:
    """The unbiased variance of all rows, from counts, means and sums of squares about them, by Chan's formula."""
    total = sum(part["rows"] for part in parts)
    if total < 2:
        return math.nan
    centre = _weighted(parts, mean, "rows")
    squares = [part[column] * (part["rows"] - 1) for part in parts if part["rows"] > 1]
    squares += [part["rows"] * (part[mean] - centre) ** 2 for part in parts if part["rows"]]
    return math.fsum(squares) / (total - 1)


def merge_rows(parts: Iterable[Row]) -> Row:
    """The row of all queries of one step out of the rows of several ranks, as if one process had had them all.

    Counts, means, variances and extremes are exact up to rounding in float64. step, epoch and seconds are those of
    the first. A column that one of the parts lacks is left out.
    """
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    merged = {name: parts[0][name] for name in WHEN if name in parts[0]}
    for column in MEASURED:
        if any(column not in part for part in parts):
            continue
        prefix, weight = _rule(column)
        if weight in ("sum", "min", "max"):
            merged[column] = {"sum": sum, "min": min, "max": max}[weight](part[column] for part in parts)
        elif column.endswith("pos_variance"):
            merged[column] = _variance(parts, f"{prefix}pos_mean", column)
        else:
            merged[column] = _weighted(parts, column, weight if weight == "rows" else prefix + weight)
    return merged


# ---- Histograms ------------------------------------------------------------------------------------------------------

# Bins of equal width whose edges are exact in float32. A mixed positive may lie below them: down to -9, equation (2).
LOWEST, HIGHEST, BINS = -1.5, 1.5, 96
WIDTH = (HIGHEST - LOWEST) / BINS
# The counts of a histogram: below LOWEST, the bins [edge, edge + WIDTH), from HIGHEST on.
COUNTS = BINS + 2


def bin_edges() -> list[float]:
    """The BINS + 1 edges."""
    return [LOWEST + WIDTH * i for i in range(BINS + 1)]


def merge_details(parts: Iterable[dict]) -> dict:
    """The details of one step out of those of several ranks: counts are added, pairs are those of the first."""
    parts = list(parts)
    merged = dict(parts[0])
    merged["histograms"] = {
        name: [sum(counts) for counts in zip(*(part["histograms"][name] for part in parts))]
        for name in parts[0]["histograms"]
        if all(name in part["histograms"] for part in parts)
    }
    return merged
