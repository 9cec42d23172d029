"""An environment that holds a wheel and nothing else, on a machine without a compiler and without a network."""
import os
import pathlib
import subprocess
import sys

OURS = ("PYTHONPATH", "FLASHNCE_LIBRARY", "VIRTUAL_ENV")


def run(python, folder, *arguments):
    """What the program prints. Its path has no program but this Python."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment["PATH"] = str(pathlib.Path(python).parent)
    result = subprocess.run([python, *arguments], env=environment, cwd=folder, capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def environment_with(wheel, folder):
    """The Python of a new environment under `folder`, into which pip has installed the wheel."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=300)
    python = folder / "venv/bin/python"
    # pip need not be in the environment; its path holds no compiler either.
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", wheel],
                   env={**os.environ, "PATH": str(python.parent)}, check=True, timeout=300)
    return python
