"""The records of the comparison under bench/records, the tables that documents show of them, and the program that
measures.

The program is run for real on tiny problems; no figure is expected of it, only that all of them are there.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
RECORDS = sorted((BENCH / "records").glob("*.json"))
ALL_RECORDS = sorted((BENCH / "records").rglob("*.json"))
DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "docs" / "performance.md") if path.is_file()]
sys.path.insert(0, str(BENCH))

import compare  # noqa: E402
import grid  # noqa: E402
import record as records  # noqa: E402
import render  # noqa: E402
import record_text  # noqa: E402
import table  # noqa: E402
from peers import errors, ours  # noqa: E402
from peers.steps import Inputs, Shape  # noqa: E402

pytestmark = pytest.mark.full  # the benchmark program runs


def bench(*arguments: str) -> subprocess.CompletedProcess:
    program = [sys.executable, str(BENCH / "run.py"), "--threads", "1", *arguments]
    return subprocess.run(program, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict:
    """A run of the program with all tables, its record with a commit where this is no repository."""
    path = tmp_path_factory.mktemp("record") / "tiny.json"
    shapes = ["--shapes", "9x64x16", "--grid", "5x48x24", "1000000x100000x100", "--memory-shape", "9x64x16"]
    done = bench("--rounds", "2", *shapes, "--without", "compiled-ft", "--record", str(path))
    if "commit.id is None" in done.stderr:
        pytest.skip("this tree is not a commit, and a record names one")
    assert done.returncode == 0, done.stderr
    assert str(path.parent) not in path.read_text()
    return json.loads(path.read_text())


def test_the_program_measures_every_peer(measured):
    (cell,) = measured["tables"]["steps"]
    assert set(cell["peers"]) == set(records.STEPS) - {"compiled-ft"}
    assert cell["shape"] == [9, 64, 16] and cell["skipped"] == {}
    assert set(measured["memory"]["extra_mib"]) == set(cell["peers"])
    for name, peer in cell["peers"].items():
        assert peer["rounds"] == 2
        if "loss_error" in peer:
            # Float32 in any order: an error of another magnitude means that a peer computes something else.
            assert peer["loss_error"] < 1e-5 and peer["dq_error"] < 1e-4, name


def test_the_program_measures_every_table(measured):
    wanted = {"steps", "shapes", "types", "pages"} | ({"isa"} if grid.instruction_sets() else set())
    assert set(measured["tables"]) == wanted
    for name in wanted - {"steps", "types"}:
        for cell in measured["tables"][name]:
            for peer_name, peer in cell["peers"].items():
                if "loss_error" in peer:
                    assert peer["loss_error"] < 1e-5 and peer["dq_error"] < 1e-4, peer_name


def test_a_shape_that_takes_too_long_is_left_out_and_named(measured):
    (entry,) = measured["left_out"]
    assert entry["shape"] == [1000000, 100000, 100] and "operations" in entry["reason"]
    assert [cell["shape"] for cell in measured["tables"]["shapes"]] == [[5, 48, 24]]
    sentence = "Left out on 1 thread, as more than 4e+10 operations a step take too long: 1000000, 100000, 100."
    assert sentence in render.render(measured, "shapes")


def test_types_run_or_are_named_as_missing(measured):
    (cell,) = measured["tables"]["types"]
    peers = {f"flashnce-{p}-{t}" for p in compare.PRESETS for t in compare.TYPES}
    assert peers <= cell["peers"].keys() | cell["skipped"].keys()
    assert not cell["peers"].keys() & cell["skipped"].keys()
    for name in peers & cell["peers"].keys():
        # The numbers are the same rounded ones: at worst a score's operands are rounded to bfloat16, over the
        # temperature.
        exact = cell["peers"][name].get("products", "float32") == "float32"
        assert cell["peers"][name]["loss_error"] < (1e-5 if exact else 0.1), name
        assert cell["peers"][name]["dq_error"] < (1e-4 if exact else 0.1), name


@pytest.mark.skipif(not grid.instruction_sets(), reason="this processor has no second instruction set to limit to")
def test_a_limited_process_is_limited(measured):
    assert {cell["isa"] for cell in measured["tables"]["isa"]} == set(grid.instruction_sets())
    entries = {entry["limit"]: entry for entry in measured["instruction_sets"]}
    assert set(entries) == {None, "avx2"} and entries["avx2"]["flashnce"] == "avx2"
    peers = entries["avx2"]["peers"]
    assert peers["torch loops"]["kernels"] == "AVX2"
    if "OpenBLAS" in peers["numpy"]["kernels"]:
        assert "Haswell" in peers["numpy"]["kernels"]


def test_a_measured_record_is_valid(measured):
    records.validate(measured)


@pytest.mark.parametrize("transformation", ["moco", "ft", "ft-elementwise"])
def test_the_reference_of_single_rows_is_that_of_the_batch(transformation, monkeypatch):
    monkeypatch.setattr(errors, "CHUNK", 7)
    inputs = Inputs(Shape(6, 40, 10))
    draws = ours.draws_of(transformation, inputs.shape)
    loss, dq = errors.reference_step(inputs, draws)
    rows = torch.arange(6)
    losses, gradients = errors.reference_rows(inputs, draws, rows)
    assert abs(losses.mean().item() - loss) < 1e-12 * abs(loss)
    assert (gradients / 6 - dq).norm() < 1e-12 * dq.norm()
    assert errors.some_rows(inputs.shape, 3).tolist() == [0, 2, 5]


def steps_of(record: dict) -> dict:
    return record["tables"]["steps"][0]


def broken(change):
    def apply(record: dict) -> dict:
        record = copy.deepcopy(record)
        change(record)
        return record

    return apply


@pytest.mark.parametrize(
    "change, field",
    [
        (broken(lambda r: r.pop("command")), "command"),
        (broken(lambda r: r.update(hostname="a")), "hostname"),
        (broken(lambda r: r["commit"].update(id="main")), "commit.id"),
        (broken(lambda r: r["machine"].update(cores=0)), "machine.cores"),
        (broken(lambda r: r["software"].update(compiler="/usr/bin/g++")), "software.compiler"),
        (broken(lambda r: r["tables"]["steps"][0]["peers"].pop("gemms-numpy")), "gemms-numpy"),
        (broken(lambda r: r["tables"]["steps"][0]["peers"]["eager-ft"].pop("dq_error")), "dq_error"),
        (broken(lambda r: steps_of(r)["peers"]["eager-ft"]["ms"].update(median=float("nan"))), "eager-ft.ms.median"),
        (broken(lambda r: steps_of(r)["peers"]["eager-ft"]["ms"].update(min=1e9)), "eager-ft.ms"),
        (broken(lambda r: steps_of(r)["comparisons"]["FT over no FT"].update(of=["a", "b"])), "FT over no FT.of"),
        (broken(lambda r: r["tables"].update(steps=[])), "steps"),
        (broken(lambda r: r.update(tables={})), "tables"),
        (broken(lambda r: r["tables"].update(others=r["tables"]["steps"])), "others"),
        (broken(lambda r: r["tables"]["pages"][0].update(gemms="gemms-torch")), "pages[0].gemms"),
        (broken(lambda r: r["tables"]["shapes"][0].pop("isa")), "isa"),
        (broken(lambda r: r["left_out"][0].update(reason="")), "left_out[0].reason"),
        (broken(lambda r: r["instruction_sets"][0]["peers"]["numpy"].update(gflops="fast")), "numpy.gflops"),
    ],
)
def test_a_broken_record_is_refused(measured, change, field):
    with pytest.raises(records.RecordError) as error:
        records.validate(change(measured))
    assert field in str(error.value)


def test_the_gemms_compared_with_are_the_faster(measured):
    slower = copy.deepcopy(measured)
    cell = slower["tables"]["steps"][0]
    cell["gemms"] = next(name for name in records.GEMMS if name != cell["gemms"])
    with pytest.raises(records.RecordError, match="faster"):
        records.validate(slower)


def test_tables_in_a_document(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "RECORDS", tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(measured))
    document = tmp_path / "README.md"
    parts = ["", *filter(None, render.PARTS)]
    blocks = [f"<!-- record: {' '.join(filter(None, ('old', part)))} -->\n<!-- end record -->\n" for part in parts]
    document.write_text("before\n" + "between\n".join(blocks) + "after\n")
    assert table.main(["--check", str(document)]) == 1
    assert table.main(["--use", "tiny", str(document)]) == 0
    assert table.main(["--check", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n<!-- record: tiny -->\n") and text.endswith("<!-- end record -->\nafter\n")
    median = measured["tables"]["steps"][0]["peers"]["flashnce-ft-torch"]["ms"]["median"]
    assert f"| {render.significant(median)} (" in text
    document.write_text(text.replace("9, 64, 16", "9, 64, 17", 1))
    assert table.main(["--check", str(document)]) == 1
    document.write_text("no table\n")
    assert table.main(["--check", str(document)]) == 1
    document.write_text("<!-- record: absent -->\n<!-- end record -->\n")
    assert table.main(["--check", str(document)]) == 1
    assert "absent" in capsys.readouterr().err


def test_every_ratio_of_the_record_is_in_its_tables(measured):
    (types,), (pages,) = measured["tables"]["types"], measured["tables"]["pages"]
    for preset in compare.PRESETS:
        ran = f"flashnce-{preset}-bfloat16" in types["peers"]
        assert ran == (f"bfloat16 over float32, {preset}" in types["comparisons"])
        assert ran == (f"bfloat16 {preset} over its GEMMs" in types["comparisons"])
    assert ("queue on 2M pages over 4K" in pages["comparisons"]) == ("ft-queue-2m" in pages["peers"])
    cell = measured["tables"]["shapes"][0]
    for base in records.GEMMS:
        ratio = cell["peers"]["flashnce-ft-c"]["ratios"][base]["median"]
        assert f"{ratio:.2f}×" in render.render(measured, "shapes")


def test_a_part_that_a_record_lacks_is_said_to_be_missing(measured):
    without = copy.deepcopy(measured)
    del without["tables"]["types"]
    assert "has no table of types" in render.render(without, "types")


@pytest.mark.parametrize(
    "value, text",
    [
        (0.00123, "0.001"), (0.0123, "0.012"), (0.5, "0.50"),
        (1.234, "1.23"), (56.78, "56.8"), (123.45, "123"), (1236.5, "1236"),
    ],
)
def test_significant_digits(value, text):
    assert render.significant(value) == text


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed_records(path):
    record = records.load(path)
    assert not record["commit"]["dirty"], "a committed record is of a commit"


def test_a_cell_is_a_line():
    cells = [{"shape": [1, 2, 3], "peers": {"a": {"ms": 0.5}}}, {"shape": [4, 5, 6], "peers": {}}]
    record = {"schema": 1, "machine": {"cores": 2}, "tables": {"steps": cells, "none": []}, "memory": None}
    text = record_text.text_of(record)
    assert json.loads(text) == record and text.endswith("}\n")
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    assert all(json.dumps(cell) in lines for cell in cells) and '"machine": {"cores": 2}' in lines


@pytest.mark.parametrize("path", ALL_RECORDS, ids=lambda path: path.relative_to(BENCH / "records").as_posix())
def test_committed_records_have_a_cell_a_line(path):
    assert path.read_text() == record_text.text_of(json.loads(path.read_text()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_show_their_record(path):
    assert table.main(["--check", str(path)]) == 0


def test_the_grid_covers_every_value():
    shapes = [Shape.parse(text) for text in grid.GRID]
    for field, values in (
        ("n", (32, 256, 1024, 4096)),
        ("k", (1024, 4096, 16384, 65536, 262144)),
        ("d", (64, 128, 256, 512, 768)),
    ):
        for value in values:
            assert sum(getattr(shape, field) == value for shape in shapes) >= 2, (field, value)
    corners = {Shape(n, k, d) for n in (32, 4096) for k in (1024, 262144) for d in (64, 768)}
    assert corners <= set(shapes) and len(set(shapes)) == len(shapes)


def test_sign_test():
    assert compare.sign_test([1.1] * 10) == pytest.approx(2 / 2**10)
    assert compare.sign_test([0.9] * 9 + [1.1]) == pytest.approx(2 * 11 / 2**10)
    assert compare.sign_test([0.9, 1.1]) == 1.0 and compare.sign_test([1.0, 1.0]) == 1.0


@pytest.mark.parametrize("count, bounds", [(5, (0, 4)), (6, (0, 5)), (9, (1, 7)), (21, (5, 15)), (30, (9, 20))])
def test_interval_of_the_median(count, bounds):
    """The order statistics of published tables of the sign test's 95 % interval."""
    values = [float(i) for i in range(count)]
    assert compare.median_interval(values[::-1]) == bounds


COMPARE = ("--rounds", "6", "--shapes", "9x256x16", "--types", "float32", "bfloat16")


def compared(*arguments: str, tmp_path: Path) -> tuple[subprocess.CompletedProcess, list[dict]]:
    path = tmp_path / "compared.json"
    done = bench("--compare", os.environ["FLASHNCE_LIBRARY"], *COMPARE, "--json", str(path), *arguments)
    return done, json.loads(path.read_text())


@pytest.mark.skipif("FLASHNCE_LIBRARY" not in os.environ, reason="needs the path of a library")
def test_compare_a_build_with_itself(tmp_path):
    done, cells = compared("--fail-above", "1000", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {(cell["preset"], cell["type"]) for cell in cells} == {
        (preset, element) for preset in compare.PRESETS for element in ("float32", "bfloat16")
    }
    both = [cell for cell in cells if not cell["lacks"]]
    assert {cell["preset"] for cell in both if cell["type"] == "float32"} == set(compare.PRESETS)
    for cell in both:
        # Two copies of it, on the same draws.
        assert cell["results"] == "same bits" and len(cell["ratios"]) == 6
        ratio = cell["ratio"]
        assert ratio["min"] <= ratio["low"] <= ratio["median"] <= ratio["high"] <= ratio["max"]
    for cell in cells:
        assert set(cell["lacks"]) in (set(), {"this", "other"})


@pytest.mark.skipif("FLASHNCE_LIBRARY" not in os.environ, reason="needs the path of a library")
def test_compare_as_a_gate(tmp_path):
    done, _ = compared("--presets", "ft", "--fail-above", "0.001", tmp_path=tmp_path)
    assert done.returncode == 1 and "above 0.001" in done.stdout


@pytest.mark.parametrize("other", ["no-such-revision", str(BENCH)])
def test_compare_with_nothing(other):
    done = bench("--compare", other)
    assert done.returncode == 2 and other.split("/")[-1] in done.stderr


def test_verdicts():
    ratios = [1.02, 1.03, 1.04, 1.05, 1.06, 1.07]
    assert compare.verdict(compare.summary(ratios)) == "slower"
    assert compare.verdict(compare.summary([1 / ratio for ratio in ratios])) == "faster"
    assert compare.verdict(compare.summary([0.97, *ratios[1:]])) == "no difference seen"
