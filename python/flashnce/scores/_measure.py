"""A step's Scores packed into one small tensor, on their device and without waiting for it."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ..torch import Scores, ScoreStatistics
from ._row import SETS

# Each set has these in this order; a row counts in the first four where it has so many negatives.
_FLOATS = ("pos", "neg_mean", "neg_variance", "neg_log_mean_exp", "neg_min", "neg_max")
_NEEDED = (0, 1, 2, 1)
# exp(x) = exp2(x log2 e): of few numbers torch.exp takes 70 times as long, because it sets up a vector library.
LOG2_E = 1 / math.log(2)


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


def pack(loss: Tensor, mixed: ScoreStatistics, sets: list[ScoreStatistics]) -> Tensor:
    """float64 [len(names_of(sets))]: what _row.names_of names, of this rank's queries."""
    n, rows = len(sets), mixed.pos.shape[0]
    needed, ranks, zero = _constants(mixed.pos.device)
    own = [mixed.dq_norm] if mixed.entropy is None else [mixed.dq_norm, mixed.entropy]
    stacked = torch.stack([getattr(s, name) for s in sets for name in _FLOATS] + own).double()
    floats, own = stacked[: n * len(_FLOATS)].view(n, len(_FLOATS), rows), stacked[n * len(_FLOATS) :]
    counts = torch.stack([s.neg_count for s in sets]).unsqueeze(1)
    above = torch.stack([s.n_greater_equal for s in sets]).unsqueeze(1)

    valid = counts >= needed
    valid_rows = valid.sum(-1)  # [n,4]: rows, those with a negative, with two, with one
    summed = floats[:, :4]
    means = torch.where(valid, summed, zero).sum(-1) / valid_rows
    about = summed[:, :1] - means[:, :1, None]
    variances = about.mul_(about).sum(-1) / (rows - 1 if rows > 1 else float("nan"))
    hits = (above < ranks).sum(-1).double() / rows if rows else torch.full((n, 2), float("nan"), device=counts.device)
    parts = [means[:, :1], variances, means[:, 1:], _extreme(floats[:, 4:5], "amin"), _extreme(floats[:, 5:], "amax"),
             hits, counts.sum(-1), valid_rows[:, 1:3]]  # fmt: skip
    of_sets = torch.cat([part.double() for part in parts], 1)
    norm = own[0].mean()
    entropy = own[1].mean() if len(own) > 1 else norm.new_full((), float("nan"))
    effective = torch.exp2(own[1] * LOG2_E).mean() if len(own) > 1 else entropy
    total = loss.detach().double().mean()
    common = torch.stack([torch.full_like(total, rows), total, entropy, effective, norm])
    return torch.cat([common, of_sets.flatten()])


def _extreme(x: Tensor, name: str) -> Tensor:
    """[n,1] of [n,1,rows]; of no rows, what leaves a merge as it is."""
    if x.shape[-1]:
        return getattr(x, name)(-1)
    return x.new_full(x.shape[:-1], float("inf") if name == "amin" else float("-inf"))
