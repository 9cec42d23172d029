"""Errors against the same step in float64, flashnce.reference.info_nce, with the same draws."""

from __future__ import annotations

import torch
from flashnce import reference
from torch import Tensor
from torch.nn.functional import normalize

from .steps import TEMPERATURE, Draws, Inputs, Shape

ROWS = 128  # of queries at a time: float64 scores of all of them would take gigabytes
CHUNK = 8192  # negatives at a time, where only a few queries are looked at


def _rows(value: Tensor | None, start: int) -> Tensor | None:
    """Of lambda of the positives, where there is one per row."""
    return value if value is None or value.dim() < 2 else value[start : start + ROWS]


def _temperature() -> float:
    """The library takes it as float32."""
    return torch.tensor(TEMPERATURE, dtype=torch.float32).double().item()


def reference_step(inputs: Inputs, draws: Draws) -> tuple[float, Tensor]:
    """Loss and dq in float64."""
    n, temperature = inputs.shape.n, _temperature()
    loss, gradients = 0.0, []
    for start in range(0, n, ROWS):
        x_q = inputs.x_q.detach()[start : start + ROWS].double().requires_grad_()
        part = reference.info_nce(
            x_q,
            inputs.x_k[start : start + ROWS],
            inputs.queue,
            temperature=temperature,
            lambda_pos=_rows(draws.lambda_pos, start),
            lambda_neg=draws.lambda_neg,
            permutation=draws.permutation,
            reduction="sum",
        )
        gradients.append(torch.autograd.grad(part / n, x_q)[0])
        loss += part.item() / n
    return loss, torch.cat(gradients)


def errors_of(result: tuple[float, Tensor], expected: tuple[float, Tensor]) -> dict[str, float]:
    """loss_error: relative; dq_error: the worst row's norm of the difference over the norm of the row."""
    loss, dq = expected
    difference = (result[1].double() - dq).norm(dim=1) / dq.norm(dim=1)
    return {"loss_error": abs(result[0] - loss) / abs(loss), "dq_error": difference.max().item()}


def some_rows(shape: Shape, count: int = 8) -> Tensor:
    """Queries spread over all of them, the first and the last included."""
    return torch.linspace(0, shape.n - 1, min(count, shape.n)).round().long()


def reference_rows(inputs: Inputs, draws: Draws, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of single queries and the gradient of each, in float64, with memory for a chunk of the queue only.

    The gradient of a query's loss by its scores is known, (softmax - [positive]) / temperature; autograd takes it from
    there through mixing and norms.
    """
    tau, k = _temperature(), inputs.shape.k
    x_q = inputs.x_q.detach()[rows].double().requires_grad_()
    q, key = normalize(x_q, dim=1), normalize(inputs.x_k[rows].double(), dim=1)
    if draws.lambda_pos is not None:
        mix = draws.lambda_pos.double()
        mix = mix[rows] if mix.dim() == 2 else mix
        q, key = mix * q + (1 - mix) * key, mix * key + (1 - mix) * q
    positive = (q * key).sum(1)
    weights, summed = [], torch.zeros_like(q)
    with torch.no_grad():
        for mixed in _negatives(inputs, draws):
            weights.append(q @ mixed.T / tau)
        scores = torch.cat([positive[:, None] / tau, *weights], dim=1)
        log_sum = torch.logsumexp(scores, dim=1)
        softmax = torch.exp(scores - log_sum[:, None])
        for start, mixed in zip(range(0, k, CHUNK), _negatives(inputs, draws)):
            summed += softmax[:, 1 + start : 1 + start + len(mixed)] @ mixed
    slope = ((softmax[:, 0] - 1) * positive + (q * summed).sum(1)) / tau
    return log_sum - scores[:, 0], torch.autograd.grad(slope.sum(), x_q)[0]


def _negatives(inputs: Inputs, draws: Draws):
    """The mixed queue in float64, chunk by chunk."""
    for start in range(0, inputs.shape.k, CHUNK):
        own = inputs.queue[start : start + CHUNK].double()
        if draws.permutation is None:
            yield own
            continue
        here = slice(start, start + CHUNK)
        mix = (draws.lambda_neg if draws.lambda_neg.dim() < 2 else draws.lambda_neg[here]).double()
        yield mix * own + (1 - mix) * inputs.queue[draws.permutation[here]].double()


def errors_of_rows(result: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], rows: Tensor) -> dict[str, float]:
    """Of the results of all queries, those of the rows that `expected` has; both errors of the worst row."""
    loss, dq = (values[rows].double() for values in result)
    relative = (loss - expected[0]).abs() / expected[0].abs()
    difference = (dq - expected[1]).norm(dim=1) / expected[1].norm(dim=1)
    return {"loss_error": relative.max().item(), "dq_error": difference.max().item()}
