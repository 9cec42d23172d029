"""gpu_bench on the harness of tests/hostcuda, and what its readers make of its report. The times themselves mean
nothing.

usage: gpu_bench_test.py PROGRAM
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "cuda"))

import gpu_floors  # noqa: E402
import gpu_results  # noqa: E402

MEASUREMENTS = {
    *(f"{part}_graph_{state}" for part in ("step", "partial") for state in ("cold", "hot")),
    "step_stream_cold", "step_stream_hot", "prep_graph_hot", "finish_graph_hot",
}  # fmt: skip
RATES = {"hbm_read": 3e12, "l2_read": 5e12, "mma_f16": 6e14, "mma_bf16": 5e14, "ex2": 4e12, "l2_bytes": 5e7}


def run(program: str, folder: Path, *arguments: str, text: str = "", code: int = 0) -> tuple[str, str]:
    """The report and what the program said."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [program, f"--benchmark_out={report}", *arguments], input=text, capture_output=True, text=True
    )
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return report.read_text() if report.exists() else "", done.stderr


def check_cells(program: str, folder: Path) -> None:
    short = ("--benchmark_min_time=0", "--benchmark_repetitions=2")
    text, _ = run(program, folder, "--cells=-", *short, text="3 40 16 float16 ft\n\n0 40 16 float32 moco\n")
    timed, wrong = gpu_results.cells_of(gpu_results.report_of(text))
    assert timed["shape"] == [3, 40, 16] and (timed["type"], timed["preset"]) == ("float16", "ft"), timed
    assert set(timed["us"]) == MEASUREMENTS, timed["us"]
    assert all(0 < t["min"] <= t["median"] <= t["max"] for t in timed["us"].values()), timed["us"]
    assert timed["workspace"] > 0 and timed["cold_queues"] >= 2 and "3 queries x 40 negatives" in timed["plan"], timed
    assert "error" not in timed and "n is 0" in wrong["error"], (timed, wrong)
    with_floors = gpu_floors.with_floors(timed, RATES)
    assert set(with_floors["floors"]) == {"cold", "hot"}, with_floors
    # The report of a program that was killed holds what was complete.
    cut = gpu_results.report_of(text[: text.index('"step/graph/hot') + 200])
    (partial,) = gpu_results.cells_of(cut)
    assert set(partial["us"]) == {"step_graph_cold", "step_stream_cold", "partial_graph_cold"}, partial
    assert gpu_results.report_of("")["benchmarks"] == []


def check_rates(program: str, folder: Path) -> None:
    text, _ = run(program, folder, "--benchmark_filter=launch|ex2", "--benchmark_repetitions=3")
    rates = gpu_results.rates_of(gpu_results.report_of(text))
    assert set(rates) == {"sm_count", "l2_bytes", "ex2", "launch_stream", "launch_graph", "launch_one"}, rates
    median = next(e for e in json.loads(text)["benchmarks"] if e["name"].startswith("rate/ex2") and
                  e.get("aggregate_name") == "median")  # fmt: skip
    operations = rates["sm_count"]["value"] * 8 * 256 * 8 * 4096
    assert abs(rates["ex2"]["value"] * median["real_time"] * 1e-6 / operations - 1) < 0.01, (rates, median)
    assert rates["ex2"]["unit"] == "ex2.approx/s"
    # Times are those of one launch, whether 200 lie between two events or one.
    for name in ("launch_stream", "launch_graph"):
        assert 0.05 < rates[name]["value"] / rates["launch_one"]["value"] < 20, rates


def check_wrong_use(program: str, folder: Path) -> None:
    for arguments, text, word in (
        (["--cells=-"], "1 2 3 int8 ft\n", "1 2 3 int8 ft"),
        (["--cells=-"], "1 2 3 float16\n", "1 2 3 float16"),
        (["--cells=/nothing"], "", "/nothing"),
        (["--nothing"], "", "--nothing"),
        (["--benchmark_filter=nothing"], "", "no benchmark"),
    ):
        _, said = run(program, folder, *arguments, text=text, code=1)
        assert word in said, (arguments, said)
    done = subprocess.run([program, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--cells=FILE" in done.stdout and "--benchmark_filter" in done.stdout, done


def main() -> None:
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        for check in (check_wrong_use, check_rates, check_cells):
            check(program, Path(name))


if __name__ == "__main__":
    main()
