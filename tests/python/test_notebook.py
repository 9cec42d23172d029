"""The tutorial: it runs, its outputs are committed, and they have the shape of a fresh run's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "tutorial" / "scores.ipynb"


def shapes(notebook):
    """Of each cell with code: the kinds of its outputs."""
    return [[sorted(output.get("data", {"text": 0})) for output in cell.outputs if output.get("name") != "stderr"]
            for cell in notebook.cells if cell.cell_type == "code"]  # fmt: skip


@pytest.mark.full
def test_the_notebook_runs_and_its_outputs_are_committed(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [NOTEBOOK.parents[2] / "python"])))
    committed = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    client.NotebookClient(fresh, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert shapes(fresh) == shapes(committed)
    assert sum("image/png" in kind for kinds in shapes(committed) for kind in kinds) == 5
    # The first output is the same number by hand and fused.
    assert code[1].outputs[0].text.split()[2].rstrip(",") == code[1].outputs[0].text.split()[-1]
