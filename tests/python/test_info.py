"""`python -m flashnce info` as a program of its own, without NumPy and torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from support import instruction_sets
from torch_device import hostcuda_library

import flashnce
from flashnce import __main__
from flashnce import _library as c
from flashnce._options import PLAN_FIELDS, Plan
from flashnce._plan_names import name_of, named

HOSTCUDA, NO_HOSTCUDA = hostcuda_library()
NO_GPU = pytest.mark.skipif(c.device_count(c.CUDA) > 0, reason="this machine has a GPU that the library can use")

# In this program an import of NumPy or torch fails.
WITHOUT_PACKAGES = """
import runpy, sys
sys.modules.update(numpy=None, torch=None)
runpy.run_module("flashnce", run_name="__main__", alter_sys=True)
"""


def info(*arguments, **environment):
    return subprocess.run([sys.executable, "-c", WITHOUT_PACKAGES, "info", *map(str, arguments)],
                          env=os.environ | environment, capture_output=True, text=True, timeout=120)  # fmt: skip


def info_json(*arguments, **environment) -> dict:
    result = info(*arguments, "--json", **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_library_in_words():
    result = info()
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["flashnce"] == flashnce.__version__
    assert lines["library"] == str(c.PATH)
    assert lines["build"] == c.LIBRARY.fnce_build_info().decode()
    assert lines["devices"] == f"cpu 1, cuda {c.device_count(c.CUDA)}"
    assert int(lines["threads"]) >= 1
    assert "runs" not in lines and "workspace" not in lines
    if not c.device_count(c.CUDA):
        assert re.match("(not part of this build|no device): .", lines["cuda"])


def test_a_shape_runs_what_the_library_says():
    found = info_json(24, 80, 12, "--preset", "moco", "--threads", 2)
    assert found["version"] == flashnce.__version__
    plan = found["plan"]
    assert (plan["n"], plan["k"], plan["d"], plan["preset"], plan["threads"]) == (24, 80, 12, "moco", 2)
    assert (plan["device"], plan["family"], plan["better_family"], plan["mixing"]) == ("cpu", "cpu", None, "none")
    problem = c.new_problem("moco")
    problem.n, problem.k, problem.d, problem.threads = 24, 80, 12, 2
    same = Plan(tuple(getattr(problem, field) for field in PLAN_FIELDS))
    assert plan == {"preset": "moco", **named(same.info()), "runs": same.describe()}
    assert plan["workspace_bytes"] == same.workspace_bytes
    lines = info(24, 80, 12, "--preset", "moco", "--threads", 2).stdout
    assert same.describe() in lines and f"  {same.workspace_bytes} bytes (" in lines


def test_the_preset_changes_what_runs():
    moco, ft = info_json(24, 80, 12, "--preset", "moco")["plan"], info_json(24, 80, 12)["plan"]
    assert (moco["mixing"], ft["mixing"]) == ("none", "scores") and moco["runs"] != ft["runs"]


@pytest.mark.parametrize("option", ["--feature-type", "--queue-type", "--gradient-type"])
def test_types_reach_the_library(option):
    assert info_json(8, 16, 4, option, "bfloat16")["plan"][option[2:].replace("-", "_")] == "bfloat16"


@pytest.mark.parametrize("name", instruction_sets())
def test_an_instruction_set_that_is_forced_is_shown(name):
    found = info_json(8, 16, 4, FNCE_CPU_ISA=name)
    assert found["environment"]["FNCE_CPU_ISA"] == name
    assert f"cpu ({name} of" in found["build"] and found["plan"]["cpu_isa"] == name
    assert found["plan"]["family_reason"] == "forced"


def test_codes_have_names():
    assert [name_of(code, c.FAMILY) for code in (80, 81, 0)] == ["sm80", 81, None]
    assert name_of(0, c.MIXING) == "none"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((256, 65536), "a shape is three numbers, N K D, not 2"),
        ((0, 16, 4), "N is 0; allowed: 1 .. 2147483647"),
        pytest.param((8, 16, 4, "--device", "cuda"), "--device is", marks=NO_GPU),
        ((8, 16, 4, "--threads", 5000), "--threads is 5000"),
        ((8, 16, 4, "--device", "gpu"), "'gpu' is no device; there are cpu, cuda and cuda:INDEX"),
        ((8, 16, "many"), "argument N K D: invalid int value: 'many'"),
        ((8, 16, 4, "--queue-type", "int8"), "invalid choice: 'int8'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments, sentence):
    result = info(*arguments)
    assert result.returncode == 2 and sentence in result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""


def test_a_wrong_instruction_set_is_named():
    sentence = "FNCE_CPU_ISA in the environment is avx1024"
    with_shape, without = info(8, 16, 4, FNCE_CPU_ISA="avx1024"), info(FNCE_CPU_ISA="avx1024")
    assert with_shape.returncode == 2 and sentence in with_shape.stderr
    lines = dict(line.split(maxsplit=1) for line in without.stdout.splitlines())
    assert without.returncode == 1 and lines["error"].startswith(sentence)


@pytest.mark.skipif(HOSTCUDA is None, reason=NO_HOSTCUDA)
def test_cuda_devices_and_what_would_run_on_them():
    """On a library whose CUDA devices are the CPU's work."""
    with_two = {"FLASHNCE_LIBRARY": str(HOSTCUDA)}
    found = info_json(24, 80, 128, **with_two)
    assert found["devices"] == {"cpu": 1, "cuda": 2} and len(found["cuda_devices"]) == 2
    assert found["plan"]["device"] == "cpu" and found["plan"]["family"] == "cpu"
    plan = found["cuda_plan"]
    assert plan["device"] == "cuda" and plan["family"] == "sm80" and plan["products"] == "float16x3"
    assert plan["workspace_bytes"] > 0 and found["cuda_devices"][0].startswith(plan["device_name"] + ", compute ")
    text = info(24, 80, 128, **with_two).stdout
    lines = dict(re.split("  +", line, maxsplit=1) for line in text.splitlines())
    assert lines["cuda 1"] == found["cuda_devices"][1] and "compute capability" in lines["cuda 1"]
    assert lines["runs on cuda"] == found["cuda_plan"]["runs"]
    second = info_json(24, 80, 128, "--device", "cuda:1", **with_two)
    assert second["plan"]["device_index"] == 1 and "cuda_plan" not in second
    third = info(24, 80, 128, "--device", "cuda:2", **with_two)
    assert third.returncode == 2 and "the index of --device is 2; this machine has 2" in third.stderr


@pytest.mark.skipif(HOSTCUDA is None, reason=NO_HOSTCUDA)
def test_a_gpu_that_cannot_serve_hides_nothing_of_the_rest():
    found = info_json(24, 80, 128, FLASHNCE_LIBRARY=str(HOSTCUDA), FNCE_BACKEND="neither")
    sentence = "FNCE_BACKEND in the environment is neither"
    assert found["cuda_plan"]["error"].startswith(sentence) and found["cuda_devices"][0].startswith(sentence)
    assert found["environment"]["FNCE_BACKEND"] == "neither" and found["plan"]["device"] == "cpu"


# What a driver can say, beside no device at all.
STATES = [
    ({"FNCE_HOSTCUDA_STATUS": "35", "FNCE_HOSTCUDA_DRIVER": "0"}, "NVIDIA's driver is not installed"),
    ({"FNCE_HOSTCUDA_STATUS": "35", "FNCE_HOSTCUDA_DRIVER": "11040"}, "too old: it serves CUDA 11.4, and this library"),
    ({"FNCE_HOSTCUDA_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES is '7', which names no device"),
]


@pytest.mark.skipif(HOSTCUDA is None, reason=NO_HOSTCUDA)
@pytest.mark.parametrize(("environment", "words"), STATES)
def test_the_reason_for_no_gpu(environment, words):
    with_library = {"FLASHNCE_LIBRARY": str(HOSTCUDA), **environment}
    found = info(**with_library)
    assert found.returncode == 0 and re.search(f"^cuda +no device: .*{re.escape(words)}", found.stdout, re.M)
    asked = info(8, 16, 4, "--device", "cuda", **with_library)
    assert asked.returncode == 2 and words in asked.stderr
    assert words in info_json(**with_library)["cuda_reason"]


def test_a_device_that_comes_meanwhile_is_no_reason(monkeypatch):
    monkeypatch.setattr(c, "device_count", lambda kind: 0)
    monkeypatch.setattr(__main__, "plan_of", lambda problem: None)
    assert __main__.cuda_reason() is None


def test_a_build_without_cuda_says_why():
    if "cuda (" in c.LIBRARY.fnce_build_info().decode():
        pytest.skip("this build has the CUDA backend")
    assert re.match("not part of this build: .", info_json()["cuda_reason"])
    asked = info(8, 16, 4, "--device", "cuda")
    assert re.search(r"which this library was built without: .+; allowed: FNCE_CPU \(1\)", asked.stderr)
