"""The machine code of the sm80 family's main kernels holds the instructions that it was written for.

Every kernel has on every architecture as many matrix products and matrix loads as the arithmetic of tile.h says (each
loop over registers is unrolled, once), asynchronous copies, the hardware's exponential, as many barriers in the loop
over column tiles as it was written with, and no local memory.
"""
import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import kernel_code

SECTION = re.compile(r"^\s*\.section\s+\.text\.(\w+),")
LABEL = re.compile(r"^(\.L_x_\d+):")
BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*)")


def find_disassembler(options):
    """nvdisasm: as told, of the toolkit or in the path, or of the Python package of tools/requirements-cuda.txt."""
    if options.nvdisasm:
        return options.nvdisasm
    beside_nvcc = pathlib.Path(shutil.which(options.nvcc)).resolve().with_name("nvdisasm")
    if found := shutil.which(str(beside_nvcc)) or shutil.which("nvdisasm"):
        return found
    packages = [pathlib.Path(sysconfig.get_path("purelib")), *options.source.glob(".venv/lib/python*/site-packages")]
    binaries = [binary for folder in packages for binary in sorted(folder.glob("nvidia/**/bin/nvdisasm"))]
    return str(binaries[0]) if binaries else None


class Code:
    """A kernel's opcodes with their modifiers, in order, and its loops."""

    def __init__(self):
        self.opcodes, self.labels, self.loops = [], {}, []

    def read(self, line):
        if match := LABEL.match(line):
            self.labels[match.group(1)] = len(self.opcodes)
        elif match := INSTRUCTION.search(line):
            self.opcodes.append(match.group(1))
            if (branch := BRANCH.search(line)) and branch.group(1) in self.labels:
                self.loops.append((self.labels[branch.group(1)], len(self.opcodes)))

    def counts(self):
        return collections.Counter(self.opcodes)

    def main_loop(self):
        """Of the widest loop that reads keys for the sums."""
        loops = [self.opcodes[first:last] for first, last in self.loops]
        loops = [loop for loop in loops if any(opcode.startswith("LDSM.16.MT88") for opcode in loop)]
        return collections.Counter(max(loops, key=len, default=[]))


def instructions(disassembler, cubin):
    """{mangled kernel: Code}."""
    text = subprocess.run([disassembler, "-c", cubin], check=True, capture_output=True, text=True).stdout
    kernels, code = {}, None
    for line in text.splitlines():
        if match := SECTION.match(line):
            code = kernels.setdefault(match.group(1), Code())
        elif code is not None:
            code.read(line)
    return kernels


def count(counts, prefix):
    return sum(n for opcode, n in counts.items() if opcode == prefix or opcode.startswith(prefix + "."))


def problems_of(row, code):
    counts = code.counts()
    product = "HMMA.16816.F32" + (".BF16" if row["bfloat16"] else "")
    exact = {product: row["mma"], "HMMA": row["mma"], "LDSM.16.M88.4": row["ldmatrix"],
             "LDSM.16.MT88.4": row["ldmatrix_trans"], "LDSM": row["ldmatrix"] + row["ldmatrix_trans"]}
    for opcode, expected in exact.items():
        if count(counts, opcode) != expected:
            yield f"{count(counts, opcode)} {opcode}, not {expected}"
    if not row["bfloat16"] and any("BF16" in opcode for opcode in counts if opcode.startswith("HMMA")):
        yield "products in bfloat16"
    for opcode in ("LDGSTS.E.BYPASS.128", "MUFU.EX2", "BAR.SYNC"):
        if not count(counts, opcode):
            yield f"no {opcode}"
    if count(code.main_loop(), "BAR.SYNC") != row["loop_barriers"]:
        barriers = count(code.main_loop(), "BAR.SYNC")
        yield f"{barriers} barriers in the loop over column tiles, not {row['loop_barriers']}"
    for opcode in ("LDL", "STL"):
        if count(counts, opcode):
            yield f"{count(counts, opcode)} {opcode}: local memory"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kernel_code.add_arguments(parser)
    parser.add_argument("--nvdisasm", help="where it is not found by itself")
    options = parser.parse_args()
    version = kernel_code.nvcc_version(options.nvcc)
    disassembler = find_disassembler(options) if version else None
    if version is None or disassembler is None:
        print(f"{'nvcc' if version is None else 'nvdisasm'} is not installed")
        sys.exit(kernel_code.SKIPPED)
    table = kernel_code.kernel_table(options)
    problems, checked, seen = [], 0, set()
    for unit in kernel_code.compiled_units(options, version):
        if "sm80" not in unit.source.parts:
            continue
        for symbol, code in instructions(disassembler, unit.cubin).items():
            key = kernel_code.demangled(symbol)
            if key not in table:
                problems.append(f"{unit.source.name}: {symbol} is no kernel of tile.h")
                continue
            seen.add((unit.arch, key))
            checked += 1
            problems += [f"sm_{unit.arch} {table[key]['name']}: {text}" for text in problems_of(table[key], code)]
    for arch in kernel_code.archs_of_folders(options)["engines/sm80"]:
        problems += [f"sm_{arch} {row['name']}: no machine code" for key, row in table.items()
                     if (arch, key) not in seen]
    for problem in problems:
        print(problem)
    print(f"{checked} kernels, {len(problems)} problems")
    sys.exit(1 if problems or not checked else 0)


if __name__ == "__main__":
    main()
