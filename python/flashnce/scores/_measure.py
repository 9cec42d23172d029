"""A step's Scores packed into one small tensor, on their device and without waiting for it; on the host, made a row.

The device adds and compares, in as few operations as that takes, since each costs more than its arithmetic; what is
divided, the host divides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..torch import Scores, ScoreStatistics
from ._row import SETS, Row

# Each set has these in this order; a row counts in the first four where it has so many negatives.
_FLOATS = ("pos", "neg_mean", "neg_variance", "neg_log_mean_exp", "neg_min", "neg_max")
_NEEDED = (0, 1, 2, 1)
# exp(x) = exp2(x log2 e): of few numbers torch.exp takes 70 times as long, because it sets up a vector library.
LOG2_E = 1 / math.log(2)
# Numbers of a step, and of each of its sets.
_OF_STEP, _OF_SET = 4, 15


@lru_cache(maxsize=16)
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The negatives that a row needs [4,1], the ranks of acc@1 and acc@5 [2,1], and a zero."""
    needed = torch.tensor(_NEEDED, device=device).unsqueeze(1)
    return needed, torch.tensor([1, 5], device=device).unsqueeze(1), torch.zeros((), dtype=torch.float64, device=device)


def sets_of(scores: Scores, raw: ScoreStatistics | None) -> dict[str, ScoreStatistics]:
    """The sets that differ: without mixing, the unmixed scores are those of the loss."""
    sets = {"mixed": scores.mixed}
    # Where nothing is mixed, both are one tensor, if perhaps as two objects; tensors without an element share nothing.
    one = scores.unmixed.pos is scores.mixed.pos or scores.unmixed.pos.data_ptr() == scores.mixed.pos.data_ptr() != 0
    if not one:
        sets["unmixed"] = scores.unmixed
    if raw is not None:
        sets["raw"] = raw
    return {name: sets[name] for name in SETS if name in sets}


def pack(loss: Tensor, mixed: ScoreStatistics, sets: Sequence[ScoreStatistics]) -> Tensor:
    """float64 [4 + 15 sets]: sums, counts and extremes of this rank's queries, which unpack makes a row of."""
    n, rows = len(sets), mixed.pos.shape[0]
    loss = loss.detach().reshape(1) if loss.dim() == 0 else loss.detach().double().mean().reshape(1)
    if rows == 0:
        return loss.new_zeros(_OF_STEP + _OF_SET * n, dtype=torch.float64)
    needed, ranks, zero = _constants(mixed.pos.device)
    # Columns with a bias have no entropy.
    entropy = mixed.dq_norm.new_full((rows,), math.nan) if mixed.entropy is None else mixed.entropy
    stacked = torch.stack([getattr(s, name) for s in sets for name in _FLOATS] + [mixed.dq_norm, entropy]).double()
    floats = stacked[:-2].view(n, len(_FLOATS), rows)
    counts, above = torch.stack([s.neg_count for s in sets] + [s.n_greater_equal for s in sets]).view(2, n, 1, rows)

    valid = counts >= needed
    # Squares about the first value lose no digit where all are nearly equal.
    about = floats[:, 0] - floats[:, 0, :1]
    # aminmax sets up threads for so few numbers.
    least, largest = floats[:, 4].amin(-1), floats[:, 5].amax(-1)
    parts = (
        loss, stacked[-2:].sum(-1), torch.exp2(stacked[-1:] * LOG2_E).sum(-1),
        torch.where(valid, floats[:, :4], zero).sum(-1), valid.sum(-1), about.mul_(about).sum(-1), floats[:, 0, 0],
        least, largest, (above < ranks).sum(-1), counts.sum(-1),
    )  # fmt: skip
    return torch.cat([part.flatten() for part in parts])


def _ratio(value: float, count: float) -> float:
    return value / count if count else math.nan


def unpack(values: list[float], sets: Sequence[str]) -> Row:
    """The row of what pack has packed for the sets of these names."""
    n = len(sets)
    loss, norm, entropy, effective = values[:_OF_STEP]
    rest, place = [], _OF_STEP
    for width in (4, 4, 1, 1, 1, 1, 2, 1):
        rest.append([values[place + width * i : place + width * (i + 1)] for i in range(n)])
        place += width * n
    rows = rest[1][0][0]
    row = {"rows": rows, "loss": loss if rows else math.nan, "entropy": _ratio(entropy, rows),
           "effective_negatives": _ratio(effective, rows), "gradient_norm": _ratio(norm, rows)}  # fmt: skip
    for name, *parts in zip(sets, *rest):
        row |= _row_of_set(f"{name}_", rows, *parts)
    return row


def _row_of_set(prefix: str, rows, sums, counts, squares, first, least, largest, hits, total) -> Row:
    away = sums[0] - rows * first[0]
    made = {
        "pos_mean": _ratio(sums[0], rows),
        "pos_variance": max(0.0, squares[0] - _ratio(away * away, rows)) / (rows - 1) if rows > 1 else math.nan,
        "neg_mean": _ratio(sums[1], counts[1]),
        "neg_variance": _ratio(sums[2], counts[2]),
        "neg_log_mean_exp": _ratio(sums[3], counts[3]),
        "neg_min": least[0] if rows else math.inf,
        "neg_max": largest[0] if rows else -math.inf,
        "acc1": _ratio(hits[0], rows),
        "acc5": _ratio(hits[1], rows),
        "neg_count": total[0],
        "neg_rows": counts[1],
        "neg_pairs": counts[2],
    }
    return {prefix + name: value for name, value in made.items()}
