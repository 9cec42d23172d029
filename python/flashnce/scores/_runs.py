"""Runs read back from their folders: curves, details, and what is wrong with them in one sentence.

It needs neither NumPy nor torch.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from ._folder import DETAILS, SCORES, RunError, part_name, read_description
from ._row import COLUMNS, COUNTS, Row, merge_details, merge_rows

REQUIRED = ("step", "rows", "loss")


class Run(NamedTuple):
    """A run as it was logged, in the order of its steps; the rows of several ranks are one."""

    folder: Path
    name: str
    group: str | None
    about: dict[str, Any]
    rows: list[Row]
    details: list[dict[str, Any]]

    def curve(self, column: str) -> tuple[list[int], list[float]]:
        """Steps and values of the steps that have a finite value."""
        found = [(int(row["step"]), row[column]) for row in self.rows if math.isfinite(row.get(column, math.nan))]
        return [step for step, _ in found], [value for _, value in found]


def _complete_lines(path: Path) -> list[str]:
    """The lines of a file but for one that was cut off at the end."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return content[: content.rfind(b"\n") + 1].decode().splitlines()
    except UnicodeDecodeError:
        raise RunError(f"{path} is no text") from None


def _rows(path: Path) -> list[Row]:
    lines = _complete_lines(path)
    if not lines:
        raise RunError(f"{path} has no complete line: the run ended before its first step")
    header = lines[0].split(",")
    if missing := [name for name in REQUIRED if name not in header]:
        raise RunError(f"{path} has no column {missing[0]}; its first line must name the columns")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split(",")
        try:
            if len(fields) != len(header):
                raise ValueError
            row = {name: float(field) for name, field in zip(header, fields) if field and name in COLUMNS}
            int(row["step"])
        except (ValueError, KeyError, OverflowError):
            raise RunError(f"{path} is damaged in line {number}: {line[:40]!r}") from None
        rows.append(row)
    return _last_of_each_step(rows)


def _check_details(one: dict[str, Any]) -> None:
    """Raises something where these are not what a meter writes."""
    for counts in one["histograms"].values():
        if len(counts) != COUNTS or not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError
    numbers = [one.get("lambda_pos"), one.get("lambda_neg")]
    for scores in one.get("pairs", {}).values():
        numbers += scores
    if not isinstance(one["step"], int) or not all(isinstance(x, (int, float, type(None))) for x in numbers):
        raise ValueError


def _details(path: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(_complete_lines(path) if path.exists() else [], 1):
        try:
            one = json.loads(line)
            _check_details(one)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunError(f"{path} is damaged in line {number}") from None
        found.append(one)
    return _last_of_each_step(found)


def _last_of_each_step(rows: list[Any]) -> list[Any]:
    """A run that went on from a checkpoint took some steps twice: what came before such a step no longer counts."""
    kept: list[Any] = []
    for row in rows:
        while kept and kept[-1]["step"] >= row["step"]:
            kept.pop()
        kept.append(row)
    return kept


def _merged(parts: list[list[Any]], merge) -> list[Any]:
    """Steps that all ranks have, merged."""
    if len(parts) == 1:
        return parts[0]
    by_step = defaultdict(list)
    for part in parts:
        for row in part:
            by_step[row["step"]].append(row)
    return [merge(rows) for _, rows in sorted(by_step.items()) if len(rows) == len(parts)]


def read_run(folder: str | Path) -> Run:
    """The run in a folder that a ScoreMeter wrote, while it is written or after; without a last line that was cut off.

    Raises:
        RunError: there is no run, or its log is of another version, damaged, without a step or without a column.
    """
    folder = Path(folder)
    description = read_description(folder)
    ranks = range(description["ranks"])
    rows = _merged([_rows(folder / part_name(SCORES, rank)) for rank in ranks], merge_rows)
    if not rows:
        raise RunError(f"{folder / SCORES} has no complete step")
    details = _merged([_details(folder / part_name(DETAILS, rank)) for rank in ranks], merge_details)
    name, group, about = (description.get(key) for key in ("name", "group", "about"))
    group = None if group is None else str(group)
    return Run(folder, str(name or folder.name), group, about or {}, rows, details)
