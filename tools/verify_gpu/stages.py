"""The stages, in order. The first ones prove, the last ones measure.

What a tool refused is a result of its own: on some machines nobody may run compute-sanitizer or a profiler.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from . import build
from .benches import BENCH_STAGES
from .runner import FAILED, PASSED, REFUSED, SKIPPED, TIMEOUT, Context, Done, Result, Stage, judged

REPEATS = 100
SOAK_STEPS, SOAK_SECONDS = 100_000, 150
# The tests of the C interface by the beginning of their names, a process each: after an illegal address nothing of a
# process works any more.
API_GROUPS = ("cuda:", "types:", "scores:", "errors:")
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
SANITIZER_ERROR = 9
# compute-sanitizer says one of these where the machine does not let it work.
REFUSALS = re.compile(
    r"(?i)(insufficient privileges|permission denied|not permitted|device not supported|is not supported|"
    r"failed to (attach|initialize)|unable to (attach|launch)|debugger.*(not|fail)|no attachable process)"
)


def without(name: str) -> Result:
    return Result(SKIPPED, f"there is no {name}: it was not built")


def read_report(path: Path) -> dict:
    """The JSON file of gpu_conformance and gpu_calls: counts, what did not pass, numbers."""
    if not path.is_file():
        return {}
    report = json.loads(path.read_text())
    counts: dict[str, int] = {}
    for check in report["checks"]:
        counts[check["status"]] = counts.get(check["status"], 0) + 1
    wrong = [check for check in report["checks"] if check["status"] == "FAIL"]
    return {"counts": counts, "failed": wrong, "numbers": report["numbers"]}


def reporting(context: Context, program: Path | None, name: str, *arguments: str) -> Result:
    """A program that writes such a report."""
    if program is None:
        return without(name)
    path = context.out / f"{context.log.stem}.json"
    path.unlink(missing_ok=True)
    done = context.run(program, *arguments, "--json", path)
    result = judged(done, read_report(path))
    if result.status == PASSED and not result.data.get("counts", {}).get("PASS"):
        return Result(FAILED, "it ended well and checked nothing", result.data)
    return result


def conformance(context: Context) -> Result:
    return reporting(context, build.programs_of(context).conformance, "gpu_conformance")


def curand(context: Context) -> Result:
    program = build.programs_of(context).curand
    return judged(context.run(program)) if program else without("gpu_curand (it needs cuRAND's curand_kernel.h)")


def junit_counts(path: Path) -> dict:
    """Tests, failures and skips of a JUnit file, the names of what failed, and what the first one says. Empty of a file
    that was not finished."""
    if not path.is_file():
        return {}
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except ElementTree.ParseError:
        return {}
    wrong = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    found = {
        "tests": len(cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
        "failed": [case.get("name") for case in wrong[:50]],
    }
    if wrong:
        child = next(child for child in wrong[0] if child.tag in ("failure", "error"))
        words = f"{child.get('message') or ''} {child.text or ''}".split()
        found["first"] = f"{wrong[0].get('name')}: {' '.join(words)}"[:600]
    return found


def api(context: Context, tests: str = "", cases: int = 1000, seed: int = 1, part: str = "") -> Result:
    """api_tests, those that a pattern of Catch2 names; `part` of a stage has a report of its own."""
    program = build.programs_of(context).api
    if program is None:
        return without("api_tests")
    path = context.out / f"{context.log.stem}{part}.xml"
    path.unlink(missing_ok=True)
    environment = {"FNCE_TEST_DEVICE": "cuda", "FNCE_TEST_CASES": str(cases), "FNCE_TEST_SEED": str(seed)}
    done = context.run(program, "-r", "junit", "-o", path, *filter(None, [tests]), env=environment)
    result = judged(done)
    result.data = {**junit_counts(path), "cases": cases, "seed": seed}
    if result.status == FAILED and "first" in result.data:
        result.detail = result.data["first"]
    if result.status == PASSED and not result.data.get("tests"):
        return Result(SKIPPED, f"api_tests has no tests {tests}".strip(), result.data)
    return result


def merged(results: list[Result]) -> Result:
    """One result of several processes: the worst of them, the first of those."""
    worst = min(results, key=lambda result: (FAILED, TIMEOUT, REFUSED, SKIPPED, PASSED).index(result.status))
    data = {key: sum(result.data.get(key, 0) for result in results) for key in ("tests", "skipped")}
    data["failed"] = [name for result in results for name in result.data.get("failed", [])][:50]
    return Result(worst.status, worst.detail, {**worst.data, **data})


def whole_api(context: Context) -> Result:
    rest = "".join(f'~"{group}*"' for group in API_GROUPS)
    parts = {"rest": rest, **{group.rstrip(":"): f"{group}*" for group in API_GROUPS}}
    return merged([api(context, tests, part=f"-{part}") for part, tests in parts.items()])


def agreement(context: Context) -> Result:
    """The tests that compare this backend with the CPU's on the same draws."""
    return api(context, "cuda: both backends*")


def api_long(context: Context) -> Result:
    return api(context, "*randomised grid*", cases=10000, seed=200001)


def calls(mode: str, *arguments: str):
    def run(context: Context) -> Result:
        return reporting(context, build.programs_of(context).calls, "gpu_calls", mode, *arguments)

    return run


def sanitizer_program() -> str | None:
    found = shutil.which("compute-sanitizer")
    nvcc = shutil.which("nvcc")
    beside = Path(nvcc).resolve().parents[1] / "bin" / "compute-sanitizer" if nvcc else None
    return found or (str(beside) if beside and beside.is_file() else None)


def sanitized(done: Done) -> Result:
    """What a run under compute-sanitizer means."""
    summary = re.findall(r"=+ ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", done.output)
    errors = sum(int(number) for pair in summary for number in pair if number)
    data = {"errors": errors if summary else None}
    if done.code == 0 and summary and errors == 0:
        return Result(PASSED, "", data)
    refusal = REFUSALS.search(done.output)
    if done.code not in (None, 0) and errors == 0 and refusal:
        line = next(line for line in done.output.splitlines() if REFUSALS.search(line))
        return Result(REFUSED, f"compute-sanitizer: {line.strip(' =')[:200]}", data)
    if done.code == 0:
        return Result(FAILED, f"compute-sanitizer gave no clean summary: {done.tail()}", data)
    return judged(done, data)


def sanitizer(tool: str):
    def run(context: Context) -> Result:
        program, sanitize = build.programs_of(context).calls, sanitizer_program()
        if program is None:
            return without("gpu_calls")
        if sanitize is None:
            return Result(REFUSED, "compute-sanitizer is not installed here")
        return sanitized(
            context.run(sanitize, "--tool", tool, "--error-exitcode", str(SANITIZER_ERROR), program, "small")
        )

    return run


# The tests of tests/python that take the device of support.py.
BINDING_TESTS = ("loss", "autograd", "compile", "module", "queue", "raw_scores", "scores", "seed", "types")


def pytest_on_device(context: Context, *paths: str) -> Result:
    probe = "import pytest, torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    if context.run(sys.executable, "-c", probe).code != 0:
        return Result(SKIPPED, "there is no PyTorch with CUDA and pytest here")
    report = context.out / f"{context.log.stem}.xml"
    report.unlink(missing_ok=True)
    done = context.run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", report, *paths,
        # Plugins that happen to be there are made for another pytest than the carried one.
        env={"FNCE_TEST_TORCH_DEVICE": "cuda", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    result = judged(done, junit_counts(report))
    if result.status == FAILED and "first" in result.data:
        result.detail = result.data["first"]
    return result


def torch_device(context: Context) -> Result:
    """The tests of the PyTorch binding that are made for a device."""
    return pytest_on_device(context, "tests/gpu/torch")


def torch_suite(context: Context) -> Result:
    """The tests of the PyTorch binding at large, on CUDA tensors."""
    if "FNCE_TEST_TORCH_DEVICE" not in (context.root / "tests" / "python" / "conftest.py").read_text():
        return Result(SKIPPED, "the tests of tests/python are on the CPU only")
    return pytest_on_device(context, *(f"tests/python/test_{name}.py" for name in BINDING_TESTS))


def sanitizer_stage(tool: str) -> Stage:
    what = f"compute-sanitizer's {tool} on small shapes"
    return Stage(f"sanitizer-{tool}", what, sanitizer(tool), required=False, limit=150, least=40)


# What proves and is quick comes first, so that a short loan of a machine is used well.
STAGES = [
    Stage("build", "the library and the programs for this device", build.build_stage, least=20, gate=True),
    Stage("conformance", "instructions, conversions and draws against their host models", conformance,
          limit=90, least=15),
    Stage("curand", "Philox words against cuRAND's", curand, limit=60, least=10),
    Stage("determinism", f"{REPEATS} repeats, the same bits", calls("determinism", "--repeats", str(REPEATS)),
          limit=90, least=15),
    Stage("graphs", "captured once, replayed with other seeds and temperatures", calls("graphs"), limit=60, least=10),
    Stage("streams", "two streams at once", calls("streams"), limit=60, least=10),
    Stage("api", "the tests of the C interface on the device, against the oracle", whole_api, limit=300, least=90),
    Stage("agreement", "the device against the CPU backend", agreement, limit=120, least=15),
    Stage(
        "soak", f"{SOAK_STEPS} steps with memory watched",
        calls("soak", "--steps", str(SOAK_STEPS), "--seconds", str(SOAK_SECONDS)), limit=180, least=20,
    ),
    *map(sanitizer_stage, SANITIZERS[:2]),
    Stage("torch", "the PyTorch binding on the device", torch_device, required=False, limit=150, least=40),
    *BENCH_STAGES,
    *map(sanitizer_stage, SANITIZERS[2:]),
    Stage("torch-suite", "the tests of the binding on CUDA tensors", torch_suite, required=False, least=180),
    Stage("api-long", "the random grid with ten times the cases", api_long, required=False, least=240),
]  # fmt: skip


def named(names: list[str]) -> list[Stage]:
    """Stages by name; a name that ends in * stands for all that start so."""
    chosen = []
    for name in names:
        found = [s for s in STAGES if s.name == name or (name.endswith("*") and s.name.startswith(name[:-1]))]
        if not found:
            raise ValueError(f"no stage {name!r}; there are {', '.join(stage.name for stage in STAGES)}")
        chosen += found
    return [stage for stage in STAGES if stage in chosen]
