"""Times of a step on a CUDA device, by events: on a stream and in a CUDA graph, with a cold queue and a hot one.

Cold: before each step memory is written that is larger than L2, outside of what is timed. On a stream the host enqueues
the step meanwhile, so what the host takes is hidden for as long as that writing lasts. On the CPU, where there is
nothing to flush or capture, only the time on a stream is taken; that is for trying the program.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

FLUSH = 2.5  # times L2
HOT_STEPS = 10
WARM = 3


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def reason(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:240]}" if lines else type(error).__name__


class Clock:
    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        if self.cuda:
            size = int(FLUSH * torch.cuda.get_device_properties(device).L2_cache_size)
            self.flushed = torch.empty(size, dtype=torch.uint8, device=device)
            self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def microseconds(self, run: Callable[[], None], steps: int = 1, cold: bool = False) -> float:
        """Of one step, `run` being `steps` of them."""
        if not self.cuda:
            start = time.perf_counter()
            run()
            return (time.perf_counter() - start) / steps * 1e6
        if cold:
            self.flushed.fill_(1)
        self.begin.record()
        run()
        self.end.record()
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / steps * 1e3

    def captured(self, step: Callable[[], None], steps: int = 1) -> Callable[[], None]:
        """`step`, `steps` times, as a graph; the step has run before on a side stream, as capturing asks for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(steps):
                step()
        return graph.replay


class Timed:
    """One peer: its ways of being run, and what they took in each round."""

    def __init__(
        self, clock: Clock, step: Callable[[], None], graphs: bool = True, most_rounds: int | None = None
    ) -> None:
        self.clock, self.no_graph, self.most_rounds, self.error = clock, None, most_rounds, None
        for _ in range(WARM):
            step()
        clock.wait()

        def hot() -> None:
            for _ in range(HOT_STEPS):
                step()

        # name: (what runs, steps of it, cold)
        # A step that is to run few times only is not run by tens either.
        self.ways = {"stream_cold": (step, 1, True)}
        if most_rounds is None or not clock.cuda:
            self.ways["stream_hot"] = (hot, HOT_STEPS, False)
        if graphs and clock.cuda:
            try:
                self.ways["graph_cold"] = (clock.captured(step), 1, True)
                self.ways["graph_hot"] = (clock.captured(step, HOT_STEPS), HOT_STEPS, False)
            except Exception as error:
                # Host synchronisation, or a draw on the host: what cannot be captured has no time in a graph.
                self.ways = {name: way for name, way in self.ways.items() if name.startswith("stream")}
                self.no_graph = reason(error)
                clock.wait()
        self.times: dict[str, list[float]] = {name: [] for name in self.ways}

    def round(self, number: int) -> None:
        if self.error is not None or (self.most_rounds is not None and number >= self.most_rounds):
            return
        try:
            self.run_ways()
        except Exception as error:
            # The others go on.
            self.error = reason(error)

    def run_ways(self) -> None:
        for name, (run, steps, cold) in self.ways.items():
            if cold and not self.clock.cuda:
                continue
            self.times[name].append(self.clock.microseconds(run, steps, cold))

    def result(self) -> dict:
        found = {"us": {name: spread(times) for name, times in self.times.items() if times}}
        if self.no_graph is not None:
            found["no_graph"] = self.no_graph
        if self.error is not None:
            found["error"] = self.error
        return found


def interleaved(peers: dict[str, Timed], rounds: int) -> None:
    """Rounds in which every peer runs once, every other one backwards."""
    for number in range(rounds):
        for peer in list(peers.values()) if number % 2 == 0 else reversed(peers.values()):
            peer.round(number)


def peak_mib(device: torch.device, step: Callable[[], None]) -> float | None:
    """Device memory of PyTorch that a step takes at its peak beyond what is there before it."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20
