"""examples/trainers: what is changed in each trainer, and that it trains as before."""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from other_trainers import TRAINERS, example, module_of, peer
from support import cpu_only

from flashnce.torch import Queue

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "trainers.md"
NAMES = sorted(path.parent.name for path in TRAINERS.glob("*/before.py"))
PACKAGES = {
    "info_nce_pytorch": "info_nce",
    "lightly": "lightly.loss",
    "lightly_simclr": "lightly.loss",
    "pytorch_metric_learning": "pytorch_metric_learning.losses",
    "pytorch_metric_learning_labels": "pytorch_metric_learning.losses",
}
# These packages import more than their losses do.
MODULES = {
    "open_clip": "open_clip.loss",
    "sentence_transformers": "sentence_transformers.sentence_transformer.losses.multiple_negatives_ranking",
}
MOST_LINES = 10
# Fifty steps of training in float32 carry a rounding along: some units of the last place of losses below 4.
LARGEST_DIFFERENCE = 8 * 2.0**-22


def test_every_trainer_is_here():
    assert NAMES == sorted([*PACKAGES, *MODULES, "moco", "moco_v3", "solo_learn"])


@pytest.mark.parametrize("name", NAMES)
def test_at_most_ten_lines_are_added_or_taken_away(name):
    before, after = ((TRAINERS / name / file).read_text().splitlines() for file in ("before.py", "after.py"))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    added = sum(line[0] == "+" for line in changed)
    assert 0 < added <= MOST_LINES and 0 < len(changed) - added <= MOST_LINES
    assert any("flashnce.compat" in line for line in changed)


@cpu_only
@pytest.mark.parametrize("name", NAMES)
def test_losses_over_fifty_steps_are_those_of_before(name):
    if name in PACKAGES:
        peer(PACKAGES[name])
    elif name in MODULES:
        module_of(MODULES[name])
    before, after = (example(name, file)["train"]() for file in ("before.py", "after.py"))
    assert len(before) == len(after) == 50 and max(before) > 1.5 * min(before)
    assert max(abs(a - b) for a, b in zip(before, after)) <= LARGEST_DIFFERENCE
    assert before != after


@cpu_only
def test_accuracies_of_the_moco_trainer():
    shown = ([], [])
    for file, seen in zip(("before.py", "after.py"), shown):
        example("moco", file)["train"](show=lambda *accuracies, seen=seen: seen.append(accuracies))
    assert shown[0] == shown[1] and len(set(shown[0])) > 5


def test_what_they_print(capsys):
    torch.manual_seed(0)
    after = example("moco", "after.py")
    after["main"](lambda: after["train"](steps=20))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 10", "step 20"]


@pytest.fixture
def bench(monkeypatch):
    """bench/trainers.py, whose folder has a package `peers` of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    before = set(sys.modules)
    import trainers

    yield trainers
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "bench")):
            del sys.modules[name]


def test_the_page_says_what_its_record_says(bench):
    text = PAGE.read_text()
    record = json.loads((ROOT / re.search(r"bench/records/trainers/[\w.-]+\.json", text)[0]).read_text())
    assert "\n".join(bench.table(record)) in text
    assert not record["commit"]["dirty"] and [cell["trainer"] for cell in record["cells"]] == list(bench.TRAINERS)
    for cell in record["cells"]:
        assert cell["lines"] == list(bench.changed_lines(cell["trainer"])), "record it again"
        assert cell["loss_difference"] <= LARGEST_DIFFERENCE


@cpu_only
def test_what_is_measured_of_a_trainer(bench, monkeypatch):
    monkeypatch.setitem(bench.TRAINERS, "moco", ("MoCo", (8, 32, 16)))
    measured = bench.one("moco", "after", True)
    assert len(measured["losses"]) == 50 and measured["ms"] > 0
    assert measured["mib"] is None or measured["mib"] >= 0


def test_the_names_on_the_page_are_there():
    import importlib

    found = re.findall(r"from (flashnce\.compat\.\w+) import ([\w, ]+)", PAGE.read_text())
    assert len(found) >= 7
    for module, names in found:
        if module != "flashnce.compat.lightning":
            assert all(hasattr(importlib.import_module(module), name) for name in names.split(", "))


def test_the_schedule_on_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    code = next(block for block in blocks if "transform.step()" in block)
    names = {"q": torch.randn(4, 6, requires_grad=True), "k": torch.randn(4, 6), "queue": Queue(8, 6)}
    exec(code, names)
    assert names["transform"].steps == 1 and names["q"].grad is not None
