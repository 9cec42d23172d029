"""docs/score-meter.md: its loop trains and is reported, its sinks are made; bench/score_meter.py runs."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from flashnce.scores import ScoreMeter, read_run
from flashnce.torch import FeatureTransform, InfoNCE, Queue

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "score-meter.md").read_text(), re.S)


def test_the_loop_of_the_page_is_logged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = torch.nn.Linear(6, 8)
    names = {
        "batches": [(torch.randn(4, 6), torch.randn(4, 6)) for _ in range(3)],
        "epochs": 2,
        "encoder": encoder,
        "momentum_encoder": lambda x: torch.ones(4, 8) + x.sum(),
        "criterion": InfoNCE(0.2, preset="ft"),
        "queue": Queue(32, 8),
        "optimizer": torch.optim.SGD(encoder.parameters(), lr=0.1),
    }
    exec(compile(BLOCKS[0], "docs/score-meter.md", "exec"), names)
    run = read_run("runs/ft-0")
    assert [row["epoch"] for row in run.rows] == [1, 1, 1, 2, 2, 2]
    assert run.group == "ft" and "neg_after" in run.details[0]["histograms"]

    q, k = encoder(torch.randn(4, 6)), torch.randn(4, 8)
    with ScoreMeter("runs/schedule", details_every=1) as meter:
        names |= {"q": q, "k": k, "transform": FeatureTransform(), "criterion": InfoNCE(0.2), "meter": meter}
        exec(compile(BLOCKS[1], "docs/score-meter.md", "exec"), names)
    assert read_run("runs/schedule").details[0]["lambda_pos"] > 1


def test_the_sinks_of_the_page_are_made(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    names = {"wandb": types.SimpleNamespace(log=print)}
    exec(compile("from flashnce.scores import ScoreMeter\n" + BLOCKS[2], "docs/score-meter.md", "exec"), names)
    names["meter"].close()
    assert len(names["sinks"]) == 4


@pytest.mark.full
def test_the_benchmark_runs():
    command = [sys.executable, str(ROOT / "bench" / "score_meter.py"), "--rounds", "2", "--shape", "8", "64", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert re.search(r"the meter adds -?\d+\.\d+ % of the loss\n$", done.stdout), done.stdout
