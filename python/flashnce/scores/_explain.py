"""explain: what a feature transformation does to one batch, over many draws of its lambdas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import sample_lambda
from .._options import PRESETS, Mix
from ..torch import InfoNCE, Queue, info_nce

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# A lambda this near to an end of its range leaves a vector almost as it is, or takes it furthest.
EXTREME = 0.1
# Values of an elementwise lambda that are looked at, per draw.
MOST = 4096


@dataclass(frozen=True)
class Spread:
    """How numbers are distributed."""

    mean: float
    std: float
    quantiles: tuple[float, ...]
    """At QUANTILES: 5, 25, 50, 75, 95 %."""


@dataclass(frozen=True)
class OfAlpha:
    """What another alpha would do, everything else being equal."""

    alpha: float
    extreme: float
    """Part of the lambdas within 0.1 of an end of their range: for 1 a fifth, below 1 more."""
    std: float
    """Standard deviation of lambda."""
    pos_after: float | None
    """Mean score of the positives in the loss, with this alpha for the positives."""
    hardness: float | None
    """Mean hardness, with this alpha for the positives."""
    neg_variance: float | None
    """Mean variance of the negatives' scores in the loss, with this alpha for the negatives."""
    effective_negatives: float | None
    """Effective negatives, with this alpha for the negatives."""


@dataclass(frozen=True)
class Explanation:
    """What explain finds. Scores are inner products before the temperature; the hardness of a pair is 1 - p+, the part
    of its softmax that negatives have, which scales its gradient. None: the transformation does not mix that side."""

    n: int
    k: int
    d: int
    temperature: float
    draws: int
    lambda_pos: Spread | None
    lambda_neg: Spread | None
    pos_before: Spread
    pos_after: Spread
    hardness_before: Spread
    hardness_after: Spread
    neg_variance_before: float
    neg_variance_after: float
    effective_negatives: dict[str, float]
    """Mean over queries and draws of exp(entropy), by columns: "queue" Z, "mixed" Z^, "union" Z^ and Z."""
    alphas: tuple[OfAlpha, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """A page of text."""
        return _text(self)


def _spread(values: Tensor) -> Spread:
    values = values.detach().double().flatten()
    deviation = values.std().item() if len(values) > 1 else 0.0
    return Spread(values.mean().item(), deviation, _quantiles(values))


def _quantiles(values: Tensor) -> tuple[float, ...]:
    """What torch.quantile says, which takes no more than 16 million values."""
    ordered = values.sort().values
    # NaN is last.
    if ordered[-1].isnan():
        return (math.nan,) * len(QUANTILES)
    place = torch.tensor(QUANTILES, dtype=torch.float64, device=values.device) * (len(values) - 1)
    below = place.long()
    return tuple(ordered[below].lerp(ordered[place.ceil().long()], place - below).tolist())


def _lambdas(side: str, mix: Mix, rows: int, d: int, seeds: range) -> Tensor:
    """float64 [M]: what these seeds draw, at most MOST of each."""
    drawn = [torch.from_numpy(sample_lambda(side, mix, rows, d, seed=seed)).flatten() for seed in seeds]
    # An elementwise lambda has its first values next to each other, all as good as any.
    return torch.cat([values[:MOST] for values in drawn]).double()


class _Looked:
    """Sums over draws of one way to mix."""

    def __init__(self, call: dict[str, Any], seeds: range, **options: Any) -> None:
        self.pos, self.hardness, variances, effective = [], [], [], []
        mixes = options.get("positive") is not None or options.get("negative") is not None
        for seed in seeds if mixes else seeds[:1]:
            losses, scores = info_nce(**call, **options, seed=seed, reduction="none", return_scores=True)
            self.pos.append(scores.mixed.pos.double())
            # 1 - p+ of a loss of -log p+.
            self.hardness.append(-torch.expm1(-losses.double()))
            variances.append(scores.mixed.neg_variance.double().mean())
            effective.append(scores.mixed.entropy.double().exp().mean())
        self.neg_variance = torch.stack(variances).mean().item()
        self.effective = torch.stack(effective).mean().item()

    def spread(self, name: str) -> Spread:
        return _spread(torch.stack(getattr(self, name)))


@torch.no_grad()
def explain(
    q: Tensor,
    k: Tensor,
    negatives: Queue | Tensor,
    criterion: InfoNCE | None = None,
    *,
    temperature: float = 0.2,
    alphas: Sequence[float] = (0.2, 1.0, 2.0),
    draws: int = 32,
    seed: int = 0,
) -> Explanation:
    """What mixing does to this batch: lambdas, scores and hardness, how many negatives count, alpha below and above 1.

    Args:
        q, k: [N,D] queries and their keys, as for info_nce.
        negatives: a Queue or [K,D].
        criterion: whose mixing and temperature are looked at (default: the preset "ft" with `temperature`).
        alphas: of Beta(alpha, alpha), to compare.
        draws: how many calls are looked at; a lambda per call is one number in each.
        seed: of the first of them; the others follow.

    Returns:
        Explanation; its as_text() is a page.

    Raises:
        TypeError, ValueError: an argument is wrong, in one sentence that names it.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws is {draws!r}; it must be an int of 1 or more")
    criterion = criterion if criterion is not None else InfoNCE(temperature, preset="ft")
    own = criterion.call_options({"detach_key": True})
    positive, negative = own["positive"], own["negative"]
    call = {name: own[name] for name in ("temperature", "normalize", "anchor", "detach_key")}
    call |= {"q": q.detach(), "k": k.detach(), "negatives": negatives}
    seeds, (n, d) = range(seed, seed + draws), q.shape

    plain = _Looked(call, seeds)
    columns = {"queue": {}}
    if negative is not None:
        columns |= {name: {"negative": negative, "columns": name} for name in ("mixed", "union")}
    looked = {name: _Looked(call, seeds, positive=positive, **options) for name, options in columns.items()}
    own_columns = own["columns"] or ("mixed" if negative is not None else "queue")
    mixed = looked[own_columns]
    k_rows = len(negatives)
    return Explanation(
        n, k_rows, d, float(own["temperature"]), draws,
        None if positive is None else _spread(_lambdas("positive", positive, n, d, seeds)),
        None if negative is None else _spread(_lambdas("negative", negative, k_rows, d, seeds)),
        plain.spread("pos"), mixed.spread("pos"), plain.spread("hardness"), mixed.spread("hardness"),
        plain.neg_variance, mixed.neg_variance, {name: found.effective for name, found in looked.items()},
        tuple(_of_alpha(alpha, call, seeds, positive, negative, own_columns) for alpha in alphas),
    )  # fmt: skip


def _of_alpha(
    alpha: float, call: dict[str, Any], seeds: range, positive: Mix | None, negative: Mix | None, columns: str
) -> OfAlpha:
    example = replace(positive or negative or PRESETS["ft"][0], alpha=alpha, shift=0.0, per="call")
    drawn = _lambdas("positive", example, 1, 1, range(seeds.start, seeds.start + 1024))
    extreme = ((drawn < EXTREME) | (drawn > 1 - EXTREME)).double().mean().item()
    of_pos = None if positive is None else _Looked(call, seeds, positive=replace(positive, alpha=alpha))
    of_neg = None
    if negative is not None:
        of_neg = _Looked(call, seeds, positive=positive, negative=replace(negative, alpha=alpha), columns=columns)
    return OfAlpha(
        float(alpha), extreme, drawn.std().item(),
        None if of_pos is None else of_pos.spread("pos").mean,
        None if of_pos is None else of_pos.spread("hardness").mean,
        None if of_neg is None else of_neg.neg_variance,
        None if of_neg is None else of_neg.effective,
    )  # fmt: skip


_COLUMNS = {"queue": "Z", "mixed": "Ẑ", "union": "Ẑ ∪ Z"}


def _text(found: Explanation) -> str:
    head = "".join(f"{f'{100 * at:.0f} %':>9}" for at in QUANTILES)
    lines = [
        f"{found.n} queries, {found.k} negatives, {found.d} features, temperature {found.temperature:g}, "
        f"{found.draws} draws",
        "",
        f"{'':<38}{'mean':>9}{'std':>9}{head}",
    ]
    rows = (
        ("λ of the positives", found.lambda_pos),
        ("λ of the negatives", found.lambda_neg),
        ("positive's score S, before", found.pos_before),
        ("positive's score Ŝ, in the loss", found.pos_after),
        ("hardness 1 − p+, before", found.hardness_before),
        ("hardness 1 − p+, in the loss", found.hardness_after),
    )
    mixes = found.lambda_pos is not None or found.lambda_neg is not None
    for name, spread in rows:
        if spread is not None and (mixes or "in the loss" not in name):
            numbers = (spread.mean, spread.std, *spread.quantiles)
            lines.append(f"{name:<38}" + "".join(f"{number:>9.3f}" for number in numbers))
    in_loss = f" before, {found.neg_variance_after:.4g} in the loss" if mixes else ""
    lines += ["", f"variance of the negatives' scores: {found.neg_variance_before:.4g}{in_loss}"]
    for name, effective in found.effective_negatives.items():
        columns = found.k * (2 if name == "union" else 1)
        lines.append(f"effective negatives of {_COLUMNS[name]:<6} {effective:>9.1f} of {columns}")
    if not mixes:
        return "\n".join(lines)
    lines += [
        "",
        "alpha, all else equal (extreme: λ within 0.1 of an end of its range; below 1 the ends are likeliest)",
        f"{'alpha':>9}{'extreme':>10}{'std of λ':>10}{'Ŝ':>9}{'hardness':>10}"
        f"{'neg. variance':>15}{'eff. negatives':>16}",
    ]
    for one in found.alphas:
        values = ((one.pos_after, "9.3f"), (one.hardness, "10.3f"), (one.neg_variance, "15.4g"),
                  (one.effective_negatives, "16.1f"))  # fmt: skip
        cells = "".join(f"{'–':>{form.split('.')[0]}}" if x is None else format(x, form) for x, form in values)
        lines.append(f"{one.alpha:>9g}{100 * one.extreme:>8.0f} %{one.std:>10.3f}{cells}")
    return "\n".join(lines)
