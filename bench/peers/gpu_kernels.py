"""Times of the single kernels of a step, by PyTorch's profiler (CUPTI), with a cold queue: a line of JSON per shape.

usage: python -m peers.gpu_kernels NxKxD,... [--type ...] [--preset ...]

Exit code: 0, 77 (no device), 9 (this machine does not let programs profile).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict

import torch

from .gpu import DTYPES, log, reason
from .gpu_clock import Clock, spread
from .gpu_steps import on_device
from .ours import Binding
from .steps import Inputs, Shape

STEPS = 10
REFUSED = 9


def kernels_of(events) -> dict[str, list[float]]:
    """Microseconds of each launch by kernel; the flushes of the cache are told by PyTorch's name of a fill."""
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if str(getattr(event, "device_type", "")).endswith("CUDA") and "FillFunctor" not in event.name:
            microseconds = getattr(event, "device_time", None)
            times[event.name].append(event.cuda_time if microseconds is None else microseconds)
    return times


def profile(shape: Shape, dtype: str, preset: str, device: torch.device) -> dict:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    peer = Binding(on_device(Inputs(shape), device, DTYPES[dtype]), preset)
    clock = Clock(device)
    for _ in range(3):
        peer.step()
    clock.wait()
    with record(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(STEPS):
            clock.flushed.fill_(1)
            peer.step()
        clock.wait()
    kernels = {
        name: {"us": spread(times), "per_step": len(times) / STEPS}
        for name, times in kernels_of(recorded.events()).items()
    }
    return {"shape": [shape.n, shape.k, shape.d], "type": dtype, "preset": preset, "kernels": kernels}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes")
    parser.add_argument("--type", choices=DTYPES, default="float16")
    parser.add_argument("--preset", default="ft")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        log("skipped: this PyTorch has no CUDA device")
        return 77
    for text in options.shapes.split(","):
        try:
            found = profile(Shape.parse(text), options.type, options.preset, torch.device("cuda", 0))
        except RuntimeError as error:
            if "CUPTI" in str(error) or "INSUFFICIENT_PRIVILEGES" in str(error):
                log(reason(error))
                return REFUSED
            raise
        if not found["kernels"]:
            log("the profiler saw no kernels: this machine does not let programs profile")
            return REFUSED
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
