"""The page docs/negatives.md: its blocks run, and the SimCLR example trains."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_examples import folder  # noqa: F401  (a fixture)

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "examples" / "simclr_fashion_mnist" / "train.py"


def test_every_block_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "negatives.md").read_text(), re.S)
    names, losses = {}, 0
    torch.manual_seed(0)
    for block in blocks:
        names.pop("loss", None)
        exec(compile(block, "docs/negatives.md", "exec"), names)
        if "loss" in names:
            losses += 1
            # A queue that holds nothing but the rows' own keys has no column for some.
            assert torch.isfinite(names["loss"]) and names["loss"] > 0, block
    assert losses == len(blocks) - 1 > 8
    assert names["q"].grad.abs().max() > 0 and names["k"].grad.abs().max() > 0
    assert names["hard"].grad.abs().max() > 0 and names["logit_scale"].grad != 0


@pytest.fixture(scope="module")
def simclr():
    spec = importlib.util.spec_from_file_location("simclr_example", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.simclr


@pytest.mark.parametrize("form", ["info_nce", "decoupled"])
def test_the_loss_of_the_simclr_example(simclr, form):
    first, second = (torch.randn(12, 8, requires_grad=True) for _ in range(2))
    views = torch.nn.functional.normalize(torch.cat([first, second]).double(), dim=1)
    scores = (views @ views.T / 0.2).masked_fill(torch.eye(24, dtype=torch.bool), -torch.inf)
    other = torch.arange(24).roll(12)
    positive = scores[torch.arange(24), other]
    if form == "decoupled":
        scores = scores.masked_fill(torch.eye(24, dtype=torch.bool).roll(12, 0), -torch.inf)
    expected = (torch.logsumexp(scores, 1) - positive).mean()
    loss = simclr(first, second, temperature=0.2, form=form)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for actual, wanted in zip(*(torch.autograd.grad(x, (first, second)) for x in (loss, expected))):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-6)


def test_the_simclr_example_trains(folder):  # noqa: F811
    command = [sys.executable, str(PROGRAM), "--data", str(folder), "--steps", "30", "--batch-size", "32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    first, *table = done.stdout.splitlines()
    before, after = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", first).groups())
    assert after < 0.9 * before
    assert [line.split("kNN")[0].strip() for line in table] == ["pixels", "random encoder", "SimCLR"]
    wrong = subprocess.run([*command[:2], "--data", "nowhere"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "no folder nowhere" in wrong.stderr
