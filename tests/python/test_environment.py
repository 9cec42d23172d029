"""What the environment may say to the library."""

from __future__ import annotations

import os
import subprocess
import sys

LOSS = """
import numpy, flashnce
q = numpy.eye(4, 8, dtype=numpy.float32)
print(float(flashnce.info_nce(q, q, q).loss))
"""


def run(**environment):
    return subprocess.run([sys.executable, "-c", LOSS], env=os.environ | environment, capture_output=True, text=True)


def test_an_instruction_set_that_is_none_is_refused_by_name():
    wrong = run(FNCE_CPU_ISA="avx1024")
    assert wrong.returncode != 0
    assert "ValueError: FNCE_CPU_ISA in the environment is avx1024; allowed: baseline, avx2, avx512" in wrong.stderr


def test_an_instruction_set_can_be_forced():
    forced = run(FNCE_CPU_ISA="baseline")
    assert forced.returncode == 0, forced.stderr
    assert abs(float(forced.stdout) - float(run().stdout)) < 1e-5
