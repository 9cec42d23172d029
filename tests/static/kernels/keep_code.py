"""A compiler launcher: compiles a kernel as nvcc was told to, and keeps machine code and ptxas' report of every
architecture where kernel_code.py looks for them. The code of a release is then compiled once and is what is checked.

    cmake -D "CMAKE_CUDA_COMPILER_LAUNCHER=python3;keep_code.py;--source;ROOT;--cache;FOLDER;--" ...
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import kernel_code

ENTRY = re.compile(r"Compiling entry function '\w+' for 'sm_(\w+)'")


def reports_of(text):
    """{architecture: ptxas' lines}; nvcc compiles for one after the other."""
    reports, arch, before = {}, None, ""
    for line in text.splitlines(keepends=True):
        if match := ENTRY.search(line):
            arch = match.group(1)
        if arch is None:
            before += line
        else:
            reports[arch] = reports.get(arch, before) + line
    return reports


def keep(options, source, folder, reports):
    for unit in kernel_code.units_of(options, kernel_code.nvcc_version(options.command[0])):
        if unit.source.resolve() != source:
            continue
        # nvcc names code that has PTX beside it <source>.compute_90.sm_90.cubin, other code <source>.compute_80.cubin.
        found = [path for path in folder.glob("*.cubin") if path.stem.endswith(f"_{unit.arch}")]
        if len(found) == 1 and unit.arch in reports:
            unit.cubin.parent.mkdir(parents=True, exist_ok=True)
            unit.report.write_text(reports[unit.arch])
            unit.cubin.write_bytes(found[0].read_bytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, type=pathlib.Path, help="the project's root")
    parser.add_argument("--cache", required=True, type=pathlib.Path, help="kernel_code.py's folder")
    parser.add_argument("command", nargs="+", help="nvcc and its arguments, after --")
    options = parser.parse_args()
    options.archs = None
    kernels = (options.source / "kernels").resolve()
    sources = [path for path in map(pathlib.Path, options.command) if path.suffix == ".cu"]
    if len(sources) != 1 or kernels not in sources[0].resolve().parents:
        sys.exit(subprocess.run(options.command).returncode)
    with tempfile.TemporaryDirectory() as folder:
        command = [*options.command, "-Xptxas", "-v", "--keep", "--keep-dir", folder]
        result = subprocess.run(command, capture_output=True, text=True)
        reports = reports_of(result.stdout + result.stderr)
        if result.returncode or not reports:
            print(result.stdout + result.stderr)
        else:
            keep(options, sources[0].resolve(), pathlib.Path(folder), reports)
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
