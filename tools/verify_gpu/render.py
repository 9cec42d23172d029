"""A record of verify-gpu as a page, from its JSON alone.

usage: python -m verify_gpu.render RECORD.json      writes RECORD.md beside it
"""

from __future__ import annotations

import sys
from pathlib import Path

from . import record as records

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from record_text import text_of  # noqa: E402

WORDS = {
    "passed": "passed: every required stage passed and no other failed",
    "failed": "FAILED: something below did",
    "incomplete": "incomplete: something required has not run, so nothing is verified",
}
# Peers in words; attention makes the mixed queue first, and that counts.
PEERS = {
    "gemms": "two GEMMs, cuBLAS",
    "moco-code": "MoCo code",
    "eager-ft": "FT, eager, draws on the device",
    "compiled-ft": "FT, `torch.compile`",
    "ft-code": "FT per element, draws on the host",
}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return ["None."]
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def figure(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def cell_text(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def data_of(record: dict, field: str) -> list:
    """What all stages measured under a name, one after the other."""
    return [item for stage in record["stages"] for item in stage["data"].get(field, [])]


def head(record: dict) -> list[str]:
    device, host, commit = record["device"], record["host"], record["commit"]
    changed = {True: ", with changes", False: "", None: ", of which nobody can tell whether it had changes"}
    name = commit["id"][:12] if commit["id"] else "unknown"
    return [
        f"# {device['name']}, {record['date']}",
        "",
        f"Verdict: **{WORDS[record['verdict']]}**.",
        "",
        f"Commit {name}{changed[commit['dirty']]}, sources {record['sources']}, by `{record['command']}`. Compute "
        f"capability {device['capability']}, {device.get('sm_count', '?')} multiprocessors, "
        f"{device.get('memory_gib', '?')} GiB, driver {device.get('driver') or '?'} "
        f"(CUDA {device.get('driver_cuda', '?')}); "
        f"{host['cpu']}, {host['cores']} cores, Python {host['python']}.",
        "",
        "A page made of the JSON file beside it by `tools/verify_gpu`.",
        "",
    ]


def stages(record: dict) -> list[str]:
    rows = []
    for stage in record["stages"]:
        counts = stage["data"].get("counts")
        tests = stage["data"].get("tests")
        what = f"{tests} tests" if tests else ""
        if counts:
            what = ", ".join(f"{number} {word}" for word, number in counts.items())
        status = "**failed**" if stage["status"] == "failed" else stage["status"]
        required = "yes" if stage["required"] else ""
        seconds, detail = f"{stage['seconds']:.0f}", cell_text(stage["detail"])
        rows.append([stage["name"], status, required, seconds, cell_text(what), detail])
    return ["## Stages", "", *table(["stage", "result", "required", "s", "checks", "what it said"], rows), ""]


def numbers(record: dict) -> list[str]:
    lines = []
    for stage in record["stages"]:
        found = stage["data"].get("numbers")
        if found:
            lines += [f"## Numbers of {stage['name']}", ""]
            lines += [*table(["what", "value"], [[cell_text(k), figure(v, 4)] for k, v in found.items()]), ""]
    return lines


def rates(record: dict) -> list[str]:
    found = {}
    for stage in record["stages"]:
        found |= stage["data"].get("rates", {})
    if not found:
        return []
    rows = [[name, figure(rate["value"], 4) if rate["value"] < 1e6 else f"{rate['value']:.3e}", rate["unit"]]
            for name, rate in found.items()]  # fmt: skip
    return ["## Rates of the device", "", *table(["what", "value", "unit"], rows), ""]


def gemms_of(record: dict) -> dict:
    return {
        (tuple(line["shape"]), line["type"]): line["us"].get("graph_cold", line["us"].get("stream_cold"))
        for line in data_of(record, "gemms")
        if "us" in line
    }


def cells(record: dict) -> list[str]:
    found, gemms, rows = data_of(record, "cells"), gemms_of(record), []
    if not found:
        return []
    for cell in found:
        line = ["×".join(map(str, cell["shape"])), cell["type"], cell["preset"]]
        if "error" in cell:
            rows.append([*line, cell_text(cell["error"]), *[""] * 8])
            continue
        us, floors = cell["us"], cell.get("floors", {})
        for state in ("cold", "hot"):
            floor = floors.get(state)
            line += [
                *(figure(us.get(f"{part}_graph_{state}", {}).get("median")) for part in ("step", "partial")),
                f"{figure(floor['us'])} ({floor['limit']})" if floor else "–",
                f"{floor['step_over_floor']:.2f}×" if floor else "–",
            ]  # fmt: skip
        products = gemms.get((tuple(cell["shape"]), cell["type"].removesuffix("-fast")))
        rows.append([*line, figure(products["median"] if products else None)])
    columns = ["N×K×D", "type", "preset"]
    for state in ("cold", "hot"):
        columns += [f"step, {state}", f"pass, {state}", f"floor, {state}", "step / floor"]
    return [
        "## Times of the step",
        "",
        "Microseconds in a CUDA graph, medians; step: loss and dq; pass: `fnce_partial` alone (packing, tables, main "
        "kernel, merging); floor: the least time by the rates above, in parentheses what sets it; GEMMs: cuBLAS's two "
        "products alone, cold.",
        "",
        *table([*columns, "GEMMs"], rows),
        "",
    ]


def kernels(record: dict) -> list[str]:
    rows = [
        ["×".join(map(str, shape["shape"])), shape["type"], shape["preset"], f"`{cell_text(name[:80])}`",
         figure(kernel["us"]["median"]), figure(kernel["per_step"])]
        for shape in data_of(record, "kernels") for name, kernel in shape["kernels"].items()
    ]  # fmt: skip
    if not rows:
        return []
    columns = ["N×K×D", "type", "preset", "kernel", "µs", "launches a step"]
    return ["## Single kernels, cold queue, by the profiler", "", *table(columns, rows), ""]


def peers(record: dict) -> list[str]:
    lines = []
    for shape in data_of(record, "peers"):
        rows = []
        for name, peer in shape["peers"].items():
            us = peer["us"]
            times = [us.get(way, {}).get("median") for way in ("graph_cold", "graph_hot", "stream_cold", "stream_hot")]
            errors = [peer.get(error) for error in ("loss_error", "dq_error")]
            rows.append([
                PEERS.get(name, name), *map(figure, times), *(f"{e:.1e}" if e is not None else "–" for e in errors),
                figure(peer.get("peak_mib")),
            ])  # fmt: skip
        lines += [f"### {'×'.join(map(str, shape['shape']))}, {shape['type']}", ""]
        lines += table(
            ["", "graph, cold", "graph, hot", "stream, cold", "stream, hot", "loss error", "dq error", "peak MiB"], rows
        )
        for name, why in shape["skipped"].items():
            lines.append(f"\nNot run: {PEERS.get(name, name)} ({why}).")
        lines.append("")
    if not lines:
        return []
    return [
        "## Beside PyTorch",
        "",
        "Microseconds of a whole training step of the loss, medians of interleaved rounds. Errors against float64 on "
        "the same rounded inputs: of the loss relative, of dq of the worst row relative to its norm.",
        "",
        *lines,
    ]


def render(record: dict) -> str:
    parts = [head, stages, rates, cells, kernels, peers, numbers]
    return "\n".join(line for part in parts for line in part(record)).rstrip() + "\n"


def write(record: dict, path: Path) -> None:
    """The JSON file and the page beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(record))
    path.with_suffix(".md").write_text(render(record))


if __name__ == "__main__":
    source = Path(sys.argv[1])
    source.with_suffix(".md").write_text(render(records.load(source)))
