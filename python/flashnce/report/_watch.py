"""Runs on a terminal while they are written: their latest numbers and a curve of each, redrawn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..scores import RunError, read_run
from ..scores._sinks import needed
from ._compare import PANELS, Group, compare

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 16


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The values as a line of blocks, the least the lowest."""
    if not values:
        return ""
    picked = [values[i * len(values) // width] for i in range(width)] if len(values) > width else list(values)
    picked[-1] = values[-1]
    low, high = min(picked), max(picked)
    span = high - low or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((value - low) / span * len(BLOCKS)))] for value in picked)


def _table(groups: Sequence[Group]) -> Any:
    why = "The view on the terminal"
    table = needed("rich.table", "rich", why).Table(title_justify="left")
    text = needed("rich.text", "rich", why).Text
    table.title = ", ".join(f"{group.name} at step {int(group.runs[0].rows[-1]['step'])}" for group in groups)
    for name, side in (("", "left"), ("run", "left"), ("now", "right"), ("in the loss", "right"), ("so far", "left")):
        table.add_column(name, justify=side, no_wrap=name != "")
    for panel in PANELS:
        for i, group in enumerate(groups):
            before, mixed = group.curve(panel, False), group.curve(panel, True)
            if before is None:
                continue
            in_loss = "" if mixed is None else f"{mixed.means[-1]:.4g}"
            table.add_row("" if i else panel.title, text(group.name, style=group.color), f"{before.means[-1]:.4g}",
                          in_loss, text(sparkline(before.means), style=group.color),
                          end_section=i == len(groups) - 1)  # fmt: skip
    return table


def _view(folders: Sequence[Path], wait: bool) -> Any:
    """The table; of runs that have no step yet, where one may wait for it, a sentence."""
    try:
        return _table(compare([read_run(folder) for folder in folders]))
    except RunError as error:
        if not wait:
            raise
        return f"waiting: {error}"


def watch(folders: Sequence[str | Path], *, once: bool = False, every: float = 2.0, console: Any = None) -> None:
    """Shows the runs in these folders until Ctrl-C, or once.

    Args:
        folders: those of ScoreMeter.
        once: prints the table and returns.
        every: seconds between looks.
        console: a rich.console.Console (default: the terminal).

    Raises:
        ImportError: rich is not installed.
        RunError: with once=True, as read_run and compare.
    """
    console = console or needed("rich.console", "rich", "The view on the terminal").Console()
    paths = [Path(folder) for folder in folders]
    if once:
        console.print(_view(paths, wait=False))
        return
    live = needed("rich.live", "rich", "The view on the terminal").Live
    with live(_view(paths, wait=True), console=console, auto_refresh=False) as view:
        try:
            while True:
                time.sleep(every)
                view.update(_view(paths, wait=True), refresh=True)
        except KeyboardInterrupt:
            return
