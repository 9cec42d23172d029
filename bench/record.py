"""The records of the comparison: their schema, checked field by field, and reading one.

{
  "schema": 2, "date": "YYYY-MM-DD", "command": what was typed,
  "commit": {"id": 40 hex digits, "dirty": whether files differed from it},
  "machine": {"cpu", "cpu_family", "cpu_model", "cores", "memory_gib", "system", "virtual", "load": before it started},
  "software": {"flashnce": version and instruction set, "compiler", "python", "torch", "torch_blas", "numpy",
               "numpy_blas"},
  "settings": {"rounds", "temperature", "seconds": that all of it took},
  "instruction_sets": [{"limit": what all were limited to, or null, "flashnce": the one that it used,
                        "peers": {name: {"kernels": what it says of itself, "gflops": of a square product, or null}}}],
  "tables": {"steps" | "shapes" | "types" | "isa" | "pages":
    [{"shape": [N,K,D], "threads", "isa": the library's, "gemms": the faster of gemms-torch and gemms-numpy, or null,
      "peers": {name: {"ms": spread, "rounds", "ratios": {"gemms-torch": spread, "gemms-numpy": spread},
                       "loss_error", "dq_error",                   of those that have a loss
                       "products": the type of the scores' products, where the library says it}},
      "skipped": {name: reason},
      "comparisons": {name: {"of": [numerator, denominator], spread}}}]},
  "left_out": [{"table", "shape", "threads", "reason"}],
  "memory": {"shape": [N,K,D], "threads", "extra_mib": {name: MiB}} or null
}

A spread is {"median", "min", "max"}; times are milliseconds per step, ratios are taken within rounds, and errors are
against float64: of the whole batch in the table of steps, of the worst of a few queries in the others. The table of
pages has no GEMMs, and so no ratios over them. The file has one cell a line (record_text.py).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

SCHEMA = 2
GEMMS = ("gemms-torch", "gemms-numpy")
TABLES = ("steps", "shapes", "types", "isa", "pages")
# The peers of the table of steps, in words.
STEPS = {
    "gemms-torch": "two GEMMs, PyTorch",
    "gemms-numpy": "two GEMMs, NumPy",
    "flashnce-moco-torch": "FlashNCE `moco`, PyTorch",
    "flashnce-moco-c": "FlashNCE `moco`, C",
    "flashnce-ft-torch": "FlashNCE `ft`, PyTorch",
    "flashnce-ft-c": "FlashNCE `ft`, C",
    "flashnce-ft-elementwise-torch": "FlashNCE `ft-elementwise`, PyTorch",
    "flashnce-ft-elementwise-c": "FlashNCE `ft-elementwise`, C",
    "moco-code": "MoCo code",
    "eager-ft": "FT, eager",
    "compiled-ft": "FT, `torch.compile`",
    "eager-ft-elementwise": "elementwise FT, eager",
}
PAGES = {"ft-4k": "all on 4K pages", "ft-queue-2m": "queue on 2M pages", "ft-all-2m": "queue and workspace on 2M pages"}
TEXT, WHOLE, NUMBER = "a text", "a whole number above 0", "a number"


def names_of(peer: str) -> str:
    """A peer in words."""
    if peer in STEPS or peer in PAGES:
        return STEPS.get(peer) or PAGES[peer]
    what, _, element = peer.rpartition("-")
    return f"{'two GEMMs, PyTorch' if what == 'gemms-torch' else f'FlashNCE `{what[9:]}`'}, {element}"


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


def _peer(place: str, peer: dict, bases: tuple[str, ...], has_loss: bool) -> None:
    errors = {"loss_error", "dq_error"} if has_loss else set()
    _keys(place, peer, {"ms", "rounds", "ratios"} | errors, {"products"})
    _keys(f"{place}.ms", peer["ms"], {"median", "min", "max"})
    _spread(f"{place}.ms", peer["ms"])
    _is(f"{place}.rounds", peer["rounds"], WHOLE)
    _keys(f"{place}.ratios", peer["ratios"], set(bases))
    for base in bases:
        _keys(f"{place}.ratios.{base}", peer["ratios"][base], {"median", "min", "max"})
        _spread(f"{place}.ratios.{base}", peer["ratios"][base])
    for error in errors:
        _is(f"{place}.{error}", peer[error], NUMBER)
    if "products" in peer:
        _is(f"{place}.products", peer["products"], TEXT)


def _cell(place: str, cell: dict, bases: tuple[str, ...]) -> None:
    _keys(place, cell, {"shape", "threads", "isa", "gemms", "peers", "skipped", "comparisons"})
    _shape(f"{place}.shape", cell["shape"])
    _is(f"{place}.threads", cell["threads"], WHOLE)
    _is(f"{place}.isa", cell["isa"], TEXT)
    if cell["gemms"] not in (bases or (None,)):
        _fail(f"{place}.gemms", cell["gemms"], f"one of {bases}" if bases else "null")
    _keys(f"{place}.peers", cell["peers"], set(bases), cell["peers"].keys())
    for name, peer in cell["peers"].items():
        _peer(f"{place}.peers.{name}", peer, bases, not name.startswith("gemms-"))
    if bases:
        fastest = min(bases, key=lambda name: cell["peers"][name]["ms"]["median"])
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


def _instruction_sets(entries: list) -> None:
    for number, entry in enumerate(entries):
        place = f"instruction_sets[{number}]"
        _keys(place, entry, {"limit", "flashnce", "peers"})
        if entry["limit"] is not None:
            _is(f"{place}.limit", entry["limit"], TEXT)
        _is(f"{place}.flashnce", entry["flashnce"], TEXT)
        for name, said in entry["peers"].items():
            _keys(f"{place}.peers.{name}", said, {"kernels", "gflops"})
            _is(f"{place}.peers.{name}.kernels", said["kernels"], TEXT)
            if said["gflops"] is not None:
                _is(f"{place}.peers.{name}.gflops", said["gflops"], NUMBER)


def _tables(tables: dict) -> None:
    _keys("tables", tables, set(), set(TABLES))
    if not tables:
        _fail("tables", tables, "at least one table")
    for table, cells in tables.items():
        if not isinstance(cells, list) or not cells:
            _fail(f"tables.{table}", cells, "a list of at least one cell")
        for number, cell in enumerate(cells):
            _cell(f"tables.{table}[{number}]", cell, () if table == "pages" else GEMMS)


def _left_out(entries: list) -> None:
    for number, entry in enumerate(entries):
        place = f"left_out[{number}]"
        _keys(place, entry, {"table", "shape", "threads", "reason"})
        _shape(f"{place}.shape", entry["shape"])
        _is(f"{place}.threads", entry["threads"], WHOLE)
        for field in ("table", "reason"):
            _is(f"{place}.{field}", entry[field], TEXT)


def _memory(memory: dict) -> None:
    _keys("memory", memory, {"shape", "threads", "extra_mib"})
    _shape("memory.shape", memory["shape"])
    _is("memory.threads", memory["threads"], WHOLE)
    for name, extra in memory["extra_mib"].items():
        _is(f"memory.extra_mib.{name}", extra, NUMBER)


def validate(record: object) -> None:
    """Raises RecordError unless it is a record."""
    parts = {"schema", "date", "command", "commit", "machine", "software", "settings"}
    _keys("record", record, parts | {"instruction_sets", "tables", "left_out", "memory"})
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
    _keys("settings", record["settings"], {"rounds", "temperature", "seconds"})
    _is("settings.rounds", record["settings"]["rounds"], WHOLE)
    for name in ("temperature", "seconds"):
        _is(f"settings.{name}", record["settings"][name], NUMBER)
    _instruction_sets(record["instruction_sets"])
    _tables(record["tables"])
    _left_out(record["left_out"])
    if record["memory"] is not None:
        _memory(record["memory"])
    _no_place("record", record)


def load(path: Path) -> dict:
    """A record that has been checked."""
    try:
        record = json.loads(path.read_text())
        validate(record)
    except (json.JSONDecodeError, RecordError) as error:
        raise RecordError(f"{path.name}: {error}") from None
    return record
