"""Runs a test program as on a processor whose best instruction set is a given one.

usage: run_with_isa.py [--lesser] ISA LIBRARY PROGRAM [ARGUMENTS]

It ends with 77 where this processor does not have that instruction set.
--lesser: 77 also for the best one that this processor has, on which the program's own test runs.
"""
import argparse
import os
import re
import subprocess
import sys

# The library reads its environment once: another process tells what it would take.
ASK = """
import ctypes, sys
build_info = ctypes.CDLL(sys.argv[1]).fnce_build_info
build_info.restype = ctypes.c_char_p
print(build_info().decode())
"""


def build_info(library, environment):
    return subprocess.run([sys.executable, "-c", ASK, library], env=environment, check=True, capture_output=True,
                          text=True).stdout.strip()  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lesser", action="store_true")
    parser.add_argument("isa")
    parser.add_argument("library")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    usable = re.search(r"cpu \(\w+ of ([\w, ]+)\)", build_info(options.library, os.environ))[1].split(", ")
    if options.isa not in usable:
        print(f"this processor cannot run {options.isa}, only {', '.join(usable)}")
        sys.exit(77)
    if options.lesser and options.isa == usable[-1]:
        print(f"{options.isa} is the best of this processor, which the program's own test takes")
        sys.exit(77)
    environment = dict(os.environ, FNCE_CPU_MAX_ISA=options.isa)
    info = build_info(options.library, environment)
    assert f"cpu ({options.isa} of " in info, info
    print(info, flush=True)
    sys.exit(subprocess.run(options.program, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
