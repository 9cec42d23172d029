"""Programs of a test in several processes of one torch.distributed group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def outputs_of(program: str, folder: Path, count: int = 2) -> list[list[str]]:
    """What each process prints, in words. The program's arguments are its rank, the file of the group's store and how
    many there are; it may import what tests share."""
    script = folder / "worker.py"
    script.write_text(program)
    paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder / "store"), str(count)], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    found = []
    try:
        for worker in workers:
            output, errors = worker.communicate(timeout=120)
            assert worker.returncode == 0, errors
            found.append(output.split())
    finally:
        for worker in workers:
            worker.kill()
    return found
