"""The folder of a run: run.json says what it is, scores.csv has a line per step, details.jsonl one per chosen step.

Lines are appended and handed to the system one by one, so that a process that dies loses no step that it has written; a
line that was cut off in the middle is dropped by whoever goes on or reads. It needs neither NumPy nor torch.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from ._row import COLUMNS, FORMAT, VERSION, Row

RUN, SCORES, DETAILS = "run.json", "scores.csv", "details.jsonl"
MODES = ("new", "resume", "replace")


class RunError(ValueError):
    """A run's log cannot be used; the message is one sentence for the user."""


def part_name(name: str, rank: int) -> str:
    """The file of a rank: rank 0 has the plain name."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}-rank{rank}{dot}{suffix}" if rank else name


def read_description(folder: Path) -> dict[str, Any]:
    """run.json, checked."""
    path = folder / RUN
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"{folder} holds no run: {RUN} is missing") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise RunError(f"{path} describes no run of FlashNCE")
    if description.get("version") != VERSION:
        found = description.get("version")
        raise RunError(f"{folder} has a log of version {found}; this FlashNCE reads version {VERSION}")
    ranks = description.setdefault("ranks", 1)
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise RunError(f"{path} is damaged: ranks is {ranks!r}, not a number of 1 or more")
    text = (str, int, float, type(None))  # A log may have a number for a name.
    for name, kinds in (("name", text), ("group", text), ("about", (dict, type(None)))):
        if not isinstance(description.get(name), kinds):
            raise RunError(f"{path} is damaged: {name} is a {type(description[name]).__name__}")
    return description


def text_of(value: float | None) -> str:
    """A number with all its digits; whole ones without a point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return repr(value)


def json_of(value: object) -> object:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: json_of(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_of(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run_text(description: dict[str, Any]) -> str:
    """run.json of a description.

    Raises:
        TypeError: a value is nothing that JSON can hold, or name or group is no text; the message names it.
    """
    for name in ("name", "group"):
        if not isinstance(description.get(name), (str, type(None))):
            raise TypeError(f"{name} is a {type(description[name]).__name__}; it must be a str or None")
    for name, value in {**description, **description.get("about", {})}.items():
        try:
            json.dumps(value) if name != "about" else None
        except (TypeError, ValueError):
            raise TypeError(f"{name} is a {type(value).__name__}, which run.json cannot hold; give numbers, text, "
                            "lists or dicts of them") from None  # fmt: skip
    return json.dumps({"format": FORMAT, "version": VERSION, **description}, indent=1) + "\n"


def _whole_lines(path: Path) -> None:
    """Cuts off what a dying process left of its last line."""
    with open(path, "rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def check_folder(folder: Path, description: dict[str, Any], mode: str, rank: int) -> None:
    """Raises what RunFolder would, and writes nothing but the folder itself."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(map(repr, MODES))}")
    run_text(description)
    folder.mkdir(parents=True, exist_ok=True)
    scores = folder / part_name(SCORES, rank)
    if scores.exists() and mode == "new":
        raise RunError(f"{folder} already holds a run; mode='resume' goes on with it, mode='replace' removes it")
    if mode == "resume" and (scores.exists() or (folder / RUN).exists()):
        was, ranks = read_description(folder)["ranks"], description.get("ranks")
        if ranks is not None and was != ranks:
            raise RunError(f"{folder} holds a run of {was} ranks with files of their own, and this one has {ranks}; "
                           "a run goes on with as many")  # fmt: skip
    if mode == "resume" and scores.exists():
        with open(scores, encoding="utf-8") as file:
            if file.readline().rstrip("\n") not in ("", ",".join(COLUMNS)):
                raise RunError(f"{scores} has other columns than this FlashNCE writes")


def next_step(folder: Path, rank: int) -> int:
    """The step after the last one that a rank has written whole, 0 where there is none."""
    path = folder / part_name(SCORES, rank)
    content = path.read_bytes() if path.exists() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    try:
        return int(float(lines[-1].split(b",")[0])) + 1 if len(lines) > 1 else 0
    except (ValueError, OverflowError):
        raise RunError(f"{path} is damaged in its last line") from None


class RunFolder:
    """A sink that writes the folder of a run; `python -m flashnce report` reads it.

    Args:
        folder: made where it is missing.
        description: what run.json says beside format and version, as JSON can hold it: name, group, about, and ranks,
            the number of ranks that have files of their own (1).
        mode: "new": the folder must hold no run; "resume": goes on with one; "replace": another run's log is removed.
        rank: whose file this is, where each rank has its own.

    Raises:
        RunError: what is there does not go with the mode.
        TypeError: run.json cannot hold the description; what is there stays.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, description: dict[str, Any], mode: str = "new", rank: int = 0):
        self.folder = Path(folder)
        description = {"ranks": 1, **description}
        check_folder(self.folder, description, mode, rank)
        text = run_text(description)
        self._paths = {name: self.folder / part_name(name, rank) for name in (SCORES, DETAILS)}
        if mode == "resume" and self._paths[SCORES].exists():
            for path in filter(Path.exists, self._paths.values()):
                _whole_lines(path)
        else:
            for path in self._paths.values():
                path.unlink(missing_ok=True)
            if rank == 0:
                self._describe(text)
        self._files = {name: open(path, "a", encoding="utf-8") for name, path in self._paths.items()}
        if self._paths[SCORES].stat().st_size == 0:
            self._append(SCORES, ",".join(COLUMNS))

    def _describe(self, text: str) -> None:
        temporary = self.folder / (RUN + ".tmp")
        temporary.write_text(text)
        os.replace(temporary, self.folder / RUN)

    def _append(self, name: str, line: str) -> None:
        file = self._files[name]
        file.write(line + "\n")
        file.flush()

    def write(self, row: Row) -> None:
        """Appends a step's line to scores.csv. OSError: it cannot be written."""
        self._append(SCORES, ",".join([text_of(row.get(name)) for name in COLUMNS]))

    def write_details(self, details: dict[str, Any]) -> None:
        """Appends a step's line to details.jsonl, with null for what is not finite. OSError: it cannot be written."""
        self._append(DETAILS, json.dumps(json_of(details), separators=(",", ":"), allow_nan=False))

    def close(self) -> None:
        """Closes the files; each line is in them already."""
        for file in self._files.values():
            file.close()
