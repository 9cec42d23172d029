"""The package tells a type checker what it takes and gives: py.typed, and a user's program under mypy --strict."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import flashnce
from flashnce.torch import _loss, info_nce

HERE = Path(__file__).resolve().parent


def test_the_package_says_that_it_is_typed():
    assert (Path(flashnce.__file__).parent / "py.typed").is_file()


def test_options_are_the_keyword_arguments_of_the_loss():
    signature = inspect.signature(info_nce).parameters
    keywords = [name for name, x in signature.items() if x.kind is inspect.Parameter.KEYWORD_ONLY]
    assert [*_loss.Options.__annotations__, "return_scores"] == keywords
    for name, annotation in _loss.Options.__annotations__.items():
        assert getattr(annotation, "__forward_arg__", annotation) == signature[name].annotation


def mypy(program: Path, folder: Path) -> str:
    package = str(Path(flashnce.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder), str(program)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.full
def test_a_users_program_passes_and_its_mistakes_do_not(tmp_path):
    pytest.importorskip("mypy")
    assert mypy(HERE / "typed_user.py", tmp_path).startswith("Success")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import torch\n"
        "from flashnce.torch import Queue, info_nce\n"
        "x = torch.ones(2, 2)\n"
        "info_nce(x, x, x, temprature=0.1)\n"
        "info_nce(x, x, x, reduction=1)\n"
        "loss: int = info_nce(x, x, x)\n"
        "Queue('8', 2)\n"
    )
    found = mypy(wrong, tmp_path)
    for line in (4, 5, 6, 7):
        assert f"wrong.py:{line}: error:" in found, found
