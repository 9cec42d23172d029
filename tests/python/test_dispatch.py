"""Who wants to see a call sees it: modes, counters, the profiler; where nobody does, it takes the shorter way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import batch, cpu_only, gradients
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from flashnce.torch import Mix, _ops, info_nce, scores

ROOT = Path(__file__).resolve().parents[2]


class Watch(TorchDispatchMode):
    """Names the operators of flashnce that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if "flashnce" in str(function):
            self.seen.append(str(function))
        return function(*arguments, **options or {})


@pytest.mark.parametrize("options", [{}, {"positive": Mix(2.0), "seed": 3, "reduction": "none"}])
def test_both_ways_give_the_same_bits(options):
    q, k, negatives = batch()
    short, statistics = info_nce(q, k, negatives, return_scores=True, **options)
    with Watch() as watch:
        long, expected = info_nce(q, k, negatives, return_scores=True, **options)
    assert watch.seen == ["flashnce.info_nce_forward.default"]
    assert torch.equal(short, long) and torch.equal(*(gradients(loss.sum(), q)[0] for loss in (short, long)))
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(statistics.mixed, expected.mixed))


def test_a_mode_sees_a_call_without_gradients():
    q, k, negatives = batch()
    with Watch() as watch, torch.no_grad():
        assert info_nce(q, k, negatives).item() == info_nce(q, k, negatives).item()
    assert watch.seen == 2 * ["flashnce.info_nce_forward.default"]


def test_the_profiler_names_the_loss():
    q, k, negatives = batch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        info_nce(q, k, negatives).backward()
    names = {event.key for event in profile.key_averages()}
    assert "flashnce::info_nce_forward" in names and any("InfoNCEBackward" in name for name in names)


def test_a_subclass_of_tensor_is_dispatched(monkeypatch):
    q, k, negatives = batch()

    class Own(torch.Tensor):
        pass

    def unwanted(*_):
        raise AssertionError("the way past the dispatcher was taken")

    expected = info_nce(q, k, negatives).item()
    compute = _ops._compute
    monkeypatch.setattr(_ops, "_compute", unwanted)
    with pytest.raises(AssertionError, match="past the dispatcher"):
        info_nce(q, k, negatives)
    monkeypatch.setattr(_ops, "_compute", compute)
    assert not _ops._unseen((q.detach().as_subclass(Own),))
    assert info_nce(q.detach().as_subclass(Own), k, negatives).item() == expected


def test_the_counter_of_operations_knows_the_matrix_products():
    q, k, negatives = batch(24, 80, 12)
    product = 2 * 24 * 80 * 12
    for expected, call in (
        (2 * product, lambda: info_nce(q, k, negatives).backward()),
        (2 * product, lambda: info_nce(q.detach(), k, negatives, return_scores=True)),
        (product, lambda: info_nce(q.detach(), k, negatives)),
        (product, lambda: scores(q, k, negatives)),
    ):
        with FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == expected


@cpu_only
def test_the_benchmark_of_small_calls_runs():
    command = [sys.executable, str(ROOT / "bench" / "overhead.py"), "--rounds", "3", "--calls", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    table = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(table) == ["null", "flashnce", "moco"] and table["null"].endswith("1.00 of null")
