"""The report's figures for papers, by matplotlib: curves and distributions, each as PNG and SVG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..scores._sinks import needed
from ._compare import PANELS, Group, Panel
from ._distributions import NAMES, WHEN, centres, chosen, expected, series

FORMATS = ("png", "svg")
DASHES = {"before": "solid", "after": (0, (4, 2))}
STYLE = {"svg.hashsalt": "flashnce", "svg.fonttype": "none"}
RIDGES = 8


def _curves(axis: Any, group: Group, panel: Panel) -> None:
    for mixed in (False, True):
        curve = group.curve(panel, mixed)
        if curve is None:
            continue
        marker = "o" if len(curve.steps) == 1 else None
        label = f"{group.name}, in the loss" if mixed else group.name
        axis.plot(curve.steps, curve.means, color=group.color, linestyle=DASHES["after" if mixed else "before"],
                  linewidth=1.4, marker=marker, markersize=3, label=label)  # fmt: skip
        if curve.spread is not None:
            low = [mean - spread for mean, spread in zip(curve.means, curve.spread)]
            high = [mean + spread for mean, spread in zip(curve.means, curve.spread)]
            axis.fill_between(curve.steps, low, high, color=group.color, alpha=0.18, linewidth=0)


def _finish(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", linewidth=0.4, color="#dddddd")


def curves_figure(groups: Sequence[Group]) -> Any:
    """All panels over the steps, as a matplotlib Figure."""
    figure = _figure((10, 5.4))
    panels = [panel for panel in PANELS if any(group.curve(panel, False) for group in groups)]
    axes = figure.subplots(-(-len(panels) // 4), min(4, len(panels)), squeeze=False).flat
    handles: dict[str, Any] = {}
    # Panels first: zip takes one more of the first when the second ends.
    for panel, axis in zip(panels, axes):
        for group in groups:
            _curves(axis, group, panel)
        _finish(axis, panel.title, "step", panel.unit)
        handles |= {line.get_label(): line for line in axis.get_lines()}
    for axis in axes:
        axis.set_visible(False)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(4, len(handles)), fontsize=8,
                  frameon=False)  # fmt: skip
    return figure


def distributions_figure(groups: Sequence[Group]) -> Any | None:
    """Of each group's first run: ridges of positives and negatives, and the pairs of the last step; None without
    details."""
    found = [(group, one) for group in groups if (one := series(group.runs[0])) is not None]
    if not found:
        return None
    figure = _figure((10, 3.1 * len(found)))
    for row, (group, one) in zip(figure.subplots(len(found), 3, squeeze=False), found):
        for axis, side in zip(row, NAMES):
            _ridges(axis, group, one, side)
        if one["mixes"]:
            _pairs(row[2], group, one)
        else:
            row[2].set_visible(False)
    words = "filled: before mixing" + (", dashed: in the loss" if any(one["mixes"] for _, one in found) else "")
    figure.suptitle(f"Densities of scores through training; {words}", fontsize=9)
    return figure


def _ridges(axis: Any, group: Group, one: dict[str, Any], side: str) -> None:
    """Solid before mixing, dashed in the loss; the first step below."""
    densities = {when: one["densities"].get(f"{side}_{when}") for when in WHEN}
    if densities["before"] is None:
        axis.set_visible(False)
        return
    picks = chosen([{"step": step} for step in one["steps"]], RIDGES)
    top = max(max(densities["before"][i]) for i in picks) or 1.0
    x = centres()
    for j, i in enumerate(picks):
        # Ridges further back are drawn first.
        back = len(picks) - j
        y = [j + 1.6 * value / top for value in densities["before"][i]]
        axis.fill_between(x, j, y, color=group.color, alpha=0.25, linewidth=0, zorder=2 * back)
        axis.plot(x, y, color=group.color, linewidth=1, zorder=2 * back + 1)
        after = densities["after"]
        if after is not None and after[i] != densities["before"][i]:
            axis.plot(x, [j + 1.6 * value / top for value in after[i]], color="#222222", linewidth=0.8,
                      linestyle=DASHES["after"], zorder=2 * back + 1)  # fmt: skip
    axis.set_yticks(range(len(picks)), [str(one["steps"][i]) for i in picks])
    used = [k for k in range(len(x)) if any(d[i][k] > 0 for d in densities.values() if d is not None for i in picks)]
    axis.set_xlim(x[max(0, used[0] - 2)], x[min(len(x) - 1, used[-1] + 2)]) if used else None
    _finish(axis, f"{group.name}: {NAMES[side]}", "score", "step")


def _pairs(axis: Any, group: Group, one: dict[str, Any]) -> None:
    pairs, factor = one["pairs"][-1], one["lambda"][-1]
    line = [min([0.0, *pairs["before"]]), 1.0]
    axis.plot(line, line, color="#8a8a8a", linestyle=":", linewidth=1, label="no mixing")
    if factor is not None:
        axis.plot(line, [expected(score, factor) for score in line], color="#000000", linewidth=1,
                  label=f"2λ(1−λ)(1−S)+S, λ = {factor:.3f}")  # fmt: skip
    axis.scatter(pairs["before"], pairs["after"], s=9, color=group.color, alpha=0.7, linewidth=0)
    axis.legend(fontsize=7, frameon=False)
    _finish(axis, f"{group.name}: pairs at step {one['steps'][-1]}", "S = q·k", "score in the loss")


def _figure(size: tuple[float, float]) -> Any:
    figure = needed("matplotlib.figure", "matplotlib", "A figure").Figure(figsize=size, layout="constrained")
    needed("matplotlib.backends.backend_agg", "matplotlib", "A figure").FigureCanvasAgg(figure)
    return figure


def write_figures(groups: Sequence[Group], folder: str | os.PathLike) -> list[Path]:
    """Writes curves.png, curves.svg and, where a run has details, distributions.png and .svg; their paths.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    matplotlib = needed("matplotlib", "matplotlib", "A figure")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, figure in (("curves", curves_figure(groups)), ("distributions", distributions_figure(groups))):
            for kind in FORMATS if figure is not None else ():
                written.append(folder / f"{name}.{kind}")
                metadata = {"Software": None} if kind == "png" else {"Date": None}
                figure.savefig(written[-1], dpi=200, metadata=metadata)
    return written
