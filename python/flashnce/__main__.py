"""`python -m flashnce info`: which library is loaded and what it can use."""

from __future__ import annotations

import argparse
from importlib import metadata

from . import __version__, _library


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def info() -> None:
    print(f"flashnce   {__version__}")
    print(f"library    {_library.PATH}")
    print(f"build      {_library.LIBRARY.fnce_build_info().decode()}")
    print(f"devices    cpu {_library.device_count(_library.CPU)}, cuda {_library.device_count(_library.CUDA)}")
    print(f"threads    {_library.LIBRARY.fnce_get_threads()}")
    print(f"torch      {_installed('torch')}")
    print(f"numpy      {_installed('numpy')}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flashnce", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print the versions, the library and its devices")
    parser.parse_args()
    info()


if __name__ == "__main__":
    main()
