"""What a ScoreMeter costs beside a step of the loss, forward and backward, without histograms.

A step is timed alone, with return_scores=True, and with a meter that writes its folder, one after the other; ratios are
taken within rounds. The meter's price is what it adds to a step that has its scores.

usage: PYTHONPATH=python python bench/score_meter.py [--rounds 20] [--shape N K D] [--threads T] [--most PERCENT]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch

from flashnce.scores import ScoreMeter
from flashnce.torch import InfoNCE, Queue

SHAPE = (256, 65536, 128)
# Each round calls a step so often that a round lasts about this long, seconds.
ROUND = 0.2


def steps(shape: tuple[int, int, int], preset: str, meter: ScoreMeter) -> dict[str, Callable[[], None]]:
    """The steps that are compared."""
    n, k, d = shape
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(n, d, generator=generator).requires_grad_()
    key = q.detach() + 0.5 * torch.randn(n, d, generator=generator)
    queue, criterion = Queue(k, d, generator=generator), InfoNCE(0.2, preset=preset)

    def plain() -> None:
        criterion(q, key, queue).backward()

    def with_scores() -> None:
        criterion(q, key, queue, return_scores=True)[0].backward()

    def with_meter() -> None:
        loss, scores = criterion(q, key, queue, return_scores=True)
        meter.update(loss, scores)
        loss.backward()

    return {"loss": plain, "loss with scores": with_scores, "loss with a meter": with_meter}


def _seconds(step: Callable[[], None], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def measure(shape: tuple[int, int, int], preset: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step, by name and round."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ScoreMeter(folder) as meter:
        compared = steps(shape, preset, meter)
        calls = max(1, round(ROUND / min(_seconds(step, 3) for step in compared.values())))
        for _ in range(rounds):
            for name, step in compared.items():
                times.setdefault(name, []).append(_seconds(step, calls))
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--shape", nargs=3, type=int, metavar=("N", "K", "D"), default=SHAPE)
    parser.add_argument("--preset", choices=("moco", "ft"), default="ft")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--most", type=float, metavar="PERCENT", help="fail where the meter adds more")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    times = measure(tuple(options.shape), options.preset, options.rounds)
    print(f"N, K, D = {', '.join(map(str, options.shape))}, {options.preset}, {torch.get_num_threads()} threads")
    for name, values in times.items():
        print(f"{name:20} {1e3 * statistics.median(values):9.3f} ms")
    added = 100 * statistics.median(
        (meter - scores) / loss for loss, scores, meter in zip(*(times[name] for name in times))
    )
    print(f"the meter adds {added:.2f} % of the loss")
    return int(options.most is not None and added > options.most)


if __name__ == "__main__":
    sys.exit(main())
