"""What the tests of `./dev verify-gpu` share: a made-up device, a context, programs that are shell scripts."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from verify_gpu import benches, build, machine, record, render, runner, stages  # noqa: E402, F401
from verify_gpu.runner import Context  # noqa: E402

DEVICE = {"name": "NVIDIA Example 100", "capability": "9.0", "memory_gib": 80.0, "driver": "580.1",
          "driver_cuda": "13.0", "sm_count": 132, "l2_bytes": 50 * 2**20}  # fmt: skip

RATES = {"hbm_read": 3e12, "l2_read": 5e12, "mma_f16": 6e14, "mma_bf16": 5e14, "ex2": 4e12, "l2_bytes": 50e6}
gpu_cells, gpu_floors, gpu_results = benches.gpu_cells, benches.gpu_floors, benches.gpu_results


@pytest.fixture
def context(tmp_path) -> Context:
    made = Context(ROOT, tmp_path / "out", DEVICE)
    made.out.mkdir()
    made.log = tmp_path / "log"
    made.log.write_text("")
    made.deadline = time.monotonic() + 60
    return made


def program(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
