"""The text of a record: JSON with one cell a line, so that a difference of two records shows the cells that differ."""

from __future__ import annotations

import json


def _has_objects(value: object) -> bool:
    """Whether there is a list of objects in it, such as the cells of a table."""
    if isinstance(value, list):
        return any(isinstance(item, dict) or _has_objects(item) for item in value)
    return isinstance(value, dict) and any(map(_has_objects, value.values()))


def _lines(value: object, indent: str) -> str:
    """What holds a list of objects is broken into its parts, what does not stays on one line."""
    if not _has_objects(value):
        return json.dumps(value)
    inner = indent + " "
    if isinstance(value, dict):
        parts, ends = [f"{json.dumps(key)}: {_lines(part, inner)}" for key, part in value.items()], "{}"
    else:
        parts, ends = [_lines(part, inner) for part in value], "[]"
    return f"{ends[0]}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{ends[1]}"


def text_of(record: dict) -> str:
    return _lines(record, "") + "\n"
