"""What the environment may say to the library."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from support import bound, instruction_sets

from flashnce import _library
from flashnce.torch import InfoNCE, Queue

LOSS = """
import numpy, flashnce
q = numpy.eye(4, 8, dtype=numpy.float32)
print(float(flashnce.info_nce(q, q, q).loss))
"""


BUILD_INFO = "from flashnce import _library; print(_library.LIBRARY.fnce_build_info().decode())"


def run(program=LOSS, **environment):
    return subprocess.run([sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True)


def test_an_instruction_set_that_is_none_is_refused_by_name():
    wrong = run(FNCE_CPU_ISA="avx1024")
    assert wrong.returncode != 0
    usable = ", ".join(instruction_sets())
    sentence = f"ValueError: FNCE_CPU_ISA in the environment is avx1024; allowed: {usable} on this processor"
    assert sentence in wrong.stderr


@pytest.mark.parametrize("name", instruction_sets())
def test_an_instruction_set_can_be_forced(name):
    forced = run(FNCE_CPU_ISA=name)
    assert forced.returncode == 0, forced.stderr
    assert abs(float(forced.stdout) - float(run().stdout)) < bound(0.07) * float(forced.stdout)


def built_instruction_sets() -> list[str]:
    """Those that the library is built for, worst first: the names that a lid may have."""
    refused = run(FNCE_CPU_MAX_ISA="avx1024")
    found = re.search("ValueError: FNCE_CPU_MAX_ISA in the environment is avx1024; allowed: (.*)", refused.stderr)
    assert refused.returncode != 0 and found, refused.stderr
    return found[1].split(", ")


def test_under_a_lid_the_processor_has_nothing_beyond_it(monkeypatch):
    monkeypatch.delenv("FNCE_CPU_ISA", raising=False)
    built = built_instruction_sets()

    def listed(lid: str) -> tuple[str, list[str]]:
        shown = run(BUILD_INFO, FNCE_CPU_MAX_ISA=lid)
        assert shown.returncode == 0, shown.stderr
        chosen, names = re.search(r"cpu \((\w+) of ([\w, ]+)\)", shown.stdout).groups()
        return chosen, names.split(", ")

    _, usable = listed(built[-1])
    for lid in built:
        left = [name for name in built[: built.index(lid) + 1] if name in usable]
        assert listed(lid) == (left[-1], left)
        for name in usable:
            forced = run(FNCE_CPU_MAX_ISA=lid, FNCE_CPU_ISA=name)
            sentence = f"FNCE_CPU_ISA in the environment is {name}; allowed: {', '.join(left)} on this processor"
            assert (forced.returncode == 0) == (name in left)
            assert (sentence in forced.stderr) == (name not in left)


def test_calls_without_a_plan_follow_the_threads_of_torch():
    before = torch.get_num_threads()
    # Gradients of 16 bits are scaled by the library, float32 ones by PyTorch.
    queue, q = Queue(8, 4), torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            queue.push(torch.randn(3, 4))
            assert _library.LIBRARY.fnce_get_threads() == threads
        torch.set_num_threads(1)
        InfoNCE()(q, q.detach(), queue).backward()
        assert _library.LIBRARY.fnce_get_threads() == 1
    finally:
        torch.set_num_threads(before)
