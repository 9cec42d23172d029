"""Programs of a test in several processes of one torch.distributed group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def outputs_of(program: str, folder: Path, count: int = 2) -> list[list[str]]:
    """What each process prints, in words. The program's arguments are its rank and the file of the group's store."""
    script = folder / "worker.py"
    script.write_text(program)
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder / "store")],
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
