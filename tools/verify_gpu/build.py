"""The programs that the stages run: built here for the device, or brought along.

A carried build is a folder that `./dev verify-gpu --prepare` makes on a machine with nvcc, Catch2, Google Benchmark and
Highway, for one that has none of them: the library, the programs and a manifest that says of which sources they are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .runner import FAILED, PASSED, SKIPPED, Context, Result, judged

LARGEST = 64 * 2**20  # bytes of a carried build: what can be taken along to a machine without a network
LIBRARY = "libflashnce.so.0"
# name: the file, which is named as its target
PROGRAMS = {
    "api": "api_tests",
    "conformance": "gpu_conformance",
    "models": "libgpu_models.so",
    "calls": "gpu_calls",
    "bench": "gpu_bench",
    "curand": "gpu_curand",
}
# The programs that need a package which others do not need, by the name that CMake looks for.
NEEDS = {"Catch2": "api", "benchmark": "bench"}
# Shared libraries of packages, which travel with what needs them.
CARRIED_LIBRARIES = ("libbenchmark",)
IMITATIONS = ("hostcuda", "amx_model")  # folders of libraries whose CUDA, or AMX, is a model on the CPU
# The packages of pytest, which are pure Python, so that the tests of the binding run on a machine that has only
# PyTorch.
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli")
CARRIED_ARCHITECTURES = "80;90"


@dataclass(frozen=True)
class Programs:
    """Where they are; None for one that could not be built."""

    library: Path | None = None
    api: Path | None = None
    conformance: Path | None = None
    models: Path | None = None
    calls: Path | None = None
    bench: Path | None = None
    curand: Path | None = None

    @staticmethod
    def below(folder: Path) -> Programs:
        """Of a build folder or a carried one."""

        def find(name: str) -> Path | None:
            # A build folder also holds libraries of this name that are not the product.
            found = sorted(path for path in folder.rglob(name) if path.is_file() and path.parent.name not in IMITATIONS)
            return found[0].resolve() if found else None

        return Programs(find(LIBRARY), *(find(target) for target in PROGRAMS.values()))


def folder_of(context: Context) -> Path:
    return context.carried or context.root / "build" / "gpu"


def programs_of(context: Context) -> Programs:
    return Programs.below(folder_of(context))


def environment_of(programs: Programs, root: Path) -> dict[str, str]:
    """For everything that loads the library."""
    if programs.library is None:
        return {}
    here = programs.library.parent
    folders = [str(here), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {
        "LD_LIBRARY_PATH": ":".join(folders),
        "FLASHNCE_LIBRARY": str(programs.library),
        "PYTHONPATH": ":".join(str(folder) for folder in (root / "python", here / "python") if folder.is_dir()),
    }


def configure(root: Path, folder: Path, architectures: str, without: set[str] = frozenset()) -> list[str]:
    """The command; `without`: packages of NEEDS that are not there."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    return [
        "cmake", "-S", str(root), "-B", str(folder), *generator, "-DCMAKE_BUILD_TYPE=Release", "-DFLASHNCE_CUDA=ON",
        f"-DPython3_EXECUTABLE={sys.executable}",  # its packages may hold cuRAND's header: PyTorch's wheels bring it
        f"-DFLASHNCE_CUDA_ARCHS={architectures}", "-DFLASHNCE_GPU_PROGRAMS=ON",
        f"-DFLASHNCE_TESTS={'OFF' if 'Catch2' in without else 'ON'}",
        f"-DFLASHNCE_BENCH={'OFF' if 'benchmark' in without else 'ON'}",
    ]  # fmt: skip


def compile_command(folder: Path, jobs: int, without: set[str] = frozenset()) -> list[str]:
    # The models are built with the program that loads them; gpu_curand by itself.
    left_out = {"models", "curand", *(NEEDS[package] for package in without)}
    targets = ["flashnce", *(target for name, target in PROGRAMS.items() if name not in left_out)]
    return ["cmake", "--build", str(folder), "-j", str(jobs), "--target", *targets]


def curand_command(folder: Path) -> list[str]:
    """Compiles a header of another package, which may be missing or of another version: nothing else depends on it."""
    return ["cmake", "--build", str(folder), "--target", PROGRAMS["curand"]]


def not_found(output: str) -> set[str]:
    """The packages of NEEDS that CMake says it did not find."""
    return {name for name in NEEDS if re.search(rf"\b(Find{name}|{name}Config)\.cmake\b", output)}


def architectures_of(device: dict) -> str:
    """What a build for the device is compiled for, named in full: the sm80 family has code for 80 in any case."""
    own = machine.architecture(device)
    return own if int(own) >= 80 else f"{own};80"


def missing_tools() -> list[str]:
    return [name for name in ("cmake", "nvcc", "g++") if shutil.which(name) is None]


def build_stage(context: Context) -> Result:
    """Builds for the architecture of the device, or looks at what was carried."""
    return check_carried(context) if context.carried else build_here(context)


def build_here(context: Context) -> Result:
    missing = missing_tools()
    if missing:
        return Result(SKIPPED, f"there is no {' and no '.join(missing)} here: carry a build (--carried)")
    folder, architecture = folder_of(context), architectures_of(context.device)
    without: set[str] = set()
    done = context.run(*configure(context.root, folder, architecture))
    while done.code != 0 and (more := not_found(done.output) - without):
        without |= more
        done = context.run(*configure(context.root, folder, architecture, without))
    if done.code == 0:
        done = context.run(*compile_command(folder, os.cpu_count() or 1, without))
    result = judged(done, {"built": "here", "architectures": architecture})
    if result.status != PASSED:
        return result
    if without:
        programs = ", ".join(PROGRAMS[NEEDS[package]] for package in sorted(without))
        result.detail = f"without {programs}: {', '.join(sorted(without))} not found here"
    if context.run(*curand_command(folder)).code != 0:
        result.detail += f"{'; ' if result.detail else ''}without gpu_curand: no curand_kernel.h, or none that compiles"
    return result


def covers(architectures: str, device: str) -> bool:
    """Whether code for one of the list runs on the device: of its own major number, or PTX, which the last one and 90
    have."""
    numbers, wanted = [int(found) for found in re.findall(r"\d+", architectures)], int(device)
    code = any(number // 10 == wanted // 10 and number <= wanted for number in numbers)
    return code or numbers[-1] <= wanted or (90 in numbers and wanted >= 90)


def check_carried(context: Context) -> Result:
    path = context.carried / "manifest.json"
    if not path.is_file():
        return Result(FAILED, f"{context.carried.name} has no manifest.json: it is no carried build")
    manifest = json.loads(path.read_text())
    for name, values in manifest["files"].items():
        file = context.carried / name
        if not file.is_file() or hash_of(file) != values["sha256"]:
            return Result(FAILED, f"{name} of the carried build is missing or another file")
        file.chmod(file.stat().st_mode | 0o111)
    if manifest["sources"] != machine.sources_hash(context.root):
        return Result(FAILED, "the carried build is of other sources than this tree: run --prepare again")
    if not covers(manifest["architectures"], machine.architecture(context.device)):
        return Result(FAILED, f"the carried build is for {manifest['architectures']}, not for this device")
    # One that loads the library, and says nothing of a device.
    environment = environment_of(Programs.below(context.carried), context.root)
    done = context.run(context.carried / PROGRAMS["calls"], "--help", env=environment)
    if done.code is None or "usage" not in done.output:
        return Result(FAILED, f"the carried programs do not start here: {done.tail()}")
    data = {"built": "carried", "architectures": manifest["architectures"], "commit": manifest["commit"]}
    return Result(PASSED, "", data)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def newest(library: str, path: Path) -> str:
    """The newest version of a library, GLIBC or GLIBCXX, that a file asks for."""
    names = re.findall(rf"{library}_(\d+(?:\.\d+)+)".encode(), path.read_bytes())
    return ".".join(map(str, max((tuple(map(int, name.split(b"."))) for name in names), default=(0,))))


def libraries_of(file: Path) -> list[tuple[str, Path]]:
    """Of CARRIED_LIBRARIES, those that a program asks for: name and where it is on this machine."""
    found = subprocess.run(["ldd", str(file)], capture_output=True, text=True).stdout
    lines = re.findall(r"^\s*(\S+)\.so(\S*) => (/\S+)", found, re.MULTILINE)
    return [(f"{name}.so{version}", Path(path)) for name, version, path in lines if name in CARRIED_LIBRARIES]


def pack(programs: Programs, target: Path, facts: dict, strip: bool = True) -> dict:
    """Copies the programs and writes the manifest, which it returns."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    sources = {}
    for name, source in vars(programs).items():
        if source is None:
            raise SystemExit(f"verify-gpu: the build has no {PROGRAMS.get(name, LIBRARY)}")
        # Libraries under the names that programs ask for, not under their full versions.
        sources[LIBRARY if name == "library" else source.name] = source
        sources |= libraries_of(source)
    files = {}
    for name, source in sources.items():
        file = target / name
        shutil.copyfile(source, file)
        file.chmod(0o755)
        if strip and shutil.which("strip"):
            subprocess.run(["strip", str(file)], check=True)
        versions = {"glibc": newest("GLIBC", file), "glibcxx": newest("GLIBCXX", file)}
        files[file.name] = {"bytes": file.stat().st_size, "sha256": hash_of(file), **versions}
    copy_pytest(target / "python")
    manifest = {**facts, "files": files}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def copy_pytest(target: Path) -> None:
    """The packages of pytest that this interpreter has."""
    for name in PYTEST:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        origin = Path(found.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, target / origin.name)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prepare(root: Path, architectures: str = CARRIED_ARCHITECTURES, jobs: int | None = None) -> int:
    """Makes build/carry. The exit code."""
    missing = missing_tools()
    if missing:
        raise SystemExit(f"verify-gpu: --prepare needs {', '.join(missing)}")
    folder = root / "build" / "carry-build"
    # Programs use the C++ library of the machine that they run on: the one of this machine, linked into them, would
    # need this machine's glibc.
    for command in (
        configure(root, folder, architectures),
        compile_command(folder, jobs or os.cpu_count() or 1),
        curand_command(folder),
    ):
        if subprocess.run(command, cwd=root).returncode != 0:
            return 1
    facts = {
        "architectures": architectures,
        "sources": machine.sources_hash(root),
        "commit": machine.commit(root),
    }
    manifest = pack(Programs.below(folder), root / "build" / "carry", facts)
    for name, values in manifest["files"].items():
        newest = f"(glibc {values['glibc']}, glibcxx {values['glibcxx']} or newer)"
        print(f"{values['bytes'] / 2**20:8.1f} MiB  {name} {newest}")
    total = size_of(root / "build" / "carry")
    print(f"{total / 2**20:8.1f} MiB  in build/carry")
    if total > LARGEST:
        print(f"verify-gpu: that is more than {LARGEST // 2**20} MiB: fewer architectures (--archs)")
        return 1
    return 0
