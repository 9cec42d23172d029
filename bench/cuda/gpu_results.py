"""Reads what gpu_bench wrote with --benchmark_out=FILE.json: rates, and cells with a spread for each of their
measurements.

usage: gpu_results.py FILE.json     prints a line of JSON per rate and cell
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gpu_cells import Cell


def report_of(text: str) -> dict:
    """Google Benchmark's report; one that was cut off gives what is complete of it, at least empty lists."""
    try:
        return json.loads(text)
    except ValueError:
        # Results are written one by one, each closed by a brace of its own indentation.
        end = text.rfind("\n    }")
        try:
            return json.loads(text[:end] + "\n    }]}")
        except ValueError:
            return {"context": {}, "benchmarks": []}


def results_of(report: dict) -> dict[str, dict[str, dict]]:
    """By name of the benchmark: its aggregates "median", "min", "max" and so on, or one entry "error"."""
    found: dict[str, dict[str, dict]] = {}
    for entry in report["benchmarks"]:
        kind = "error" if entry.get("error_occurred") else entry.get("aggregate_name")
        if kind is not None:
            found.setdefault(entry["run_name"], {})[kind] = entry
    return found


def rates_of(report: dict) -> dict[str, dict]:
    """{"hbm_read": {"value": 3.1e12, "unit": "bytes/s, 1 GiB"}, ...}: medians of rates, or of times in microseconds."""
    context = report["context"]
    rates = {}
    for name, unit in (("sm_count", ""), ("l2_bytes", "bytes")):
        if name in context:
            rates[name] = {"value": int(context[name]), "unit": unit}
    for name, kinds in results_of(report).items():
        kind, _, rate = name.partition("/")
        if kind != "rate" or "median" not in kinds:
            continue
        median = kinds["median"]
        values = [median[field] for field in ("bytes_per_second", "items_per_second", "real_time") if field in median]
        rates[rate.split("/")[0]] = {"value": values[0], "unit": median.get("label", "")}
    return rates


def errors_of(report: dict) -> dict[str, str]:
    return {name: kinds["error"]["error_message"] for name, kinds in results_of(report).items() if "error" in kinds}


def cell_of(name: str) -> tuple[str, Cell] | None:
    """The measurement, such as step_graph_cold, and the cell of a benchmark's name; None where it is of something
    else."""
    parts = name.removesuffix("/manual_time").split("/")
    if len(parts) != 8:
        return None
    part, way, state, preset, element, *sizes = parts
    n, k, d = (int(size.partition(":")[2]) for size in sizes)
    return f"{part}_{way}_{state}", Cell(n, k, d, element, preset)


def cells_of(report: dict) -> list[dict]:
    """A dictionary per cell: shape, type, preset, "us" with a spread per measurement, cold_queues, workspace (bytes)
    and the plan; or "error" where one of its measurements failed."""
    lines: dict[Cell, dict] = {}
    for name, kinds in results_of(report).items():
        found = cell_of(name)
        if found is None:
            continue
        measurement, cell = found
        line = lines.setdefault(cell, {"shape": list(cell.shape), "type": cell.type, "preset": cell.preset, "us": {}})
        if "error" in kinds:
            line.setdefault("error", f"{measurement}: {kinds['error']['error_message']}")
        elif {"median", "min", "max"} <= set(kinds):
            median = kinds["median"]
            line["us"][measurement] = {kind: kinds[kind]["real_time"] for kind in ("median", "min", "max")}
            line |= {"cold_queues": int(median["cold_queues"]), "workspace": int(median["workspace"])}
            if "label" in median:
                line["plan"] = median["label"]
    return list(lines.values())


def main() -> None:
    report = report_of(Path(sys.argv[1]).read_text())
    for name, rate in rates_of(report).items():
        print(json.dumps({"rate": name, **rate}))
    for line in cells_of(report):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
