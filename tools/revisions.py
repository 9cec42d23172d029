"""Builds of other revisions of this repository, each in a folder of its own under build/ that is kept."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("libflashnce.so", "libflashnce.dylib")


class RevisionError(Exception):
    """The other build cannot be found or made."""


def library_in(folder: Path, inside: tuple[str, ...] = ("src", "lib", "")) -> Path | None:
    """Of a build folder or an installation."""
    places = [folder / place / name for place in inside for name in NAMES]
    return next((place for place in places if place.is_file()), None)


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)


def commit_of(revision: str) -> str:
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found.returncode != 0:
        raise RevisionError(f"{revision} is no file, no folder and no revision of this repository")
    return found.stdout.decode().strip()


def unpack(commit: str, folder: Path) -> None:
    """The commit's files."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit).stdout)) as archive:
        # Newer versions of Python ask for a filter, older ones do not know it.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def cmake(*arguments: str) -> subprocess.CompletedProcess:
    """CMake of the Python environment, or else the system's; output and errors in one."""
    beside = Path(sys.executable).parent / "cmake"
    program = str(beside) if beside.is_file() else "cmake"
    return subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def configure(revision: str, folder: Path, options: list[str]) -> None:
    """A new build folder of the revision, whose files lie in `source` inside."""
    commit = commit_of(revision)
    shutil.rmtree(folder, ignore_errors=True)
    unpack(commit, folder / "source")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    release = ["-DCMAKE_BUILD_TYPE=Release", *options]
    done = cmake("-S", str(folder / "source"), "-B", str(folder), *generator, *release)
    if done.returncode != 0:
        raise RevisionError(f"{revision} cannot be configured:\n{done.stdout[-3000:]}")


def build(revision: str, folder: Path, target: str) -> None:
    jobs = str(len(os.sched_getaffinity(0)))
    done = cmake("--build", str(folder), "--target", target, "-j", jobs)
    if done.returncode != 0:
        raise RevisionError(f"{revision} does not build:\n{done.stdout[-3000:]}")
