"""AMX code configures its tiles from read-only data.

GCC's ldtilecfg is declared to read 8 of the 64 bytes that it reads: a configuration on the stack may never be written,
and the instruction then faults. Processors with AMX show that in the tests of the C API; this shows it on any.

usage: amx_code.py --objdump OBJDUMP --objects LIST     LIST: lines "<isa> <object file>"
"""
import argparse
import pathlib
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--objects", required=True, type=pathlib.Path)
    options = parser.parse_args()
    entries = [line.split(maxsplit=1) for line in options.objects.read_text().splitlines() if line.strip()]
    found, problems = 0, []
    for path in (path for isa, path in entries if isa == "amx"):
        output = subprocess.run([options.objdump, "-d", "--no-show-raw-insn", path], check=True, capture_output=True,
                                text=True).stdout
        for line in output.splitlines():
            if "ldtilecfg" not in line:
                continue
            found += 1
            if "(%rip)" not in line:
                problems.append(f"{pathlib.Path(path).name}: {' '.join(line.split()[1:])}")
    for problem in problems:
        print(problem)
    print(f"{found} configurations of tiles, {len(problems)} of them not in read-only data")
    sys.exit(1 if problems or found == 0 else 0)


if __name__ == "__main__":
    main()
