"""Errors against the same step in float64, flashnce.reference.info_nce, with the same draws."""

from __future__ import annotations

import torch
from flashnce import reference
from torch import Tensor

from .steps import TEMPERATURE, Draws, Inputs

ROWS = 128  # of queries at a time: float64 scores of all of them would take gigabytes


def _rows(value: Tensor | None, start: int) -> Tensor | None:
    """Of lambda of the positives, where there is one per row."""
    return value if value is None or value.dim() < 2 else value[start : start + ROWS]


def reference_step(inputs: Inputs, draws: Draws) -> tuple[float, Tensor]:
    """Loss and dq in float64."""
    n = inputs.shape.n
    loss, gradients = 0.0, []
    # The library takes the temperature as float32.
    temperature = torch.tensor(TEMPERATURE, dtype=torch.float32).double().item()
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
