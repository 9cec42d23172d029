"""bench/in_batch.py: its page says what its record says, and a small run measures all that it tells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench" / "in_batch.py"
PAGE = ROOT / "docs" / "performance.md"


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, str(BENCH), *arguments], env=os.environ, check=True, capture_output=True,
                          text=True, timeout=600).stdout  # fmt: skip


def test_the_page_says_what_its_record_says():
    text = PAGE.read_text()
    record = ROOT / re.search(r"bench/records/in-batch/[\w.-]+\.json", text)[0]
    assert not json.loads(record.read_text())["commit"]["dirty"]
    assert run("--from", str(record)).strip() in text


@pytest.mark.full
def test_a_small_run(tmp_path):
    record = tmp_path / "record.json"
    printed = run("--sizes", "24", "--features", "8", "--types", "float32", "bfloat16", "--threads", "1",
                  "--peers", "flashnce", "eager", "--rounds", "1", "--record", str(record))  # fmt: skip
    assert run("--from", str(record)) == printed
    cells = json.loads(record.read_text())["cells"]
    assert [(cell["loss"], cell["type"]) for cell in cells] == [
        (loss, dtype) for loss in ("info_nce", "clip") for dtype in ("float32", "bfloat16")
    ]
    for cell in cells:
        ours, eager = cell["peers"]["flashnce"], cell["peers"]["eager"]
        assert ours["error"] < (1e-5 if cell["type"] == "float32" else 0.1)
        assert ours["ms"]["median"] > 0 and ours["of_eager"]["median"] > 0 and eager["ms"]["median"] > 0
