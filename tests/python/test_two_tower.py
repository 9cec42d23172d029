"""examples/two_tower_retrieval on a few modules: it learns, and its pieces are what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from support import cpu_only

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "two_tower_retrieval" / "train.py"
pytestmark = cpu_only


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(PROGRAM))


def test_recall_of_held_out_sentences_grows(example, capsys):
    found = example["main"](["--modules", "30", "--epochs", "5", "--batch", "64"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("30 modules, ")
    assert [line.split("  ")[0] for line in lines[1:]] == list(found)
    for name in ("trained", "trained with logQ"):
        for before, after in zip(found["untrained"], found[name]):
            assert after > before + 0.1 and after <= 1
    assert found["trained"] != found["trained with logQ"]


def test_recall_counts_modules_above_the_own_one(example):
    class Fixed(torch.nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.rows = torch.tensor(rows)

        def forward(self, texts):
            return self.rows[[text[0] for text in texts]]

    query, item = Fixed([[1.0, 0.1]]), Fixed([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    pairs = [([0], 2), ([0], 1), ([0], 0)]
    assert example["recall"](query, item, [[0], [1], [2]], pairs, (1, 2, 3)) == pytest.approx([1 / 3, 2 / 3, 1])


def test_documented_skips_what_it_cannot_read(example, tmp_path):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    functions = 'def f():\n    """Does this and that. And more."""\n\ndef g():\n    """Short."""\n'
    good.write_text(f'"""A module."""\n\n{functions}')
    bad.write_text("def f(:\n")
    assert example["documented"](good) == ("A module.", ["Does this and that"])
    assert example["documented"](bad) == ("", [])
