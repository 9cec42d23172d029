"""What is looked at on chosen steps: histograms, single pairs, and the lambda that was drawn.

The library keeps no score of a negative, so here they are computed once more, a block of columns at a time. Nothing of
size N x K exists beyond a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import permutation, sample_lambda
from .._options import Mix
from ..reference import _mixed
from ..torch import Queue, Scores, ScoreStatistics
from ._row import BINS, COUNTS, LOWEST, WIDTH

# Scores in memory at a time, and pairs that are kept.
BLOCK = 1 << 20
PAIRS = 128
# A call with these has columns, or leaves some out, that are no row of a queue.
BEYOND = ("batch", "ids", "negative_ids", "batch_ids", "bias", "batch_bias", "margin")
EPSILON = 1e-12
# A score that is made again may differ so far from that of the loss.
DIFFERENCE = 0.02


class Draws(NamedTuple):
    """What a call mixed with, as tensors; None where it mixed nothing."""

    lambda_pos: Tensor | None
    lambda_neg: Tensor | None
    permutation: Tensor | None


def histogram(scores: Tensor) -> Tensor:
    """int64 [COUNTS] of scores of any shape: below the bins, in each, above. A score that is NaN is not counted.

    Waits for the device.
    """
    scores = scores.detach().float().flatten()
    place = ((scores - LOWEST) / WIDTH).floor().clamp_(-1, BINS).add_(1)
    # NaN goes into a bin of its own behind the others.
    return torch.bincount(place.nan_to_num_(COUNTS).long(), minlength=COUNTS + 1)[:COUNTS]


def draws_of(options: dict[str, Any], scores: Scores, n: int, k: int, d: int, device: torch.device) -> Draws:
    """What a call of info_nce with these options mixed with: given, or drawn again from the seed that it reports.

    Waits for the device that holds the seed.
    """
    seed = None if scores.seed is None else int(scores.seed)
    at = {"seed": seed, "offset": scores.offset}
    given: dict[str, Tensor | None] = {}
    for side, rows in (("pos", n), ("neg", k)):
        mix: Mix | None = options.get({"pos": "positive", "neg": "negative"}[side])
        value = options.get(f"lambda_{side}")
        if value is None and mix is not None and seed is not None:
            first = options.get("row_offset") or 0 if side == "pos" else 0
            name = {"pos": "positive", "neg": "negative"}[side]
            value = torch.from_numpy(sample_lambda(name, mix, rows, d, first_row=first, **at))
        given[f"lambda_{side}"] = None if value is None else torch.as_tensor(value).to(device)
    order = options.get("permutation")
    if order is None and given["lambda_neg"] is not None and seed is not None:
        order = torch.from_numpy(permutation(k, **at))
    return Draws(given["lambda_pos"], given["lambda_neg"], None if order is None else order.to(device).long())


def _unit(x: Tensor, options: dict[str, Any]) -> Tensor:
    x = x.detach().float()
    return torch.nn.functional.normalize(x, dim=1, eps=EPSILON) if options.get("normalize", True) else x


def mixed_pair(q: Tensor, k: Tensor, options: dict[str, Any], draws: Draws) -> tuple[Tensor, Tensor]:
    """q^ and k^ [N,D] of unit q and k, equation (2)."""
    if draws.lambda_pos is None:
        return q, k
    mix = options.get("positive")
    mixing = (draws.lambda_pos, mix is not None and mix.renormalize, EPSILON)
    return _mixed(q, k, *mixing), _mixed(k, q, *mixing)


class Call(NamedTuple):
    """A call of info_nce looked at again: its unit features, its queue and what it mixed with."""

    q: Tensor
    k: Tensor
    anchor: Tensor
    rows: Tensor
    options: dict[str, Any]
    draws: Draws

    def mixed_rows(self, first: int, last: int) -> Tensor:
        """Rows first..last-1 of the mixed queue, equation (3)."""
        draws, mix = self.draws, self.options.get("negative")
        factor = draws.lambda_neg
        if factor.dim() == 2 and factor.shape[0] == len(self.rows):
            factor = factor[first:last]
        partner = self.rows[draws.permutation[first:last]].float()
        return _mixed(self.rows[first:last].float(), partner, factor, mix is not None and mix.renormalize, EPSILON)

    def blocks(self) -> Iterator[tuple[str, Tensor]]:
        """The scores of negatives, block by block: "before" q.z_j; "after" those of the loss."""
        k = len(self.rows)
        step = max(1, BLOCK // max(1, len(self.q)))
        mixes = self.draws.lambda_neg is not None
        columns = self.options.get("columns") or ("mixed" if mixes else "queue")
        for first in range(0, k, step):
            last = min(k, first + step)
            raw = self.rows[first:last].float()
            before = self.q @ raw.T
            yield "before", before
            if columns != "mixed" or not mixes:
                yield "after", before if self.anchor is self.q else self.anchor @ raw.T
            if mixes and columns != "queue":
                yield "after", self.anchor @ self.mixed_rows(first, last).T


def call_of(q: Tensor, k: Tensor, negatives: object, options: dict[str, Any], scores: Scores) -> Call | None:
    """The call, or None where its columns are not simply a queue's rows."""
    rows = negatives.queue if isinstance(negatives, Queue) else negatives
    beyond = any(options.get(name) is not None for name in BEYOND) or getattr(negatives, "named", False)
    if not isinstance(rows, Tensor) or beyond or getattr(negatives, "empty", False):
        return None
    q, k, rows = _unit(q, options), _unit(k, options), rows.detach()
    draws = draws_of(options, scores, *q.shape[:1], *rows.shape, q.device)
    anchor = q if options.get("anchor", "mixed") == "query" else mixed_pair(q, k, options, draws)[0]
    return Call(q, k, anchor, rows, options, draws)


def _differs(made: Tensor, found: Tensor) -> Tensor:
    """bool []: whether numbers are others than the loss found, by more than features of 16 bits round. NaN is not."""
    return ((made - found).abs() > DIFFERENCE * found.abs().clamp(min=1)).any()


class _Sums:
    """Sums over the negatives of each query, for the variance that the loss found."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.count, self.sums = 0, torch.zeros(2, n, dtype=torch.float64, device=device)

    def add(self, block: Tensor) -> None:
        self.count += block.shape[1]
        self.sums += torch.stack([block.sum(1, dtype=torch.float64), block.square().sum(1, dtype=torch.float64)])

    def differ(self, found: ScoreStatistics) -> Tensor:
        """Whether these are other negatives than the loss had."""
        mean = self.sums[0] / self.count
        deviation = ((self.sums[1] - self.sums[0] * mean) / (self.count - 1)).clamp(min=0).sqrt()
        return _differs(mean, found.neg_mean) | _differs(deviation, found.neg_variance.sqrt())


@torch.no_grad()
def details(scores: Scores, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Any], Tensor]:
    """Histograms, int64 [COUNTS] each, and the rest: pairs of scores before and after, the lambdas of the call; and
    bool [], whether the call is another than the one that made the scores."""
    before, after = scores.unmixed.pos, scores.mixed.pos
    histograms = {"pos_before": histogram(before), "pos_after": histogram(after)}
    rest: dict[str, Any] = {"pairs": {"before": before[:PAIRS], "after": after[:PAIRS]}}
    differs = torch.zeros((), dtype=torch.bool, device=before.device)
    if call is not None:
        for name in ("neg_before", "neg_after"):
            histograms[name] = torch.zeros(COUNTS, dtype=torch.int64, device=before.device)
        sums = _Sums(len(before), before.device)
        for name, block in call.blocks():
            histograms[f"neg_{name}"] += histogram(block)
            if name == "after":
                sums.add(block)
        q_mixed, k_mixed = mixed_pair(call.q, call.k, call.options, call.draws)
        differs = _differs((q_mixed * k_mixed).sum(1), after) | sums.differ(scores.mixed)
        for name in ("lambda_pos", "lambda_neg"):
            value = getattr(call.draws, name)
            rest[name] = value.flatten()[0] if value is not None and value.numel() == 1 else None
    return histograms, rest, differs
