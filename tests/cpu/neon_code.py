"""NEON code holds no instruction that an arm64 processor may lack.

Highway's NEON target counts the cryptographic extension in, so its objects are compiled with leave to use it, but many
processors do not have it. Nothing newer than Armv8.0 may come in either.

usage: neon_code.py --objdump OBJDUMP --objects LIST     LIST: lines "<isa> <object file>"
"""
import argparse
import pathlib
import re
import subprocess
import sys

# Mnemonics beyond Armv8.0 with floating point and NEON; SVE shows by its registers.
OPTIONAL = re.compile(r"(aes\w+|pmull2?|sha\d\w*|[su]dot|[us]mmla|bf\w*mmla|bfdot|fmlal2?|fmlsl2?|fcmla|sqrdml[as]h|"
                      r"crc32\w+|cas\w*|swp\w*|ld(add|clr|eor|set|smax|smin|umax|umin)\w*|bfcvt\w*)$")
SVE = re.compile(r"\b[zp]\d+[./]")


def instructions(objdump, path):
    command = [objdump, "-d", "--no-show-raw-insn", path]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        parts = line.split(None, 2)
        if len(parts) > 1 and re.fullmatch(r"[0-9a-f]+:", parts[0]):
            yield parts[1], parts[2] if len(parts) > 2 else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--objects", required=True, type=pathlib.Path)
    options = parser.parse_args()
    entries = [line.split(maxsplit=1) for line in options.objects.read_text().splitlines() if line.strip()]
    paths = [path for isa, path in entries if isa == "neon"]
    total, fused, problems = 0, 0, []
    for path in paths:
        for mnemonic, operands in instructions(options.objdump, path):
            total += 1
            fused += mnemonic == "fmla" and ".4s" in operands
            if OPTIONAL.match(mnemonic) or SVE.search(operands):
                problems.append(f"{pathlib.Path(path).name}: {mnemonic} {operands}")
    for problem in problems:
        print(problem)
    print(f"{len(paths)} objects, {total} instructions, {fused} of them fused multiply-adds of four lanes, "
          f"{len(problems)} that not every arm64 processor has")
    sys.exit(1 if problems or fused == 0 else 0)


if __name__ == "__main__":
    main()
