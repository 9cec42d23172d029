"""FlashNCE from the command line.

`python -m flashnce info`: which library is loaded, what it can use, and what would run for a given shape. Needs neither
NumPy nor torch. report, watch and explain are in _commands.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import sys
from importlib import metadata

from . import __version__, _commands
from . import _library as c
from ._plan_names import named

# Shown where they are set: they change what the lines above them say.
VARIABLES = (
    "FNCE_CPU_ISA",
    "FNCE_CPU_MAX_ISA",
    "FNCE_BACKEND",
    "FNCE_MULTIPROCESSORS",
    "CUDA_VISIBLE_DEVICES",
    "FLASHNCE_LIBRARY",
)


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device(text: str) -> tuple[str, int]:
    """What --device takes: cpu, cuda or cuda:1."""
    found = re.fullmatch(r"(cpu)|(cuda)(?::(\d{1,9}))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; there are cpu, cuda and cuda:INDEX")
    return found[1] or found[2], int(found[3] or 0)


def cuda_devices() -> list[str]:
    """The name of each CUDA device with what it has, or why no plan can be made for it."""
    lines = []
    for index in range(c.device_count(c.CUDA)):
        problem = c.new_problem()
        problem.n = problem.k = problem.d = 1
        problem.device, problem.device_index = c.CUDA, index
        try:
            _, info = plan_of(problem)
        except (RuntimeError, ValueError) as error:
            lines.append(str(error))
        else:
            name, capability = info.device_name.decode(errors="replace"), info.compute_capability
            sms = f"{info.multiprocessors} SM" + "s" * (info.multiprocessors != 1)
            lines.append(f"{name}, compute capability {capability // 10}.{capability % 10}, {sms}")
    return lines


def cuda_reason() -> str | None:
    """Why there is no GPU to be used; None where there is one."""
    if c.device_count(c.CUDA):
        return None
    problem = c.new_problem()
    problem.n = problem.k = problem.d = 1
    problem.device = c.CUDA
    try:
        plan_of(problem)
    except (RuntimeError, ValueError) as error:
        sentence = str(error)
    else:
        # It has come meanwhile.
        return None
    found = re.search(r"(built without|usable CUDA devices)(?:: (.*?))?(?:; allowed: FNCE_CPU \(1\))?$", sentence, re.S)
    if found is None:
        return sentence
    what = "not part of this build" if found[1] == "built without" else "no device"
    return f"{what}: {found[2]}" if found[2] else what


def library_info() -> dict:
    return {
        "version": __version__,
        "library": str(c.PATH),
        "build": c.LIBRARY.fnce_build_info().decode(),
        "devices": {name: c.device_count(code) for name, code in c.DEVICES.items()},
        "cuda_devices": cuda_devices(),
        "cuda_reason": cuda_reason(),
        "threads": c.LIBRARY.fnce_get_threads(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "torch": _installed("torch"),
        "numpy": _installed("numpy"),
    }


# What the fields of a problem are called on the command line, for the library's sentences.
NAMES = {
    "problem.n": "N",
    "problem.k": "K",
    "problem.d": "D",
    "problem.device": "--device",
    "problem.device_index": "the index of --device",
    "problem.threads": "--threads",
}


def plan_of(problem: c.Problem) -> tuple[str, c.PlanInfo]:
    """What would run, in words and in numbers."""
    plan = ctypes.c_void_p()
    c.check(c.LIBRARY.fnce_plan_create(problem, ctypes.byref(plan)), NAMES)
    try:
        return c.LIBRARY.fnce_plan_describe(plan).decode(), c.plan_info(plan)
    finally:
        c.LIBRARY.fnce_plan_destroy(plan)


def defect() -> str | None:
    """Why no plan at all can be made, such as a wrong FNCE_CPU_ISA; None if one can."""
    problem = c.new_problem()
    problem.n = problem.k = problem.d = 1
    try:
        plan_of(problem)
    except (MemoryError, RuntimeError, ValueError) as error:
        return str(error)
    return None


def plan_info(options: argparse.Namespace, on: tuple[str, int]) -> dict:
    """What fnce_loss would do for the shape on a device: the preset, the fields of fnce_plan_info, and those in words.

    Raises:
        ValueError: the library refuses the problem; the sentence is the library's.
    """
    n, k, d = options.shape
    problem = c.new_problem(options.preset)
    problem.n, problem.k, problem.d = n, k, d
    kind, problem.device_index = on
    problem.device = c.DEVICES[kind]
    problem.feature_type, problem.queue_type = c.TYPES[options.feature_type], c.TYPES[options.queue_type]
    problem.gradient_type = c.TYPES[options.gradient_type]
    problem.threads = options.threads
    runs, info = plan_of(problem)
    return {"preset": options.preset, **named(info), "runs": runs}


def plans_info(options: argparse.Namespace) -> dict:
    """The plan of the device that was asked for, else that of the CPU and, where there is a GPU, of the first one.

    Raises:
        ValueError: as plan_info, of the first of them.
    """
    plans = {"plan": plan_info(options, options.device or ("cpu", 0))}
    if options.device is None and c.device_count(c.CUDA):
        try:
            plans["cuda_plan"] = plan_info(options, ("cuda", 0))
        except (RuntimeError, ValueError) as error:
            plans["cuda_plan"] = {"error": str(error)}
    return plans


def size_in_words(size: int) -> str:
    return f"{size} bytes ({size / 2**20:.1f} MiB)"


def cuda_lines(information: dict) -> dict[str, str]:
    if information["cuda_devices"]:
        return {f"cuda {index}": line for index, line in enumerate(information["cuda_devices"])}
    return {"cuda": information["cuda_reason"]}


def as_text(information: dict) -> str:
    lines = {
        "flashnce": information["version"],
        "library": information["library"],
        "build": information["build"],
        "devices": ", ".join(f"{name} {count}" for name, count in information["devices"].items()),
        **cuda_lines(information),
        "threads": information["threads"],
        **information["environment"],
        "torch": information["torch"] or "not installed",
        "numpy": information["numpy"] or "not installed",
    }
    if plan := information.get("plan"):
        lines["shape"] = f"{plan['n']} queries x {plan['k']} negatives x {plan['d']} features, preset {plan['preset']}"
        lines["runs"] = plan["runs"]
        lines["workspace"] = size_in_words(plan["workspace_bytes"])
    if plan := information.get("cuda_plan"):
        lines["runs on cuda"] = plan["runs"] if "runs" in plan else f"nothing: {plan['error']}"
        if "runs" in plan:
            lines["its workspace"] = size_in_words(plan["workspace_bytes"])
    if "error" in information:
        lines["error"] = information["error"]
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m flashnce", description="FlashNCE from the command line.")
    commands = root.add_subparsers(dest="command", required=True)
    info = commands.add_parser(
        "info",
        help="the library, its devices, and what would run",
        description="Prints the versions, the library that is loaded, its backends with the CPU's instruction set, the "
        "devices and threads; with a shape, what would run for it, and its workspace.",
    )
    info.add_argument("shape", nargs="*", type=int, metavar="N K D", help="queries, negatives, features")
    info.add_argument("--preset", choices=c.PRESET, default="ft")
    info.add_argument(
        "--device", type=device, help="cpu, cuda or cuda:INDEX; default: the CPU and, where there is one, the first GPU"
    )
    info.add_argument("--feature-type", choices=c.TYPES, default="float32", help="of the queries and keys")
    info.add_argument("--queue-type", choices=c.TYPES, default="float32")
    info.add_argument("--gradient-type", choices=c.TYPES, default="float32")
    info.add_argument("--threads", type=int, default=0, help="of a call; default: those of the library")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=show_info, error=info.error)
    _commands.add(commands)
    return root


def show_info(options: argparse.Namespace) -> None:
    if len(options.shape) not in (0, 3):
        options.error(f"a shape is three numbers, N K D, not {len(options.shape)}")
    information = library_info()
    if options.shape:
        try:
            information |= plans_info(options)
        except (RuntimeError, ValueError) as error:
            options.error(str(error))
    elif sentence := defect():
        information["error"] = sentence
    print(json.dumps(information, indent=2) if options.json else as_text(information))
    if "error" in information:
        sys.exit(1)


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
