"""Which kernels the peers choose under the instruction set that this process is limited to, and how fast they are.

`probe` gives {name: {"kernels": what the peer says of itself, "gflops": of a square product on one thread}}. What
MKL says of itself is its header line; on processors of other makers than Intel that names no instruction set, and only
its speed tells: twice as many lanes are twice as fast.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

SIDE = 1024  # of the square matrices
SECONDS = 0.3


def gflops(product, operands) -> float:
    """The best of the products that fit into a while."""
    product(*operands)
    best, stop = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < stop:
        start = time.perf_counter()
        product(*operands)
        best = min(best, time.perf_counter() - start)
    return round(2 * SIDE**3 / best / 1e9, 1)


def own_speeds() -> dict[str, float]:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    square = torch.rand(SIDE, SIDE)
    half = square.bfloat16()
    numbers = square.numpy()
    return {
        "torch": gflops(torch.mm, (square, square)),
        "numpy": gflops(np.matmul, (numbers, numbers)),
        "torch bfloat16": gflops(torch.mm, (half, half)),
    }


def words(output: str, pattern: str, otherwise: str = "not said") -> str:
    found = re.search(pattern, output)
    return found.group(1).strip() if found else otherwise


def probe(environment: dict[str, str]) -> dict[str, dict]:
    """Of a process with this environment."""
    talkative = environment | {"MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1"}
    program = [sys.executable, "-m", "peers.kernels"]
    done = subprocess.run(program, env=talkative, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    # PyTorch leaves bfloat16 to oneDNN only where that has kernels for it.
    implementation = words(done.stdout, r"exec,cpu,matmul,([\w:+]+),", "PyTorch's own, not oneDNN's")
    speeds = said["gflops"]
    return {
        "torch": {"kernels": words(done.stdout, r"MKL_VERBOSE (oneMKL .* processors)"), "gflops": speeds["torch"]},
        "numpy": {"kernels": said["numpy"], "gflops": speeds["numpy"]},
        "torch bfloat16": {"kernels": implementation, "gflops": speeds["torch bfloat16"]},
        "torch loops": {"kernels": said["loops"], "gflops": None},
    }


def main() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    import torch

    from .software import numpy_blas

    speeds = own_speeds()
    said = {"gflops": speeds, "numpy": numpy_blas(), "loops": torch.backends.cpu.get_cpu_capability()}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
