"""Runs beside each other: groups that differ in their seed alone, their curves and bands, what goes together.

It needs neither NumPy nor a package for figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..scores import Run, RunError

# Okabe and Ito's colours, which people with any colour vision tell apart; without the yellow, too light on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Points of a curve: each is the mean of as many steps as that takes. FT's lambda makes single steps jump.
POINTS = 80


class Panel(NamedTuple):
    """A curve over the steps: of one column, or of a column of the sets before mixing and in the loss."""

    key: str
    title: str
    unit: str
    of_sets: bool


PANELS = (
    Panel("neg_variance", "Negatives: variance", "score²", True),
    Panel("neg_mean", "Negatives: mean", "score", True),
    Panel("pos_mean", "Positives: mean", "score", True),
    Panel("pos_variance", "Positives: variance", "score²", True),
    Panel("effective_negatives", "Effective number of negatives", "exp of the entropy", False),
    Panel("gradient_norm", "Gradient norm", "‖dL/dq‖ of a query, mean", False),
    Panel("loss", "Loss", "nats", False),
    Panel("acc1", "Positive above all negatives", "part of the queries (acc@1)", True),
)


class Curve(NamedTuple):
    """Of a group: steps, means, and the standard deviation over its runs, or None of one run."""

    steps: list[float]
    means: list[float]
    spread: list[float] | None
    width: int
    """Steps that were averaged to a point."""


class Group(NamedTuple):
    """Runs that differ in their seed, and their colour."""

    name: str
    color: str
    runs: list[Run]

    def curve(self, panel: Panel, mixed: bool) -> Curve | None:
        """`mixed` of a panel of sets: the scores in the loss, where they differ from those before mixing; else those
        before, which are the loss's own where nothing is mixed. None where no run has them."""
        if mixed and not panel.of_sets:
            return None
        curves = [_values(run, panel, mixed) for run in self.runs]
        shared = set.intersection(*(set(curve) for curve in curves))
        steps = sorted(shared)
        if not steps:
            return None
        width = max(1, math.ceil(len(steps) / POINTS))
        # A last stretch that is shorter would be noisier than the others, unless it is all there is.
        starts = range(0, max(1, len(steps) - width + 1), width)
        at = [_mean(steps[first : first + width]) for first in starts]
        points = [[_mean([curve[step] for step in steps[first : first + width]]) for curve in curves]
                  for first in starts]  # fmt: skip
        spread = [_deviation(values) for values in points] if len(self.runs) > 1 else None
        return Curve(at, [_mean(values) for values in points], spread, width)

    def last(self, panel: Panel, mixed: bool) -> float | None:
        """The mean of the last tenth of the curve's points."""
        curve = self.curve(panel, mixed)
        return None if curve is None else _mean(curve.means[-max(1, len(curve.means) // 10) :])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    centre = _mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def _values(run: Run, panel: Panel, mixed: bool) -> dict[int, float]:
    """Step and value, where there is a finite one."""
    if not panel.of_sets:
        names = (panel.key,)
    elif mixed:
        names = (f"mixed_{panel.key}",)
    else:
        names = tuple(f"{name}_{panel.key}" for name in _before(run))
    found = {}
    for row in run.rows:
        mixes = f"unmixed_{panel.key}" in row
        if mixed and not mixes:
            continue
        # Where nothing is mixed, the scores in the loss are those before.
        value = next((row[name] for name in names if name in row), None if mixes else row.get(f"mixed_{panel.key}"))
        if value is not None and math.isfinite(value):
            found[int(row["step"])] = value
    return found


def _before(run: Run) -> tuple[str, ...]:
    """The sets of scores before mixing: of the steps that mix, those with the scores of the query itself, or all, with
    those of the anchor, where none has them."""
    return ("raw",) if any("raw_neg_mean" in row and "unmixed_neg_mean" in row for row in run.rows) else ("unmixed",)


def of_anchor(groups: Sequence[Group]) -> bool:
    """Whether scores before mixing are somewhere those of the anchor of the loss, for want of others."""
    return any(_before(run) == ("unmixed",) and any("unmixed_neg_mean" in row for row in run.rows)
               for group in groups for run in group.runs)  # fmt: skip


def compare(runs: Sequence[Run]) -> list[Group]:
    """The groups of runs, in the order in which they are given; a run without a group is one of its own, and one that
    is given twice counts once.

    Raises:
        RunError: a group's runs share no step, a run has no finite value, or two runs have no curve in common.
    """
    # A run that is given twice is one run, and no band.
    runs = list({run.folder.resolve(): run for run in runs}.values())
    taken = Counter([run.name for run in runs if not run.group] + list({run.group for run in runs if run.group}))
    named: dict[tuple[bool, str], list[Run]] = {}
    for run in runs:
        # Two runs of one name, or a run and a group of it, are two: their folders tell them apart.
        name = run.group or (run.name if taken[run.name] == 1 else str(run.folder))
        named.setdefault((bool(run.group), name), []).append(run)
    groups = [Group(name, COLORS[i % len(COLORS)], members) for i, ((_, name), members) in enumerate(named.items())]
    for group in groups:
        first = {row["step"] for row in group.runs[0].rows}
        for run in group.runs[1:]:
            if not first & {row["step"] for row in run.rows}:
                raise RunError(f"{group.runs[0].folder} and {run.folder} are of one group, {group.name}, and share no "
                               "step, so that no band can be drawn over them")  # fmt: skip
    curves = [{p.key for p in PANELS if group.curve(p, False)} for group in groups]
    for group, keys in zip(groups, curves):
        if not keys:
            raise RunError(f"{group.runs[0].folder} has no finite value in any step, so that there is no curve to draw")
    for group, other in zip(groups[1:], curves[1:]):
        if not curves[0] & other:
            raise RunError(f"{groups[0].runs[0].folder} and {group.runs[0].folder} have no curve in common, so that "
                           "they cannot be overlaid")  # fmt: skip
    return groups


def differences(groups: Sequence[Group]) -> list[str]:
    """Sentences on what the runs say about themselves and what makes some curves no comparison."""
    found = []
    for name, words in (("temperature", "losses, effective negatives and gradient norms"),
                        ("k", "losses, effective negatives and acc@1")):  # fmt: skip
        values = {str(run.about[name]) for group in groups for run in group.runs if name in run.about}
        if len(values) > 1:
            found.append(f"These runs differ in {name} ({', '.join(sorted(values))}): their {words} are no comparison.")
    return found
