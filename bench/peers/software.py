"""What ran: versions of the library, its compiler, PyTorch and NumPy with their BLAS, and the machine. No names of
hosts or places in it, as it goes into records."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path


def _compiler(library: Path) -> str:
    """What the compiler wrote into the library's .comment section."""
    found = re.findall(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", library.read_bytes())
    return ", ".join(sorted({text.decode() for text in found})) or "unknown"


def _torch_blas(config: str) -> str:
    mkl = re.search(r"Math Kernel Library Version ([\d.]+)", config)
    if mkl:
        return f"Intel MKL {mkl.group(1)}"
    info = re.search(r"BLAS_INFO=(\w+)", config)
    return info.group(1) if info else "unknown"


def numpy_blas() -> str:
    """The loaded OpenBLAS and the kernels that it chose for this machine, or what NumPy was built with."""
    import numpy

    maps = Path("/proc/self/maps").read_text()
    for path in sorted(set(re.findall(r"(/\S*openblas\S*)", maps))):
        library = ctypes.CDLL(path)
        for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
            names = [f"{prefix}openblas_get_{what}{suffix}" for what in ("config", "corename")]
            if all(hasattr(library, name) for name in names):
                functions = [getattr(library, name) for name in names]
                for function in functions:
                    function.restype = ctypes.c_char_p
                config, core = (function().decode() for function in functions)
                return f"{' '.join(config.split()[:2])}, {core} kernels"
    try:
        blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas.get('version', '')}".strip()
    except (TypeError, KeyError):
        return "unknown"


def describe() -> dict[str, str]:
    """The record's `software`, of a process that has all of it loaded."""
    import numpy
    import torch
    from flashnce import _library as c

    return {
        "flashnce": c.LIBRARY.fnce_build_info().decode(),
        "compiler": _compiler(c.PATH),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_blas": _torch_blas(torch.__config__.show()),
        "numpy": numpy.__version__,
        "numpy_blas": numpy_blas(),
    }


def instruction_set(environment: dict[str, str]) -> str:
    """The one that the library uses in a process with this environment."""
    program = "from peers.loaded import own; print(own().instruction_set())"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine() -> dict:
    """The record's `machine`."""
    fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cpu_family": fields.get("cpu family", ""),
        "cpu_model": fields.get("model", ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "virtual": "hypervisor" in fields.get("flags", "").split(),
        "load": round(os.getloadavg()[0], 2),
    }


def commit(root: Path) -> dict:
    """The record's `commit`: its id, None outside a repository, and whether files differ from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    # A record is made before it is committed, and so are the tables of it.
    changes = git("status", "--porcelain", "--", ".", ":!bench/records", ":!README.md", ":!docs/performance.md")
    return {"id": git("rev-parse", "--verify", "-q", "HEAD"), "dirty": changes != ""}


def today() -> str:
    return datetime.now(timezone.utc).date().isoformat()
