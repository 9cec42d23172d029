"""The record of a run: bench/records/gpu/<date>-<device>.json.

{
  "schema": 1, "kind": "gpu", "date": "YYYY-MM-DD", "command": what was typed, "verdict": passed | failed | incomplete,
  "finished": whether every stage has run,
  "commit": {"id": 40 hex digits or null, "dirty": whether files differed from it, or null},
  "sources": a hash of all that ran,
  "device": {"name", "capability", "memory_gib", "driver", "driver_cuda", "sm_count", "l2_bytes", clocks ...},
  "host": {"cpu", "cores", "memory_gib", "system", "python"},
  "stages": [{"name", "what", "required", "status": one of runner.STATUSES or "not run", "detail", "seconds", "data"}]
}

Stages that prove hold counts, what failed and numbers as data. Stages that measure hold "rates", "cells" (as
bench/cuda/gpu_results.py gives them, with their floors), "gemms", "kernels" or "peers". Times are microseconds. A
spread is {"median", "min", "max"}; that of a cell is over repetitions, each of which is the mean of at least 10 ms. The
file has one cell a line (bench/record_text.py).
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path

from . import machine
from .runner import STATUSES, Result, Stage, verdict

SCHEMA = 1
NOT_RUN = "not run"
VERDICTS = ("passed", "failed", "incomplete")
FIELDS = set("schema kind date verdict finished command commit sources device host stages".split())
# Paths of one machine stay out of records; logs hold them.
PRIVATE = re.compile(r"(?<![\w.}/])/(?:work|root|home|tmp|opt|usr|mnt|Users)/\S*")


class RecordError(ValueError):
    """A record that is not of the schema; the sentence names the field."""


def without_paths(value):
    """The same with the paths in its texts left out."""
    if isinstance(value, str):
        return PRIVATE.sub("<path>", value)
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    return [without_paths(inner) for inner in value] if isinstance(value, list) else value


def stage_entry(stage: Stage, result: Result | None) -> dict:
    entry = {"name": stage.name, "what": stage.what, "required": stage.required}
    if result is None:
        return {**entry, "status": NOT_RUN, "detail": "", "seconds": 0, "data": {}}
    return {
        **entry,
        "status": result.status,
        "detail": result.detail,
        "seconds": result.seconds,
        "data": result.data,
    }


def assemble(stages: list[Stage], results: dict[str, Result], facts: dict) -> dict:
    """`facts`: command, commit, sources, device, host."""
    record = {
        "schema": SCHEMA,
        "kind": "gpu",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "verdict": verdict(stages, results),
        "finished": all(stage.name in results for stage in stages),
        **facts,
        "stages": [stage_entry(stage, results.get(stage.name)) for stage in stages],
    }
    return without_paths(record)


def _must(holds: bool, place: str, value: object, wanted: str) -> None:
    if not holds:
        raise RecordError(f"{place} is {value!r}; it must be {wanted}")


def validate(record: dict) -> None:
    """Raises RecordError unless it is of the schema, and its verdict follows from its stages."""
    _must(set(record) == FIELDS, "record", sorted(set(record) ^ FIELDS), "made of the fields of the schema")
    _must(record["schema"] == SCHEMA and record["kind"] == "gpu", "schema", record["schema"], f"{SCHEMA} of kind gpu")
    _must(bool(re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])), "date", record["date"], "a date")
    _must(record["verdict"] in VERDICTS, "verdict", record["verdict"], f"one of {VERDICTS}")
    name = record["commit"]["id"]
    _must(name is None or bool(re.fullmatch(r"[0-9a-f]{40}", name)), "commit.id", name, "40 hex digits or null")
    for field in ("name", "capability"):
        _must(bool(record["device"].get(field)), f"device.{field}", record["device"].get(field), "a text")
    _must(bool(record["stages"]), "stages", record["stages"], "a list of stages")
    for stage in record["stages"]:
        place = f"stages[{stage['name']}]"
        status = stage["status"]
        _must(status in (*STATUSES, NOT_RUN), f"{place}.status", status, f"one of {STATUSES} or {NOT_RUN}")
        _must(stage["seconds"] >= 0, f"{place}.seconds", stage["seconds"], "a number")
    statuses = [stage["status"] for stage in record["stages"]]
    bad = any(status in ("failed", "timeout") for status in statuses)
    required = [stage["status"] for stage in record["stages"] if stage["required"]]
    proven = set(required) == {"passed"} and NOT_RUN not in statuses
    expected = "failed" if bad else "passed" if proven else "incomplete"
    _must(record["verdict"] == expected, "verdict", record["verdict"], f"{expected}, as the stages say")
    leak = PRIVATE.search(json.dumps(record))
    _must(leak is None, "record", leak and leak.group(), "free of paths of one machine")


def path_of(record: dict, folder: Path) -> Path:
    return folder / f"{record['date']}-{machine.slug(record['device'])}.json"


def load(path: Path) -> dict:
    record = json.loads(path.read_text())
    validate(record)
    return record
