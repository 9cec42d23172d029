"""Compiles every CUDA kernel for every architecture of a release, without a GPU, and keeps machine code and reports.

The reports are those of ptxas. Files are kept under a hash of all that goes into them, so that an unchanged tree costs
nothing. check_budget.py and check_sass.py read them. As a program it compiles and says how much there was to do.
"""
import argparse
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

FLAGS = ["-std=c++20", "-cubin", "-Xptxas", "-v"]
SKIPPED = 77


@dataclasses.dataclass(frozen=True)
class Unit:
    """A source compiled for an architecture."""

    source: pathlib.Path
    arch: str
    cubin: pathlib.Path
    report: pathlib.Path


def add_arguments(parser):
    parser.add_argument("--source", required=True, type=pathlib.Path, help="the project's root")
    parser.add_argument("--cache", required=True, type=pathlib.Path, help="folder for what is compiled")
    parser.add_argument("--table", required=True, help="the program kernel_table")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--archs", help="such as 80;90; where it is left out, those of a release")
    parser.add_argument("--jobs", type=int, default=2)


def listed(root, variable):
    """What cmake/cuda_arch.cmake sets a list to."""
    text = (root / "cmake/cuda_arch.cmake").read_text()
    return re.search(rf"set\({variable}\s+([^)]+)\)", text).group(1)


def release_archs(root):
    return listed(root, "FLASHNCE_CUDA_RELEASE_ARCHS").split()


def archs_of(options):
    return options.archs.split(";") if options.archs else release_archs(options.source)


def archs_of_folders(options):
    """{folder of kernels/: the architectures that it is compiled for}."""
    def fits(arch, made_for):
        return made_for == "any" or int(arch) == int(made_for.rstrip("+a")) or (
            made_for.endswith("+") and int(arch) > int(made_for[:-1]))

    lines = [line.split() for line in re.findall(r'"(.+?)"', listed(options.source, "FLASHNCE_CUDA_FOLDERS"))]
    return {folder: [made_for if made_for.endswith("a") else arch
                     for arch in archs_of(options) if fits(arch, made_for)] for folder, made_for in lines}


def nvcc_version(nvcc):
    """Such as 13.0.88; None where there is no nvcc."""
    if not shutil.which(nvcc):
        return None
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    return re.search(r"\bV(\d+\.\d+\.\d+)", text).group(1)


def digest_of(paths, *words):
    digest = hashlib.sha256()
    for word in words:
        digest.update(str(word).encode() + b"\0")
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def units_of(options, version):
    root = options.source
    headers = [path for folder in ("include", "src", "kernels") for path in (root / folder).rglob("*")
               if path.suffix in (".h", ".cuh") and "cpu" not in path.parts]
    shared = digest_of(sorted(headers), version, *FLAGS)
    for name, archs in archs_of_folders(options).items():
        folder = root / "kernels" / name
        for arch, source in itertools.product(archs, sorted([*folder.glob("*.cu"), *folder.glob("inst/*.cu")])):
            stem = f"{source.parent.name}_{source.stem}_{digest_of([source], shared, arch)}"
            place = options.cache / f"sm_{arch}"
            yield Unit(source, arch, place / f"{stem}.cubin", place / f"{stem}.txt")


def compile_unit(options, unit):
    unit.cubin.parent.mkdir(parents=True, exist_ok=True)
    temporary = unit.cubin.with_suffix(f".{os.getpid()}.part")
    roots = [options.source / folder for folder in ("src", "", "include")]
    command = [options.nvcc, *FLAGS, f"-gencode=arch=compute_{unit.arch},code=sm_{unit.arch}",
               *(f"-I{folder}" for folder in roots), str(unit.source), "-o", str(temporary)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    unit.report.write_text(result.stdout + result.stderr)
    temporary.rename(unit.cubin)


def compiled_units(options, version):
    """All units, compiled now where they are not yet; what no unit uses any more is removed."""
    units = list(units_of(options, version))
    missing = [unit for unit in units if not unit.cubin.is_file() or not unit.report.is_file()]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda unit: compile_unit(options, unit), missing))
    kept = {path for unit in units for path in (unit.cubin, unit.report)}
    for folder in {unit.cubin.parent for unit in units}:
        for path in folder.iterdir():
            if path not in kept:
                path.unlink()
    print(f"{len(units)} files for {';'.join(archs_of(options))}, {len(missing)} of them compiled now")
    return units


def kernel_table(options):
    """The kernels of the sm80 family by their demangled symbols, as kernels/engines/sm80/names.h has them."""
    text = subprocess.run([options.table], check=True, capture_output=True, text=True).stdout
    return {row["symbol"]: row for row in json.loads(text)}


@functools.cache
def demangled(symbol):
    """namespace::kernel<arguments>, without fnce::cuda, and without anonymous namespaces, whose names change with
    every compilation."""
    name = subprocess.run(["c++filt", "-p", symbol], check=True, capture_output=True, text=True).stdout.strip()
    name = name.replace("(anonymous namespace)::", "").replace("fnce::cuda::", "")
    return re.sub(r"_GLOBAL__N__\w+::", "", name)


def name_of(table, symbol):
    name = demangled(symbol)
    return table[name]["name"] if name in table else name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    options = parser.parse_args()
    version = nvcc_version(options.nvcc)
    if version is None:
        print("nvcc is not installed")
        sys.exit(SKIPPED)
    compiled_units(options, version)


if __name__ == "__main__":
    main()
