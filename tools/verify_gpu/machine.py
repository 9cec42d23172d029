"""What the machine is: its GPU as the driver describes it, the processor, the commit. No names of hosts or places."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

# CUdevice_attribute of cuda.h.
ATTRIBUTES = {
    "sm_count": 16,
    "clock_khz": 13,
    "memory_clock_khz": 36,
    "memory_bus_bits": 37,
    "l2_bytes": 38,
    "major": 75,
    "minor": 76,
    "shared_bytes_per_block": 97,
}
# These sources decide the results, so a state or a carried build of other ones is not gone on with.
SOURCES = ("CMakeLists.txt", "cmake", "include", "src", "kernels", "tests", "bench", "python")
SUFFIXES = {".h", ".hpp", ".c", ".cpp", ".cu", ".cuh", ".py", ".txt", ".cmake", ".map", ".in"}


class Driver:
    """The few functions of the CUDA driver that describe devices."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        self.check("cuInit", 0)

    def check(self, name: str, *arguments) -> None:
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise OSError(f"{name} returned {status}")

    def number(self, name: str, *arguments) -> int:
        value = ctypes.c_int()
        self.check(name, ctypes.byref(value), *arguments)
        return value.value

    def device(self, index: int) -> dict:
        handle = self.number("cuDeviceGet", index)
        name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
        self.check("cuDeviceGetName", name, 128, handle)
        self.check("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        values = {key: self.number("cuDeviceGetAttribute", number, handle) for key, number in ATTRIBUTES.items()}
        capability = f"{values.pop('major')}.{values.pop('minor')}"
        driver = self.number("cuDriverGetVersion")
        return {
            "name": name.value.decode(),
            "capability": capability,
            "memory_gib": round(memory.value / 2**30, 1),
            "driver_cuda": f"{driver // 1000}.{driver % 1000 // 10}",
            "driver": nvidia_smi("driver_version"),
            **values,
        }


def nvidia_smi(query: str) -> str | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None


def find_device() -> tuple[dict | None, str]:
    """The first device, or None and why there is none."""
    try:
        driver = Driver()
        if driver.number("cuDeviceGetCount") == 0:
            return None, "the driver has no device"
        return driver.device(0), ""
    except OSError as error:
        return None, f"no CUDA driver: {error}"


def architecture(device: dict) -> str:
    """As CMAKE_CUDA_ARCHITECTURES writes it."""
    return device["capability"].replace(".", "")


def slug(device: dict) -> str:
    """Part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", device["name"].lower()).strip("-")


def host() -> dict:
    fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def sources_hash(root: Path) -> str:
    """Over names and contents of everything that is compiled or run."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def commit(root: Path) -> dict:
    """Its id, None outside a repository, and whether files differ from it (None where nobody can tell)."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    name = git("rev-parse", "--verify", "-q", "HEAD")
    changes = git("status", "--porcelain", "--", ".", ":!bench/records") if name else None
    return {"id": name, "dirty": None if changes is None else changes != ""}
