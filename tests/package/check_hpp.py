"""flashnce.hpp compiles without a warning as C++17 and C++20, with every C++ compiler of this machine.

usage: check_hpp.py --source ROOT --cxx CXX
"""
import argparse
import pathlib
import shutil
import subprocess
import sys

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wold-style-cast",
            "-Werror"]
OTHERS = ["g++", "clang++", *(f"clang++-{version}" for version in range(14, 22))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--cxx", required=True)
    options = parser.parse_args()
    compilers = {pathlib.Path(path).resolve(): path for path in map(shutil.which, [options.cxx, *OTHERS]) if path}
    if not compilers:
        sys.exit(f"{options.cxx} is no program")
    for compiler in compilers.values():
        for standard in ("c++17", "c++20"):
            for unit in ("main.cpp", "other.cpp"):
                source = options.source / "tests/package/cpp" / unit
                subprocess.run([compiler, f"-std={standard}", *WARNINGS, "-fsyntax-only",
                                f"-I{options.source / 'include'}", source], check=True)
            print(f"{compiler} -std={standard}")


if __name__ == "__main__":
    main()
