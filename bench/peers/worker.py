"""A process that measures with one number of threads: reads a JSON job from standard input, writes JSON lines.

job: {"threads", "shapes": [[n,k,d], ...], "rounds", "without": [peer, ...], "memory_shape": [n,k,d] or null}
lines: {"cell": ...} as in a record, {"memory": {peer: MiB}}, {"software": ...}, as they are ready.
"""

from __future__ import annotations

import json
import os
import sys


def pin(threads: int) -> None:
    """Onto as many CPUs as threads: before any library has started some."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[-threads:])


def emit(**line) -> None:
    print(json.dumps(line), flush=True)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def makers(without: list[str]) -> dict:
    """name: function of the inputs that makes the peer. The names are those of the records."""
    from functools import partial

    from . import library, steps

    peers = {"gemms-torch": steps.TorchGemms, "gemms-numpy": steps.NumpyGemms}
    for transformation in ("moco", "ft", "ft-elementwise"):
        peers[f"flashnce-{transformation}-c"] = partial(library.CInterface, transformation=transformation)
        peers[f"flashnce-{transformation}-torch"] = partial(library.Binding, transformation=transformation)
    peers |= {
        "moco-code": steps.MocoCode,
        "eager-ft": steps.EagerFt,
        "compiled-ft": steps.CompiledFt,
        "eager-ft-elementwise": steps.EagerFtElementwise,
    }
    return {name: make for name, make in peers.items() if name not in without}


# name: (numerator, denominator)
COMPARISONS = {
    "FT over no FT": ("flashnce-ft-c", "flashnce-moco-c"),
    "elementwise FT over no FT": ("flashnce-ft-elementwise-c", "flashnce-moco-c"),
    "binding over C interface": ("flashnce-ft-torch", "flashnce-ft-c"),
    "MoCo code over FlashNCE": ("moco-code", "flashnce-moco-torch"),
    "eager FT over FlashNCE": ("eager-ft", "flashnce-ft-torch"),
    "compiled FT over FlashNCE": ("compiled-ft", "flashnce-ft-torch"),
    "eager elementwise FT over FlashNCE": ("eager-ft-elementwise", "flashnce-ft-elementwise-torch"),
}
GEMMS = ("gemms-torch", "gemms-numpy")


def make_peers(peers: dict, inputs) -> tuple[dict, dict[str, str]]:
    """The peers that work here after one step each, and why the others do not."""
    made, skipped = {}, {}
    for name, make in peers.items():
        missing = getattr(make, "missing", lambda: None)()
        if missing:
            skipped[name] = missing
            continue
        try:
            peer = make(inputs)
            peer.step()
        except Exception as error:
            # Only what depends on this machine's compiler may fail.
            if not hasattr(make, "missing"):
                raise
            log(f"{name}: {error}")
            skipped[name] = f"its first step raised {type(error).__name__}"
            continue
        made[name] = peer
    return made, skipped


def cell(shape, peers: dict, rounds: int, threads: int) -> dict:
    """One shape: times, ratios, errors."""
    import torch

    from . import library
    from .errors import errors_of, reference_step
    from .measure import measure, ratio, spread
    from .steps import Inputs

    torch.manual_seed(0)
    inputs = Inputs(shape)
    made, skipped = make_peers(peers, inputs)
    times = measure({name: peer.step for name, peer in made.items()}, rounds, threads)
    results = {name: {"ms": spread(times[name]), "rounds": len(times[name])} for name in made}
    for name, result in results.items():
        result["ratios"] = {base: ratio(times, name, base) for base in GEMMS}
    draws = {t: library.draws_of(t, shape) for t in ("moco", "ft", "ft-elementwise")}
    expected = {t: reference_step(inputs, given) for t, given in draws.items()}
    for name, peer in made.items():
        if peer.transformation:
            answer = peer.result(draws[peer.transformation])
            results[name] |= errors_of(answer, expected[peer.transformation])
    return {
        "shape": [shape.n, shape.k, shape.d],
        "threads": threads,
        "gemms": min(GEMMS, key=lambda name: results[name]["ms"]["median"]),
        "peers": results,
        "skipped": skipped,
        "comparisons": {
            name: {"of": list(pair), **ratio(times, *pair)}
            for name, pair in COMPARISONS.items()
            if all(peer in made for peer in pair)
        },
    }


def memory(shape, peers: dict) -> dict[str, float]:
    from functools import partial

    from .memory import extra_memory, measurable
    from .steps import Inputs

    if not measurable():
        log("this kernel does not let a process reset its peak memory: memory is not measured")
        return {}
    found = {}
    for name, make in peers.items():
        missing = getattr(make, "missing", lambda: None)()
        extra = None if missing else extra_memory(partial(Inputs, shape), make)
        if extra is not None:
            found[name] = extra
    return found


def main() -> None:
    job = json.load(sys.stdin)
    pin(job["threads"])
    import torch

    from .software import describe
    from .steps import Shape

    torch.set_num_threads(job["threads"])
    peers = makers(job["without"])
    if job["memory_shape"]:
        log(f"memory at {'x'.join(map(str, job['memory_shape']))}")
        emit(memory=memory(Shape(*job["memory_shape"]), peers))
    for sizes in job["shapes"]:
        log(f"{'x'.join(map(str, sizes))}, {job['threads']} thread{'s' * (job['threads'] > 1)}")
        emit(cell=cell(Shape(*sizes), peers, job["rounds"], job["threads"]))
    emit(software=describe())


if __name__ == "__main__":
    main()
