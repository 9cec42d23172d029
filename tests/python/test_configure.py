"""What CMake says where something is missing, and what it builds where nothing is said; `pip install .` runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")


def configure(folder: Path, *options: str) -> tuple[int, str]:
    as_pip = ("-DFLASHNCE_PYTHON=ON", "-DFLASHNCE_TESTS=OFF", "-DFLASHNCE_JAX=OFF")
    result = subprocess.run(
        [CMAKE, "-S", ROOT, "-B", folder, *as_pip, *options], capture_output=True, text=True, timeout=120
    )
    return result.returncode, " ".join((result.stdout + result.stderr).split())


def cached(folder: Path, name: str) -> str:
    lines = (folder / "CMakeCache.txt").read_text().splitlines()
    return next(line.split("=", 1)[1] for line in lines if line.startswith(f"{name}:"))


def test_without_highway_the_first_error_says_how_to_get_it(tmp_path):
    status, said = configure(tmp_path, "-DCMAKE_FIND_ROOT_PATH=/nowhere", "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY")
    assert status != 0 and said.count("CMake Error") == 1
    for words in ("hwy/highway.h was not found", "apt-get install libhwy-dev", "FLASHNCE_HIGHWAY_INCLUDE=FOLDER"):
        assert words in said


@pytest.mark.parametrize("cuda", ["AUTO", "OFF"])
def test_one_architecture_is_built_unless_more_are_named(tmp_path, cuda):
    status, said = configure(tmp_path, f"-DFLASHNCE_CUDA={cuda}")
    assert status == 0, said
    if cuda == "OFF":
        assert "for the architectures" not in said
    else:
        assert cached(tmp_path, "FLASHNCE_CUDA_ARCHS") == "80"
        assert "for the architectures 80 and, by PTX, newer" in said or "is built without CUDA: " in said
