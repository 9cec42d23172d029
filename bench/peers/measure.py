"""Interleaved timing: rounds in which every peer runs once, so that what slows the machine down slows all of them.

Ratios are taken within a round and then their median, not the ratio of medians.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable

BLOCK = 0.02  # seconds that a peer is timed for in a round, at least: short steps are repeated
SLOW = 3.0  # seconds that a slow peer may take in all rounds together; a third in the tables beside that of steps
FEWEST = 3  # rounds of a slow peer
# Worker threads of BLAS and OpenMP spin for a while after their last task, OpenBLAS's for 0.1 s, and would take the
# cores from the next peer: it waits until they sleep. Nobody has workers on one thread.
LOOK = 0.01  # seconds between two looks at the time that the process took
IDLE = 0.05  # of that time: less is nobody's spinning
LONGEST = 1.0  # seconds that a peer waits


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def wait_for_workers() -> None:
    """Returns when no thread of this process is busy, or after LONGEST."""
    end = time.perf_counter() + LONGEST
    while time.perf_counter() < end:
        used, start = time.process_time(), time.perf_counter()
        time.sleep(LOOK)
        if time.process_time() - used < IDLE * (time.perf_counter() - start):
            return


class Timer:
    """Times one peer, which has run once; made by running it again. Where that is not worth its time, `first` says how
    many seconds the first run took. `slow`: seconds that the peer may take in all rounds together."""

    def __init__(
        self, step: Callable[[], None], rounds: int, threads: int, first: float = 0.0, slow: float = SLOW
    ) -> None:
        seconds = first
        if first < slow / FEWEST:
            start = time.perf_counter()
            step()
            seconds = time.perf_counter() - start
        self.step, self.rest = step, wait_for_workers if threads > 1 else None
        self.repeats = max(1, math.ceil(BLOCK / seconds))
        # After the wait workers sleep and caches are cold, which a short step would feel more than a long one.
        self.untimed = 1 if seconds < BLOCK else 0
        self.rounds = min(rounds, max(FEWEST, int(slow / seconds)))

    def milliseconds(self) -> float:
        if self.rest:
            self.rest()
        for _ in range(self.untimed):
            self.step()
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.step()
        return (time.perf_counter() - start) / self.repeats * 1e3


def measure(
    steps: dict[str, Callable[[], None]], rounds: int, threads: int, firsts: dict[str, float], slow: float = SLOW
) -> dict[str, list[float]]:
    """Milliseconds of each peer in each of its rounds; slow ones have fewer rounds, the first ones. `firsts`: the
    seconds that the first run of each took."""
    timers = {name: Timer(step, rounds, threads, firsts[name], slow) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            # Every other round backwards: nobody always runs after the same one.
            for name in list(timers) if number % 2 == 0 else reversed(timers):
                if number < timers[name].rounds:
                    times[name].append(timers[name].milliseconds())
            gc.collect()
    finally:
        gc.enable()
    return times


def ratio(times: dict[str, list[float]], numerator: str, denominator: str) -> dict[str, float]:
    """Of the rounds that both ran in."""
    return spread([a / b for a, b in zip(times[numerator], times[denominator])])
