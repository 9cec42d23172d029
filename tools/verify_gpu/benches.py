"""The stages that measure: rates, cells, products alone, single kernels, peers."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

from . import build, machine
from .runner import FAILED, PASSED, REFUSED, SKIPPED, Context, Done, Result, Stage, judged

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "cuda"))

import gpu_cells  # noqa: E402
import gpu_floors  # noqa: E402
import gpu_results  # noqa: E402

# The first five are such that every peer has a kernel for it (flash up to D = 256; cuDNN where device and version
# allow).
PEER_SHAPES = (
    "32x65536x128", "256x65536x128", "1024x65536x128", "256x65536x256", "256x4096x128", "256x65536x512",
)  # fmt: skip
CELL_PARTS = 4  # stages that the cells are spread over
PLAIN_MOST = 2**31  # N K D of a cell for the plain family
NO_PROFILER = 9  # exit code of peers.gpu_kernels


def json_lines(done: Done, field: str = "shape") -> list[dict]:
    """The objects among the lines of an output, of those that have a field."""
    found = []
    for line in done.output.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # cut off in the middle
    return [line for line in found if field in line]


def bench(context: Context, *arguments: str | Path) -> tuple[Done, dict] | Result:
    """gpu_bench on the device and its report, what there is of it if it was cut off; a result where it cannot start."""
    program = build.programs_of(context).bench
    if program is None:
        return Result(SKIPPED, "there is no gpu_bench: it was not built (it needs Google Benchmark)")
    probe = context.run(program, "--help")
    if "usage" not in probe.output:
        return Result(SKIPPED, f"gpu_bench does not start here: {probe.tail()}")
    report = context.out / f"{context.log.stem}.json"
    report.unlink(missing_ok=True)
    done = context.run(program, f"--benchmark_out={report}", *arguments)
    return done, gpu_results.report_of(report.read_text() if report.exists() else "")


def rates(context: Context) -> Result:
    ran = bench(context)
    if isinstance(ran, Result):
        return ran
    done, report = ran
    result = judged(done, {"rates": gpu_results.rates_of(report)})
    for name, error in gpu_results.errors_of(report).items():
        if result.status == PASSED:
            result.status, result.detail = FAILED, f"{name}: {error}"
    return result


def cells_for(device: dict) -> list[gpu_cells.Cell]:
    """Where only the plain family runs, without those that would take it seconds a step."""
    if int(machine.architecture(device)) >= 80:
        return gpu_cells.core()
    return [cell for cell in gpu_cells.core() if cell.n * cell.k * cell.d <= PLAIN_MOST]


def cells_of_part(part: int, cells: list[gpu_cells.Cell]) -> list[gpu_cells.Cell]:
    """Every fourth cell, so that the parts take about as long as each other."""
    return cells[part::CELL_PARTS]


def cells(part: int, context: Context) -> Result:
    wanted = cells_of_part(part, cells_for(context.device))
    given = context.out / f"cells-{part + 1}.txt"
    given.write_text("".join(cell.line() + "\n" for cell in wanted))
    ran = bench(context, f"--cells={given}")
    if isinstance(ran, Result):
        return ran
    done, report = ran
    known = {name: rate["value"] for name, rate in context.data_of("rates").get("rates", {}).items()}
    measured = [gpu_floors.with_floors(line, known) for line in gpu_results.cells_of(report)]
    result = judged(done, {"cells": measured})
    wrong = [cell for cell in measured if "error" in cell]
    if result.status == PASSED and (wrong or len(measured) != len(wanted)):
        missing = len(wanted) - len(measured)
        result.status, result.detail = FAILED, f"{len(wrong)} cells failed, {missing} are missing"
    return result


def torch_program(context: Context, module: str, *arguments: str) -> Done:
    """A module of bench/peers on the device."""
    folder = context.root / "bench"
    return context.run(sys.executable, "-m", module, *arguments, cwd=folder, env={"OMP_WAIT_POLICY": "PASSIVE"})


def has_torch() -> bool:
    probe = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0


def with_torch(run):
    def checked(context: Context) -> Result:
        if not has_torch():
            return Result(SKIPPED, "there is no PyTorch with CUDA here")
        return run(context)

    return checked


def gemms(context: Context) -> Result:
    """cuBLAS's two products at every shape of the cells, by type."""
    found, last = [], None
    for name in ("float16", "bfloat16", "float32"):
        shapes = {cell.shape for cell in gpu_cells.core() if cell.type.removesuffix("-fast") == name}
        text = ",".join("x".join(map(str, shape)) for shape in sorted(shapes))
        last = torch_program(context, "peers.gpu", "--gemms", text, "--type", name, "--rounds", "9")
        found += json_lines(last)
        if last.code != 0:
            break
    return judged(last, {"gemms": found})


def kernels(context: Context) -> Result:
    """The main kernel by itself, among the others."""
    found, last = [], None
    for name in ("float16", "float32"):
        shapes = ",".join(PEER_SHAPES[:4])
        last = torch_program(context, "peers.gpu_kernels", shapes, "--type", name)
        found += json_lines(last)
        if last.code == NO_PROFILER:
            return Result(REFUSED, f"the profiler: {last.tail(1)}", {"kernels": found})
        if last.code != 0:
            break
    return judged(last, {"kernels": found})


def peers(shape: str, context: Context) -> Result:
    done = torch_program(context, "peers.gpu", shape)
    return judged(done, {"peers": json_lines(done)})


BENCH_STAGES = [
    Stage("rates", "what the device can do", rates, required=False, limit=60, least=10),
    *(
        Stage(
            f"cells-{part + 1}", f"times, part {part + 1} of {CELL_PARTS}", partial(cells, part), required=False,
            limit=180, least=60,
        )
        for part in range(CELL_PARTS)
    ),
    Stage("kernels", "single kernels, by the profiler", with_torch(kernels), required=False, limit=120, least=40),
    *(
        Stage(
            f"peers-{shape}", f"beside PyTorch at {shape}", with_torch(partial(peers, shape)), required=False,
            limit=300, least=80,
        )
        for shape in PEER_SHAPES
    ),
    Stage("gemms", "cuBLAS's two products", with_torch(gemms), required=False, limit=240, least=90),
]  # fmt: skip
