"""The report: one HTML file that holds Plotly, its data and its style, and asks nobody for anything."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from .. import __version__
from ..scores._folder import json_of
from ..scores._sinks import needed
from ._compare import PANELS, Group, Panel, differences, of_anchor
from ._distributions import centres, series

TITLE = "Scores of positives and negatives"
BAND = 0.18


def _rgba(color: str, alpha: float) -> str:
    return f"rgba({','.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))},{alpha})"


def _traces(group: Group, panel: Panel) -> list[dict[str, Any]]:
    """A band, the curve before mixing, the curve in the loss."""
    traces: list[dict[str, Any]] = []
    for mixed in (False, True):
        curve = group.curve(panel, mixed)
        if curve is None:
            continue
        # Where nothing is mixed at all, there is one curve and nothing to tell apart.
        words = f"{group.name}, in the loss" if mixed else group.name
        if curve.spread is not None:
            low = [mean - spread for mean, spread in zip(curve.means, curve.spread)]
            high = [mean + spread for mean, spread in zip(curve.means, curve.spread)]
            traces.append({
                "x": curve.steps + curve.steps[::-1], "y": high + low[::-1], "fill": "toself", "mode": "none",
                "fillcolor": _rgba(group.color, BAND), "hoverinfo": "skip",
            })  # fmt: skip
        traces.append({
            "x": curve.steps, "y": curve.means, "name": words, "mode": "lines" if len(curve.steps) > 1 else "markers",
            "line": {"color": group.color, "width": 2, "dash": "dash" if mixed else "solid"},
            "hovertemplate": "step %{x:.0f}: %{y:.4g}",
        })  # fmt: skip
    return traces


def _panels(groups: Sequence[Group]) -> list[dict[str, Any]]:
    panels = [{"key": p.key, "title": p.title, "unit": p.unit, "traces": [t for g in groups for t in _traces(g, p)]}
              for p in PANELS]  # fmt: skip
    return [panel for panel in panels if panel["traces"]]


TABLE = (
    ("loss", False, "loss, nats"),
    ("pos_mean", False, "positives, before mixing"),
    ("pos_mean", True, "positives, in the loss"),
    ("neg_mean", False, "negatives, mean"),
    ("neg_variance", False, "negatives’ variance, before mixing"),
    ("neg_variance", True, "negatives’ variance, in the loss"),
    ("effective_negatives", False, "effective negatives"),
    ("acc1", False, "acc@1"),
)


def _table(groups: Sequence[Group]) -> str:
    by_key = {panel.key: panel for panel in PANELS}
    columns = [(by_key[key], mixed, words) for key, mixed, words in TABLE
               if any(group.last(by_key[key], mixed) is not None for group in groups)]  # fmt: skip
    head = "".join(f"<th scope=col>{words}</th>" for _, _, words in columns)
    lines = []
    for group in groups:
        values = [group.last(panel, mixed) for panel, mixed, _ in columns]
        cells = "".join(f"<td>{'–' if value is None else format(value, '.4g')}</td>" for value in values)
        swatch = f'<span class=swatch style="background:{group.color}"></span>'
        lines.append(f"<tr><th scope=row>{swatch}{html.escape(group.name)}</th>{cells}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _about(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        for run in group.runs:
            given = ", ".join(f"{name} {value}" for name, value in run.about.items())
            last = int(run.rows[-1]["step"])
            parts = f"{len(run.rows)} steps up to {last}" + (f"; {given}" if given else "")
            lines.append(f"<li><b>{html.escape(run.name)}</b>: {html.escape(parts)}</li>")
    return "".join(lines)


def _notes(groups: Sequence[Group]) -> str:
    widths = [curve.width for group in groups for panel in PANELS if (curve := group.curve(panel, False)) is not None]
    sentences = differences(groups)
    if of_anchor(groups):
        sentences.append("Negatives before mixing are scored by the anchor of the loss, which may be a mixed query: "
                         "no step has the scores of the query itself.")  # fmt: skip
    if max(widths) > 1:
        sentences.append(f"Each point of a curve is the mean of up to {max(widths)} logged steps.")
    if any(len(group.runs) > 1 for group in groups):
        sentences.append("Bands are one standard deviation to either side of the mean over a group’s runs.")
    return " ".join(map(html.escape, sentences))


def page(groups: Sequence[Group], title: str = TITLE) -> str:
    """The report of these groups as the text of an HTML file.

    Raises:
        ImportError: plotly is not installed.
    """
    plotly = needed("plotly.offline", "plotly", "The report").get_plotlyjs()
    shown = [{"name": group.name, "color": group.color, "run": group.runs[0].name, **found}
             for group in groups if (found := series(group.runs[0])) is not None]  # fmt: skip
    data = json.dumps(json_of({"panels": _panels(groups), "distributions": shown, "centres": centres()}),
                      separators=(",", ":"), allow_nan=False)  # fmt: skip
    folder = resources.files(__package__)
    parts = {
        "TITLE": html.escape(title),
        "STYLE": (folder / "page.css").read_text(encoding="utf-8"),
        "TABLE": _table(groups),
        "ABOUT": _about(groups),
        "NOTES": _notes(groups),
        "VERSION": __version__,
        "MIXES": "" if any(group.curve(panel, True) for group in groups for panel in PANELS) else "hidden",
        # Inside a script nothing ends it but its own tag.
        "DATA": data.replace("<", "\\u003c"),
        "PROGRAM": (folder / "page.js").read_text(encoding="utf-8"),
        "PLOTLY": plotly,
    }  # fmt: skip
    text = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)


def write_page(groups: Sequence[Group], path: str | os.PathLike, title: str = TITLE) -> None:
    """Writes the report whole, or not at all.

    Raises:
        ImportError: plotly is not installed.
        OSError: the file cannot be written.
    """
    path = Path(path)
    text = page(groups, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
