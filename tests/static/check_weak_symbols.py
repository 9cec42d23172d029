"""Objects compiled for one instruction set hold no weak code that another one could end up running.

An inline function with external linkage comes out of every object as a weak symbol; the linker keeps one copy for all.
If that copy was compiled for AVX-512, a machine without AVX-512 stops at an illegal instruction. Weak symbols whose
name holds the instruction set (a namespace fnce::cpu::avx2) exist once and are harmless.

usage: check_weak_symbols.py --nm NM --objects LIST     LIST: lines "<isa> <object file>"
"""
import argparse
import pathlib
import subprocess
import sys

# Data that is equal whatever it was compiled for: the personality routine's reference.
HARMLESS = ("DW.ref.",)


def weak_definitions(nm, path):
    output = subprocess.run([nm, "-C", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and parts[1] in "WVwvu" and not parts[2].startswith(HARMLESS):
            yield parts[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--objects", required=True, type=pathlib.Path)
    options = parser.parse_args()
    entries = [line.split(maxsplit=1) for line in options.objects.read_text().splitlines() if line.strip()]
    if not entries:
        sys.exit(f"{options.objects} names no objects")
    problems = [
        f"{isa}: {name} in {pathlib.Path(path).name}"
        for isa, path in entries
        for name in sorted(weak_definitions(options.nm, path))
        if f"::{isa}::" not in name
    ]
    for problem in problems:
        print(problem)
    print(f"{len(entries)} objects, {len(problems)} weak symbols that other objects could use")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
