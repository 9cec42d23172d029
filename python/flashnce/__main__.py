"""`python -m flashnce info`: which library is loaded, what it can use, and what would run for a given shape.

Needs neither NumPy nor torch.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from importlib import metadata

from . import __version__
from . import _library as c

TYPES = {"float32": c.FLOAT32, "float16": c.FLOAT16, "bfloat16": c.BFLOAT16}
DEVICES = {"cpu": c.CPU, "cuda": c.CUDA}
# Shown where they are set: they change what the lines above them say.
VARIABLES = ("FNCE_CPU_ISA", "FLASHNCE_LIBRARY")


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def library_info() -> dict:
    return {
        "version": __version__,
        "library": str(c.PATH),
        "build": c.LIBRARY.fnce_build_info().decode(),
        "devices": {name: c.device_count(device) for name, device in DEVICES.items()},
        "threads": c.LIBRARY.fnce_get_threads(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "torch": _installed("torch"),
        "numpy": _installed("numpy"),
    }


def defect() -> str | None:
    """Why no plan at all can be made, such as a wrong FNCE_CPU_ISA; None if one can."""
    problem, plan = c.new_problem(), ctypes.c_void_p()
    problem.n = problem.k = problem.d = 1
    if status := c.LIBRARY.fnce_plan_create(problem, ctypes.byref(plan)):
        return str(c.error(status))
    c.LIBRARY.fnce_plan_destroy(plan)
    return None


def plan_info(options: argparse.Namespace) -> dict:
    """What fnce_loss would do for the shape, and the memory that it asks for.

    Raises:
        ValueError: the library refuses the problem; the sentence is the library's.
    """
    n, k, d = options.shape
    problem = c.new_problem(options.preset)
    problem.n, problem.k, problem.d = n, k, d
    problem.device = DEVICES[options.device]
    problem.feature_type, problem.queue_type = TYPES[options.feature_type], TYPES[options.queue_type]
    problem.gradient_type = TYPES[options.gradient_type]
    problem.threads = options.threads
    plan, size = ctypes.c_void_p(), ctypes.c_size_t()
    c.check(c.LIBRARY.fnce_plan_create(problem, ctypes.byref(plan)))
    try:
        c.check(c.LIBRARY.fnce_plan_workspace(plan, ctypes.byref(size)))
        runs = c.LIBRARY.fnce_plan_describe(plan).decode()
    finally:
        c.LIBRARY.fnce_plan_destroy(plan)
    return {
        "n": n, "k": k, "d": d, "preset": options.preset, "device": options.device,
        "feature_type": options.feature_type, "queue_type": options.queue_type, "gradient_type": options.gradient_type,
        "runs": runs, "workspace_bytes": size.value,
    }  # fmt: skip


def as_text(information: dict) -> str:
    lines = {
        "flashnce": information["version"],
        "library": information["library"],
        "build": information["build"],
        "devices": ", ".join(f"{name} {count}" for name, count in information["devices"].items()),
        "threads": information["threads"],
        **information["environment"],
        "torch": information["torch"] or "not installed",
        "numpy": information["numpy"] or "not installed",
    }
    if plan := information.get("plan"):
        lines["shape"] = f"{plan['n']} queries x {plan['k']} negatives x {plan['d']} features, preset {plan['preset']}"
        lines["runs"] = plan["runs"]
        lines["workspace"] = f"{plan['workspace_bytes']} bytes ({plan['workspace_bytes'] / 2**20:.1f} MiB)"
    if "error" in information:
        lines["error"] = information["error"]
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m flashnce", description="FlashNCE from the command line.")
    info = root.add_subparsers(dest="command", required=True).add_parser(
        "info",
        help="the library, its devices, and what would run",
        description="Prints the versions, the library that is loaded, its backends with the CPU's instruction set, the "
        "devices and threads; with a shape, what would run for it, and its workspace.",
    )
    info.add_argument("shape", nargs="*", type=int, metavar="N K D", help="queries, negatives, features")
    info.add_argument("--preset", choices=c.PRESET, default="ft")
    info.add_argument("--device", choices=DEVICES, default="cpu")
    info.add_argument("--feature-type", choices=TYPES, default="float32", help="of the queries and keys")
    info.add_argument("--queue-type", choices=TYPES, default="float32")
    info.add_argument("--gradient-type", choices=TYPES, default="float32")
    info.add_argument("--threads", type=int, default=0, help="of a call; default: those of the library")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(error=info.error)
    return root


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if len(options.shape) not in (0, 3):
        options.error(f"a shape is three numbers, N K D, not {len(options.shape)}")
    information = library_info()
    if options.shape:
        try:
            information["plan"] = plan_info(options)
        except ValueError as error:
            options.error(str(error))
    elif sentence := defect():
        information["error"] = sentence
    print(json.dumps(information, indent=2) if options.json else as_text(information))
    if "error" in information:
        sys.exit(1)


if __name__ == "__main__":
    main()
