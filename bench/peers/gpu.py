"""One shape on a CUDA device: FlashNCE through flashnce.torch beside what one would use without it, with the errors of
each against float64 and its peak memory. A line of JSON.

usage: python -m peers.gpu NxKxD [--type float16|bfloat16|float32] [--rounds N] [--without NAME ...] [--device cpu]
       python -m peers.gpu --gemms NxKxD,... [--type ...]      the two matrix products alone, of many shapes
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from .errors import errors_of, reference_step
from .gpu_clock import Clock, Timed, interleaved, peak_mib, reason
from .gpu_steps import DeviceGemms, all_peers, draws_on, on_device
from .steps import Draws, Inputs, Shape

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(shape: Shape, dtype: str, rounds: int, without: list[str], device: torch.device) -> dict:
    inputs = on_device(Inputs(shape), device, DTYPES[dtype])
    clock, expected = Clock(device), {}
    peers, found, skipped = {}, {}, {}
    for name, make in all_peers(device).items():
        if name in without:
            continue
        log(name)
        try:
            peer = (DeviceGemms if name == "gemms" else make)(inputs)
            peer.step()
            # Draws on the host take seconds, and trying to capture them leaves PyTorch 2.11's generator in a capture,
            # where no later peer can draw.
            on_host = name == "ft-code"
            peers[name] = Timed(clock, peer.step, graphs=not on_host, most_rounds=2 if on_host else None)
            found[name] = {"peak_mib": peak_mib(device, peer.step)}
            if getattr(peer, "transformation", None) is None:
                continue
            kind = peer.transformation
            if kind not in expected:
                draws = draws_on(inputs, kind) if kind != "moco" else Draws()
                expected[kind] = draws, reference_step(inputs, draws)
            draws, answer = expected[kind]
            loss, gradient = peer.result(draws)
            # The reference may be on another device than the result.
            found[name].update(errors_of((loss, gradient.to(answer[1].device)), answer))
        except Exception as error:
            # A peer need not run on every device and shape; FlashNCE has to.
            log(f"{name}: {reason(error)}")
            skipped[name] = reason(error)
            peers.pop(name, None)
            found.pop(name, None)
            clock.wait()
    interleaved(peers, rounds)
    for name, timed in peers.items():
        found[name].update(timed.result())
        if timed.error is not None:
            skipped[name] = timed.error
    return {
        "shape": [shape.n, shape.k, shape.d],
        "type": dtype,
        "rounds": rounds,
        "torch": torch.__version__,
        "peers": found,
        "skipped": skipped,
    }


def gemms(shapes: list[Shape], dtype: str, rounds: int, device: torch.device) -> None:
    clock = Clock(device)
    for shape in shapes:
        try:
            peer = DeviceGemms(on_device(Inputs(shape), device, DTYPES[dtype]))
            timed = Timed(clock, peer.step)
            interleaved({"gemms": timed}, rounds)
            found = timed.result()
        except Exception as error:
            found = {"error": reason(error)}
        print(json.dumps({"shape": [shape.n, shape.k, shape.d], "type": dtype, **found}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", nargs="?")
    parser.add_argument("--gemms")
    parser.add_argument("--type", choices=DTYPES, default="float16")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    device = torch.device("cpu") if options.device == "cpu" else torch.device("cuda", 0)
    if device.type == "cuda" and not torch.cuda.is_available():
        log("skipped: this PyTorch has no CUDA device")
        return 77
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if options.gemms:
        gemms([Shape.parse(text) for text in options.gemms.split(",")], options.type, options.rounds, device)
        return 0
    result = measure(Shape.parse(options.shape), options.type, options.rounds, options.without, device)
    print(json.dumps(result), flush=True)
    ours = [name for name in result["skipped"] if name.startswith("flashnce-")]
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
