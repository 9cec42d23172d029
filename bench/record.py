"""The records of the comparison: their schema, checked field by field, and reading one.

{
  "schema": 1, "date": "YYYY-MM-DD", "command": what was typed,
  "commit": {"id": 40 hex digits, "dirty": whether files differed from it},
  "machine": {"cpu", "cpu_family", "cpu_model", "cores", "memory_gib", "system", "virtual", "load": before it started},
  "software": {"flashnce": version and instruction set, "compiler", "python", "torch", "torch_blas", "numpy", "numpy_blas"},
  "settings": {"rounds", "temperature"},
  "cells": [{"shape": [N,K,D], "threads", "gemms": the faster of gemms-torch and gemms-numpy,
             "peers": {name: {"ms": spread, "rounds", "ratios": {"gemms-torch": spread, "gemms-numpy": spread},
                              "loss_error", "dq_error"}},            errors of those that have a loss
             "skipped": {name: reason},
             "comparisons": {name: {"of": [numerator, denominator], spread}}}],
  "memory": {"shape": [N,K,D], "threads", "extra_mib": {name: MiB}} or null
}

A spread is {"median", "min", "max"}; times are milliseconds per step, ratios are taken within rounds.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

SCHEMA = 1
GEMMS = ("gemms-torch", "gemms-numpy")
TEXT, WHOLE, NUMBER = "a text", "a whole number above 0", "a number"


class RecordError(ValueError):
    """A record that is not of the schema; the sentence names the field."""


def _fail(place: str, value: object, wanted: str) -> None:
    raise RecordError(f"{place} is {value!r}; it must be {wanted}")


def _is(place: str, value: object, kind: str) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        TEXT: isinstance(value, str) and value != "",
        WHOLE: whole and value > 0,
        NUMBER: (whole or isinstance(value, float)) and math.isfinite(value) and value >= 0,
    }[kind]
    if not fits:
        _fail(place, value, kind)


def _keys(place: str, value: object, required: set[str], optional: set[str] = frozenset()) -> None:
    if not isinstance(value, dict):
        _fail(place, value, "an object")
    missing, surplus = required - value.keys(), value.keys() - required - optional
    if missing or surplus:
        raise RecordError(f"{place} lacks {sorted(missing)} and has {sorted(surplus)} too much")


def _spread(place: str, value: dict) -> None:
    for part in ("median", "min", "max"):
        _is(f"{place}.{part}", value[part], NUMBER)
    if not 0 < value["min"] <= value["median"] <= value["max"]:
        _fail(place, value, "0 < min <= median <= max")


def _shape(place: str, value: object) -> None:
    if not isinstance(value, list) or len(value) != 3:
        _fail(place, value, "[N,K,D]")
    for size in value:
        _is(place, size, WHOLE)


def _no_place(place: str, value: object) -> None:
    """Paths and hosts of one machine stay out of records."""
    if isinstance(value, dict):
        for key, part in value.items():
            _no_place(f"{place}.{key}", part)
    elif isinstance(value, list):
        for part in value:
            _no_place(place, part)
    elif isinstance(value, str) and re.search(r"(^|[\s=\"'(])(~|/\w+)/|\w+@\w+|://", value):
        _fail(place, value, "free of paths and hosts")


def _peer(place: str, peer: dict, has_loss: bool) -> None:
    errors = {"loss_error", "dq_error"} if has_loss else set()
    _keys(place, peer, {"ms", "rounds", "ratios"} | errors)
    _keys(f"{place}.ms", peer["ms"], {"median", "min", "max"})
    _spread(f"{place}.ms", peer["ms"])
    _is(f"{place}.rounds", peer["rounds"], WHOLE)
    _keys(f"{place}.ratios", peer["ratios"], set(GEMMS))
    for base in GEMMS:
        _keys(f"{place}.ratios.{base}", peer["ratios"][base], {"median", "min", "max"})
        _spread(f"{place}.ratios.{base}", peer["ratios"][base])
    for error in errors:
        _is(f"{place}.{error}", peer[error], NUMBER)


def _cell(place: str, cell: dict) -> None:
    _keys(place, cell, {"shape", "threads", "gemms", "peers", "skipped", "comparisons"})
    _shape(f"{place}.shape", cell["shape"])
    _is(f"{place}.threads", cell["threads"], WHOLE)
    if cell["gemms"] not in GEMMS:
        _fail(f"{place}.gemms", cell["gemms"], f"one of {GEMMS}")
    _keys(f"{place}.peers", cell["peers"], set(GEMMS), cell["peers"].keys())
    for name, peer in cell["peers"].items():
        _peer(f"{place}.peers.{name}", peer, name not in GEMMS)
    fastest = min(GEMMS, key=lambda name: cell["peers"][name]["ms"]["median"])
    if cell["gemms"] != fastest:
        _fail(f"{place}.gemms", cell["gemms"], f"the faster one, {fastest}")
    for name, reason in cell["skipped"].items():
        _is(f"{place}.skipped.{name}", reason, TEXT)
    for name, comparison in cell["comparisons"].items():
        where = f"{place}.comparisons.{name}"
        _keys(where, comparison, {"of", "median", "min", "max"})
        _spread(where, comparison)
        if len(comparison["of"]) != 2 or not set(comparison["of"]) <= cell["peers"].keys():
            _fail(f"{where}.of", comparison["of"], "two of the peers")


def validate(record: object) -> None:
    """Raises RecordError unless it is a record."""
    _keys(
        "record", record, {"schema", "date", "command", "commit", "machine", "software", "settings", "cells", "memory"}
    )
    if record["schema"] != SCHEMA:
        _fail("schema", record["schema"], str(SCHEMA))
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(record["date"])):
        _fail("date", record["date"], "YYYY-MM-DD")
    _is("command", record["command"], TEXT)
    _keys("commit", record["commit"], {"id", "dirty"})
    if not re.fullmatch(r"[0-9a-f]{40}", str(record["commit"]["id"])):
        _fail("commit.id", record["commit"]["id"], "40 hex digits")
    if not isinstance(record["commit"]["dirty"], bool):
        _fail("commit.dirty", record["commit"]["dirty"], "true or false")
    machine = record["machine"]
    _keys("machine", machine, {"cpu", "cpu_family", "cpu_model", "cores", "memory_gib", "system", "virtual", "load"})
    _is("machine.cpu", machine["cpu"], TEXT)
    _is("machine.cores", machine["cores"], WHOLE)
    _is("machine.memory_gib", machine["memory_gib"], NUMBER)
    _is("machine.load", machine["load"], NUMBER)
    software = {"flashnce", "compiler", "python", "torch", "torch_blas", "numpy", "numpy_blas"}
    _keys("software", record["software"], software)
    for name in software:
        _is(f"software.{name}", record["software"][name], TEXT)
    _keys("settings", record["settings"], {"rounds", "temperature"})
    _is("settings.rounds", record["settings"]["rounds"], WHOLE)
    _is("settings.temperature", record["settings"]["temperature"], NUMBER)
    if not isinstance(record["cells"], list) or not record["cells"]:
        _fail("cells", record["cells"], "a list of at least one cell")
    for number, cell in enumerate(record["cells"]):
        _cell(f"cells[{number}]", cell)
    if record["memory"] is not None:
        _keys("memory", record["memory"], {"shape", "threads", "extra_mib"})
        _shape("memory.shape", record["memory"]["shape"])
        _is("memory.threads", record["memory"]["threads"], WHOLE)
        for name, extra in record["memory"]["extra_mib"].items():
            _is(f"memory.extra_mib.{name}", extra, NUMBER)
    _no_place("record", record)


def load(path: Path) -> dict:
    """A record that has been checked."""
    try:
        record = json.loads(path.read_text())
        validate(record)
    except (json.JSONDecodeError, RecordError) as error:
        raise RecordError(f"{path.name}: {error}") from None
    return record
