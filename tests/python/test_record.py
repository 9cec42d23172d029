"""The records of the comparison under bench/records, the table that README.md shows, and the program that measures.

The program is run for real on a tiny problem; no figure is expected of it, only that all of them are there.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
RECORDS = sorted((BENCH / "records").glob("*.json"))
sys.path.insert(0, str(BENCH))

import record as records  # noqa: E402
import table  # noqa: E402


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict:
    """A run of the program, its record with a commit where this is no repository."""
    program = [sys.executable, str(BENCH / "run.py"), "--threads", "1", "--rounds", "2", "--shapes", "9x64x16"]
    program += ["--memory-shape", "9x64x16", "--without", "compiled-ft", "--record"]
    path = tmp_path_factory.mktemp("record") / "tiny.json"
    done = subprocess.run([*program, str(path)], capture_output=True, text=True)
    if "commit.id is None" in done.stderr:
        pytest.skip("this tree is not a commit, and a record names one")
    assert done.returncode == 0, done.stderr
    assert str(path.parent) not in path.read_text()
    return json.loads(path.read_text())


def test_the_program_measures_every_peer(measured):
    (cell,) = measured["cells"]
    assert set(cell["peers"]) == set(table.ROWS) - {"compiled-ft"}
    assert cell["shape"] == [9, 64, 16] and cell["skipped"] == {}
    assert set(measured["memory"]["extra_mib"]) == set(cell["peers"])
    for name, peer in cell["peers"].items():
        assert peer["rounds"] == 2
        if "loss_error" in peer:
            # Float32 in any order: an error of another magnitude means that a peer computes something else.
            assert peer["loss_error"] < 1e-5 and peer["dq_error"] < 1e-4, name


def test_a_measured_record_is_valid(measured):
    records.validate(measured)


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
        (broken(lambda r: r["cells"][0]["peers"].pop("gemms-numpy")), "gemms-numpy"),
        (broken(lambda r: r["cells"][0]["peers"]["eager-ft"].pop("dq_error")), "dq_error"),
        (broken(lambda r: r["cells"][0]["peers"]["eager-ft"]["ms"].update(median=float("nan"))), "eager-ft.ms.median"),
        (broken(lambda r: r["cells"][0]["peers"]["eager-ft"]["ms"].update(min=1e9)), "eager-ft.ms"),
        (broken(lambda r: r["cells"][0]["comparisons"]["FT over no FT"].update(of=["a", "b"])), "FT over no FT.of"),
        (broken(lambda r: r.update(cells=[])), "cells"),
    ],
)
def test_a_broken_record_is_refused(measured, change, field):
    with pytest.raises(records.RecordError) as error:
        records.validate(change(measured))
    assert field in str(error.value)


def test_the_gemms_compared_with_are_the_faster(measured):
    slower = copy.deepcopy(measured)
    cell = slower["cells"][0]
    cell["gemms"] = next(name for name in records.GEMMS if name != cell["gemms"])
    with pytest.raises(records.RecordError, match="faster"):
        records.validate(slower)


def test_table_in_a_document(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "RECORDS", tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(measured))
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- record: tiny -->\n<!-- end record -->\nafter\n")
    assert table.main(["--check", str(document)]) == 1
    assert table.main(["--write", str(document)]) == 0
    assert table.main(["--check", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n<!-- record: tiny -->\n") and text.endswith("<!-- end record -->\nafter\n")
    median = measured["cells"][0]["peers"]["flashnce-ft-torch"]["ms"]["median"]
    assert f"| {table.significant(median)} (" in text
    document.write_text(text.replace("9, 64, 16", "9, 64, 17", 1))
    assert table.main(["--check", str(document)]) == 1
    document.write_text("no table\n")
    assert table.main(["--check", str(document)]) == 1
    document.write_text("<!-- record: absent -->\n<!-- end record -->\n")
    assert table.main(["--check", str(document)]) == 1
    assert "absent" in capsys.readouterr().err


@pytest.mark.parametrize("value, text", [(0.0123, "0.01"), (0.5, "0.50"), (1.234, "1.23"), (56.78, "56.8"), (123.45, "123"), (1236.5, "1236")])
def test_significant_digits(value, text):
    assert table.significant(value) == text


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed_records(path):
    record = records.load(path)
    assert not record["commit"]["dirty"], "a committed record is of a commit"


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="there is no README.md")
def test_readme_shows_its_record():
    assert table.main(["--check", str(ROOT / "README.md")]) == 0
