"""What a small call costs beside an operator of the same schema that does nothing, and beside MoCo's code.

At N = 8, K = 64, D = 16 the arithmetic takes a few microseconds: what is measured is what stands around it, forward and
backward. The operator that does nothing is a torch.library operator with an autograd formula, in Python, whose outputs
are not written. Each round times all three one after the other, and ratios are taken within rounds.

usage: PYTHONPATH=python python bench/overhead.py [--rounds 30] [--calls 200] [--most RATIO]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch.nn.functional import cross_entropy, normalize

from flashnce.torch import _call, info_nce

N, K, D, TEMPERATURE = 8, 64, 16, 0.07
_library = torch.library.Library("flashnce_bench", "DEF")
_library.define(
    f"null({_call.INPUT_SCHEMA}, int[] structure, float[] numbers) "
    "-> (Tensor loss, Tensor dq, Tensor dk, Tensor dtemperature, Tensor float_scores, Tensor int_scores)"
)


def _null(q, *_):
    none = q.new_empty(0)
    return q.new_empty(()), q.new_empty(q.shape), none, none.clone(), none.clone(), q.new_empty(0, dtype=torch.int64)


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.count = len(inputs)


def _backward(ctx, upstream, *_):
    return ctx.saved_tensors[0], *(None,) * (ctx.count - 1)


_library.impl("null", _null, "CompositeExplicitAutograd")
torch.library.register_autograd("flashnce_bench::null", _backward, setup_context=_setup, lib=_library)


def steps() -> dict:
    """The calls that are compared, each with its backward pass."""
    generator = torch.Generator().manual_seed(0)
    q, k, negatives = (torch.randn(rows, D, generator=generator) for rows in (N, N, K))
    q.requires_grad_()
    negatives = normalize(negatives, dim=1)
    inputs = _call.Inputs(q, k, negatives)
    structure = list(_call.Structure(1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0))
    targets = torch.zeros(N, dtype=torch.int64)

    def null():
        return torch.ops.flashnce_bench.null(*inputs, structure, [TEMPERATURE, 1.0, 0.0, 1.0, 0.0])[0]

    def moco():
        unit, key = normalize(q, dim=1), normalize(k, dim=1)
        logits = torch.cat([(unit * key).sum(1, keepdim=True), unit @ negatives.T], dim=1)
        return cross_entropy(logits / TEMPERATURE, targets)

    def step_of(loss):
        def step():
            loss().backward()
            q.grad = None

        return step

    losses = {"null": null, "flashnce": lambda: info_nce(q, k, negatives, temperature=TEMPERATURE), "moco": moco}
    return {name: step_of(loss) for name, loss in losses.items()}


def measure(rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds of one call: of each round the least, which interruptions do not reach."""
    functions, times = steps(), {}
    for function in functions.values():
        for _ in range(calls):
            function()
    for _ in range(rounds):
        for name, function in functions.items():
            least = min(_time(function) for _ in range(calls))
            times.setdefault(name, []).append(least * 1e6)
    return times


def _time(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--most", type=float, help="fail where the ratio to the operator that does nothing is larger")
    options = parser.parse_args()
    torch.set_num_threads(1)
    times = measure(options.rounds, options.calls)
    ratio = {}
    for name, values in times.items():
        ratio[name] = statistics.median(a / b for a, b in zip(values, times["null"]))
        print(f"{name:10} {statistics.median(values):8.1f} us   {ratio[name]:5.2f} of null")
    return int(options.most is not None and ratio["flashnce"] > options.most)


if __name__ == "__main__":
    sys.exit(main())
