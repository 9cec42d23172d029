"""`./dev verify-gpu` without a GPU: which cells are timed, their floors, and the builds that are carried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from verify_gpu_cases import (  # noqa: F401
    DEVICE, RATES, ROOT, benches, build, context, gpu_cells, gpu_floors, gpu_results, machine, program, runner,
)  # fmt: skip


def test_core_cells():
    cells = gpu_cells.core()
    assert len(set(cells)) == len(cells) and 90 <= len(cells) <= 110
    assert set(cells) <= set(gpu_cells.full())
    for field, values in (("n", gpu_cells.NS), ("k", gpu_cells.KS), ("d", gpu_cells.DS), ("type", gpu_cells.TYPES),
                          ("preset", gpu_cells.PRESETS)):  # fmt: skip
        assert {getattr(cell, field) for cell in cells} == set(values), field
    # The shapes that the speed is stated for.
    for n in (32, 256, 1024):
        assert gpu_cells.Cell(n, 65536, 128, "float16", "ft") in cells
    parts = [benches.cells_of_part(part, cells) for part in range(benches.CELL_PARTS)]
    assert sorted(sum(parts, [])) == sorted(cells)
    assert cells[0].line().split() == [str(field) for field in cells[0]]


def test_cells_and_build_of_a_device_of_the_plain_family():
    old = {**DEVICE, "capability": "7.5"}
    assert build.architectures_of(old) == "75;80" and build.architectures_of(DEVICE) == "90"
    assert benches.cells_for(DEVICE) == gpu_cells.core()
    fewer = benches.cells_for(old)
    assert 20 < len(fewer) < len(gpu_cells.core()) and (256, 65536, 128) in {cell.shape for cell in fewer}
    assert all(cell.n * cell.k * cell.d <= 2**31 for cell in fewer)


def test_chosen_cells():
    (cell,) = gpu_cells.chosen(["32x65536x128"], ["bfloat16"], ["moco"])
    assert cell == (32, 65536, 128, "bfloat16", "moco")
    for wrong in ((["32x65536"], ["float16"], ["ft"]), (["1x2x3"], ["int8"], ["ft"]), (["1x2x3"], ["float16"], ["x"])):
        with pytest.raises(ValueError):
            gpu_cells.chosen(*wrong)


def test_floors():
    cell = gpu_cells.Cell(32, 65536, 128, "float16", "ft")
    us, limit = gpu_floors.floor_us(cell, RATES, cold=True)
    queue = 65536 * 128 * 2
    assert limit == "memory" and us == pytest.approx((queue + 32 * 128 * 8) / 3e12 * 1e6)
    # Hot, the queue comes from L2.
    us, limit = gpu_floors.floor_us(cell, RATES, cold=False)
    assert limit == "L2" and us == pytest.approx(queue / 5e12 * 1e6)
    large = cell._replace(n=1024)
    us, limit = gpu_floors.floor_us(large, RATES, cold=True)
    assert limit == "products" and us == pytest.approx(4 * 1024 * 65536 * 128 / 6e14 * 1e6)
    exact = gpu_floors.parts_us(large._replace(type="float32"), RATES, cold=True)
    assert exact["products"] == pytest.approx(3 * us)
    assert gpu_floors.parts_us(large._replace(type="float32-fast"), RATES, True)["products"] == pytest.approx(us)
    assert gpu_floors.parts_us(large._replace(type="bfloat16"), RATES, True)["products"] == pytest.approx(us * 1.2)
    # N is rounded up to what a product takes; mixed rows are written and read once more.
    assert gpu_floors.parts_us(cell._replace(n=1), RATES, True)["products"] == pytest.approx(4 * 16 * 65536 * 128 / 6e8)
    premixed = gpu_floors.parts_us(cell._replace(preset="ft-elementwise"), RATES, True)
    assert premixed["memory"] > 1.9 * gpu_floors.parts_us(cell, RATES, True)["memory"]
    assert "floors" not in gpu_floors.with_floors({"shape": [1, 2, 3], "error": "x"}, RATES)
    assert "floors" not in gpu_floors.with_floors({"shape": [1, 2, 3], "us": {}}, {})


def test_a_carried_build(context, tmp_path, monkeypatch):
    source = tmp_path / "build"
    source.mkdir()
    names = [build.LIBRARY, *build.PROGRAMS.values()]
    for name in names:
        program(source / name, f"echo usage: {name} GLIBC_2.34 GLIBCXX_3.4.9 GLIBCXX_3.4.29\n")
    carried = tmp_path / "carry"
    facts = {"architectures": "80;90", "sources": machine.sources_hash(ROOT), "commit": {"id": None, "dirty": None}}
    manifest = build.pack(build.Programs.below(source), carried, facts, strip=False)
    assert set(manifest["files"]) == set(names)
    assert (manifest["files"]["gpu_calls"]["glibc"], manifest["files"]["gpu_calls"]["glibcxx"]) == ("2.34", "3.4.29")
    context.carried = carried
    assert build.check_carried(context).status == runner.PASSED
    assert build.programs_of(context).api == (carried / "api_tests").resolve()
    environment = build.environment_of(build.programs_of(context), ROOT)
    assert environment["LD_LIBRARY_PATH"].startswith(str(carried))
    assert environment["FLASHNCE_LIBRARY"] == str(carried / build.LIBRARY)
    assert str(carried / "python") in environment["PYTHONPATH"].split(":")

    with monkeypatch.context() as other:
        # Where a library of this machine is too old.
        other.setattr(context, "run", lambda *_, **__: runner.Done(1, "version `GLIBCXX_3.4.29' not found\n"))
        assert "do not start here: version `GLIBCXX_3.4.29' not found" in build.check_carried(context).detail
    context.device = {**DEVICE, "capability": "7.5"}
    assert "not for this device" in build.check_carried(context).detail
    context.device = DEVICE
    monkeypatch.setattr(machine, "sources_hash", lambda _: "other")
    assert "other sources" in build.check_carried(context).detail
    (carried / "gpu_calls").write_text("changed")
    assert "another file" in build.check_carried(context).detail
    (carried / "manifest.json").unlink()
    assert "no carried build" in build.check_carried(context).detail


@pytest.mark.parametrize(
    "architectures, device, runs",
    [("80", "80", True), ("80;90", "90", True), ("80", "86", True), ("80", "90", True), ("80;90", "120", True),
     ("80;90", "89", True), ("90", "80", False), ("80;120", "90", False), ("75;80", "75", True)],
)  # fmt: skip
def test_which_devices_a_build_covers(architectures, device, runs):
    assert build.covers(architectures, device) == runs


def test_a_build_without_what_is_missing(context, monkeypatch, tmp_path):
    """Programs whose packages CMake does not find are left out; the others are built."""
    tools = tmp_path / "tools"
    tools.mkdir()
    said = tmp_path / "said"
    missing = "".join(
        f"""case "$*" in *{option}=ON*) echo 'By not providing "Find{package}.cmake" in CMAKE_MODULE_PATH'; exit 1;; """
        "esac\n"
        for option, package in (("FLASHNCE_TESTS", "Catch2"), ("FLASHNCE_BENCH", "benchmark"))
    )
    program(tools / "cmake", f'echo "$*" >>{said}\n{missing}')
    for name in ("nvcc", "g++"):
        program(tools / name, "")
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    result = build.build_here(context)
    assert result.status == runner.PASSED
    assert result.detail == "without api_tests, gpu_bench: Catch2, benchmark not found here"
    built, curand = said.read_text().splitlines()[-2:]
    assert "gpu_conformance" in built and not any(name in built for name in ("api_tests", "gpu_bench", "gpu_curand"))
    assert curand.endswith("--target gpu_curand")
    # Another version of cuRAND's header spoils nothing else.
    program(tools / "cmake", 'case "$*" in *gpu_curand*) exit 1;; esac\n')
    result = build.build_here(context)
    assert result.status == runner.PASSED and result.detail.startswith("without gpu_curand")
    # Any other failure is one.
    program(tools / "cmake", "echo no compiler; exit 1\n")
    assert build.build_here(context).status == runner.FAILED


def test_libraries_that_travel(monkeypatch, tmp_path):
    library = tmp_path / "elsewhere.so"
    lines = (f" libbenchmark.so.1 => {library} (0x1)", " libc.so.6 => /lib/libc.so.6 (0x2)")
    program(tmp_path / "ldd", "".join(f"echo '{line}'\n" for line in lines))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert build.libraries_of(tmp_path / "any") == [("libbenchmark.so.1", library)]


def entry(name: str, aggregate: str, us: float, **more) -> dict:
    return {"run_name": name, "aggregate_name": aggregate, "real_time": us, "time_unit": "us", **more}


def bench_program(path: Path, report: dict, code: int = 0):
    """A gpu_bench that writes a report."""
    usage = 'if [ "$1" = --help ]; then echo usage; exit 0; fi'
    text = json.dumps(report, indent=2)
    return program(path, f"{usage}\ncat >\"${{1#--benchmark_out=}}\" <<'END'\n{text}\nEND\nexit {code}\n")


def test_rates_and_cells_of_a_report(context, monkeypatch, tmp_path):
    wanted = benches.cells_of_part(0, benches.cells_for(DEVICE))
    counters = {"cold_queues": 3.0, "workspace": 4096.0}
    names = [f"{part}/graph/{state}" for part in ("step", "partial") for state in ("cold", "hot")]
    cells = [
        entry(f"{name}/{c.preset}/{c.type}/n:{c.n}/k:{c.k}/d:{c.d}/manual_time", kind, us, **counters)
        for c in wanted for name in names for kind, us in (("mean", 9.0), ("median", 5.0), ("min", 4.0), ("max", 7.0))
    ]  # fmt: skip
    rates = [
        entry("rate/hbm_read/manual_time", "median", 300.0, bytes_per_second=3e12, label="bytes/s, 1 GiB"),
        entry("rate/ex2/manual_time", "median", 100.0, items_per_second=4e12, label="ex2.approx/s"),
        entry("rate/launch_graph/manual_time", "median", 1.5, label="us"),
        entry("rate/launch_graph/manual_time", "max", 2.5, label="us"),
    ]
    file = bench_program(tmp_path / "bench", {"context": {"l2_bytes": "52428800"}, "benchmarks": rates + cells})
    monkeypatch.setattr(build, "programs_of", lambda _: build.Programs(bench=file))
    result = benches.rates(context)
    assert result.status == runner.PASSED
    assert {name: rate["value"] for name, rate in result.data["rates"].items()} == {
        "l2_bytes": 52428800, "hbm_read": 3e12, "ex2": 4e12, "launch_graph": 1.5,
    }  # fmt: skip
    assert result.data["rates"]["ex2"]["unit"] == "ex2.approx/s"
    known = {name: {"value": value} for name, value in RATES.items()}
    monkeypatch.setattr(context, "data_of", lambda _: {"rates": known}, raising=False)
    result = benches.cells(0, context)
    assert result.status == runner.PASSED and len(result.data["cells"]) == len(wanted)
    first = result.data["cells"][0]
    assert first["us"]["partial_graph_hot"] == {"median": 5.0, "min": 4.0, "max": 7.0} and first["workspace"] == 4096
    assert first["floors"]["cold"]["step_over_floor"] > 0

    # A cell that fails, and one that is missing.
    broken = {"run_name": cells[0]["run_name"], "error_occurred": True, "error_message": "no memory"}
    bench_program(file, {"context": {}, "benchmarks": [broken, *cells[16:]]})
    result = benches.cells(0, context)
    assert result.status == runner.FAILED and "1 cells failed, 0 are missing" in result.detail
    assert result.data["cells"][0]["error"] == "step_graph_cold: no memory"
    bench_program(file, {"context": {}, "benchmarks": cells[16:]})
    assert "0 cells failed, 1 are missing" in benches.cells(0, context).detail
    # A rate that fails.
    wrong = {"run_name": "rate/ex2/manual_time", "error_occurred": True, "error_message": "gone"}
    bench_program(file, {"context": {}, "benchmarks": [wrong]})
    result = benches.rates(context)
    assert result.status == runner.FAILED and result.detail == "rate/ex2/manual_time: gone"


def test_a_report_that_was_cut_off():
    entries = [entry(f"rate/{name}/manual_time", "median", 1.0) for name in ("a", "b", "c")]
    # As Google Benchmark writes it: the closing brace of an entry has four spaces in front.
    fields = (",\n".join(f'      "{k}": {json.dumps(v)}' for k, v in e.items()) for e in entries)
    listed = ",\n".join(f"    {{\n{text}\n    }}" for text in fields)
    text = '{\n  "context": {\n    "sm_count": "8"\n  },\n  "benchmarks": [\n' + listed
    for cut, left in ((text, 3), (text[: text.index("rate/c") + 3], 2), (text[: text.index("rate/a") + 3], 0), ("", 0)):
        report = gpu_results.report_of(cut)
        assert len(gpu_results.rates_of(report)) - ("sm_count" in report["context"]) == left


def test_a_program_that_found_no_device(context, monkeypatch, tmp_path):
    script = "[ $1 = --help ] && echo usage || echo 'SKIP: there is no CUDA device'\nexit 77\n"
    none = program(tmp_path / "none", script)
    monkeypatch.setattr(build, "programs_of", lambda _: build.Programs(bench=none))
    for said in ("no CUDA device", "does not start here: no libbenchmark"):
        for run in (benches.rates, lambda c: benches.cells(0, c)):
            result = run(context)
            assert result.status == runner.SKIPPED and not any(result.data.values()) and said in result.detail
        program(none, "echo no libbenchmark; exit 127\n")
