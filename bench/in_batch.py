"""What a batch that contrasts with itself costs: InfoNCE in the batch and the symmetric loss, with the gradients of
both sides, beside plain PyTorch code for the same step, eager and compiled.

    python bench/in_batch.py                       measures, prints a table in Markdown (tens of minutes)
    python bench/in_batch.py --record NAME.json    also keeps the figures, with machine, commit and software
    python bench/in_batch.py --sizes 1024 --features 128 --threads 2 --types float32      less of it
    python bench/in_batch.py --from NAME.json      prints the table of a record

Times are of one step, loss and both gradients, interleaved in one process for each number of threads; ratios are taken
within rounds and then their median. Memory is what a step takes at its peak beyond its inputs, gradients included, each
peer in a process of its own. Errors are of the gradient of a, relative to its norm, against the eager code in float64.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import limits
from peers import software
from record_text import text_of
from render import measured_where, significant, table_of

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = 1
TEMPERATURE = 0.07
LOSSES = {"info_nce": "InfoNCE in the batch", "clip": "symmetric"}
PEERS = {"flashnce": "FlashNCE", "eager": "PyTorch, eager", "compiled": "PyTorch, `torch.compile`"}


def inputs_of(n: int, d: int, dtype: str):
    """Both sides of a batch, which require gradients."""
    import torch

    generator = torch.Generator().manual_seed(1)
    a = torch.randn(n, d, generator=generator)
    b = a + 0.5 * torch.randn(n, d, generator=generator)
    return tuple(x.to(getattr(torch, dtype)).requires_grad_() for x in (a, b))


def plain(loss: str):
    """The loss as a user without this library writes it."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    def function(a, b):
        logits = normalize(a, dim=1) @ normalize(b, dim=1).T / TEMPERATURE
        target = torch.arange(len(a))
        forward = cross_entropy(logits, target)
        return forward if loss == "info_nce" else (forward + cross_entropy(logits.T, target)) / 2

    return function


class Peer:
    """One way to make a step, for the inputs of a cell."""

    def __init__(self, name: str, loss: str, inputs) -> None:
        import torch
        from flashnce.torch import clip_loss, info_nce

        ours = {
            "info_nce": lambda a, b: info_nce(a, b, batch=True, temperature=TEMPERATURE),
            "clip": lambda a, b: clip_loss(a, b, temperature=TEMPERATURE),
        }
        function = ours[loss] if name == "flashnce" else plain(loss)
        self.function = torch.compile(function, dynamic=False) if name == "compiled" else function
        self.inputs, self.grad = inputs, torch.autograd.grad

    def step(self):
        return self.grad(self.function(*self.inputs), self.inputs)


def cell(job: dict) -> dict:
    """One loss at one size: times, ratios and errors of all peers."""
    from peers.measure import measure, ratio, spread

    inputs = inputs_of(job["n"], job["d"], job["type"])
    peers = {name: Peer(name, job["loss"], inputs) for name in job["peers"]}
    truth = Peer("eager", job["loss"], tuple(x.detach().double().requires_grad_() for x in inputs)).step()[0]
    firsts, errors = {}, {}
    for name, peer in peers.items():
        start = time.perf_counter()
        gradient = peer.step()[0].double()
        firsts[name] = time.perf_counter() - start
        errors[name] = ((gradient - truth).norm() / truth.norm()).item()
    del truth, gradient
    times = measure({name: peer.step for name, peer in peers.items()}, job["rounds"], job["threads"], firsts, slow=20.0)
    return {
        name: {"ms": spread(times[name]), "rounds": len(times[name]), "error": errors[name]}
        | ({"of_eager": ratio(times, name, "eager")} if "eager" in times and name != "eager" else {})
        for name in peers
    }


def memory(job: dict) -> dict[str, float | None]:
    """MiB of each peer at the peak of a step."""
    from peers.memory import extra_memory, measurable

    if not measurable():
        return {}
    given = partial(inputs_of, job["n"], job["d"], job["type"])
    return {name: extra_memory(given, partial(Peer, name, job["loss"])) for name in job["peers"]}


def work(threads: int) -> None:
    """A process that measures the job on its standard input and prints what it found."""
    from peers.worker import pin

    pin(threads)
    import torch

    torch.set_num_threads(threads)
    job = json.load(sys.stdin)
    print(json.dumps(memory(job) if job["what"] == "memory" else cell(job)), flush=True)


def ask(job: dict) -> dict:
    command = [sys.executable, __file__, "--work", str(job["threads"])]
    environment = limits.environment(job["threads"], None)
    done = subprocess.run(command, input=json.dumps(job), env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"in_batch.py: {job} ended with status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def measure_all(options: argparse.Namespace) -> list[dict]:
    cells = []
    for loss in options.losses:
        for n in options.sizes:
            for d in options.features:
                for dtype in options.types:
                    for threads in options.threads:
                        job = {"loss": loss, "n": n, "d": d, "type": dtype, "threads": threads,
                               "rounds": options.rounds, "peers": options.peers}  # fmt: skip
                        print(f"{loss} {n} x {d}, {dtype}, {threads} threads", file=sys.stderr, flush=True)
                        found = ask(job | {"what": "times"})
                        mib = ask(job | {"what": "memory"}) if threads == max(options.threads) else {}
                        cells.append({k: job[k] for k in ("loss", "n", "d", "type", "threads")} | {
                            "peers": {name: found[name] | {"mib": mib.get(name)} for name in found}
                        })  # fmt: skip
    return cells


def table(record: dict) -> list[str]:
    """The record as Markdown."""
    names = [name for name in PEERS if any(name in cell["peers"] for cell in record["cells"])]
    rows = []
    for cell in record["cells"]:
        peers = cell["peers"]
        row = [LOSSES[cell["loss"]], f"{cell['n']}, {cell['d']}", cell["type"], str(cell["threads"])]
        for name in names:
            of = peers[name].get("of_eager")
            row.append(significant(peers[name]["ms"]["median"]) + (f" ({of['median']:.2f}×)" if of else ""))
        mib = [peers[name]["mib"] for name in names]
        errors = [f"{peers[name]['error']:.1e}" for name in names]
        rows.append([*row, *("-" if x is None else significant(x) for x in mib), *errors])
    head = ["loss", "N, D", "type", "threads", *(f"ms, {PEERS[name]}" for name in names),
            *(f"MiB, {PEERS[name]}" for name in names), *(f"error, {PEERS[name]}" for name in names)]  # fmt: skip
    return [
        "Milliseconds of one step, loss and both gradients, in parentheses the multiple of eager PyTorch; MiB at its",
        "peak beyond its inputs.",
        "",
        *table_of(head, rows),
        "",
        *measured_where(record),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="NAME.json", help="where the figures are kept")
    parser.add_argument("--from", dest="source", type=Path, metavar="NAME.json", help="a record, instead of measuring")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[1024, 4096, 16384], metavar="N")
    parser.add_argument("--features", nargs="+", type=int, default=[128, 512], metavar="D")
    types = ("float32", "bfloat16")
    parser.add_argument("--types", nargs="+", choices=types, default=list(types))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    if options.source:
        record = json.loads(options.source.read_text())
    else:
        record = {
            "schema": SCHEMA,
            "date": software.today(),
            "command": "python bench/in_batch.py " + " ".join(sys.argv[1:]),
            "commit": software.commit(ROOT),
            "machine": software.machine(),
            "software": software.describe(),
            "cells": measure_all(options),
        }
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(text_of(record))
    print("\n".join(table(record)))


if __name__ == "__main__":
    main()
