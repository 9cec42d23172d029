"""A trainer as its author writes it, for mypy --strict (test_typing.py); nobody runs it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import flashnce
from flashnce.torch import PRESETS, InfoNCE, Mix, Queue, Scores, ScoreStatistics, ShardedQueue
from flashnce.torch import ignore_queues_in_ddp, info_nce, scores


class Trainer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue | ShardedQueue = Queue(64, 8, dtype=torch.float16)
        self.criterion = InfoNCE(0.2, "ft", negative=Mix(1.6, per="row"))

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        loss: Tensor = self.criterion(q, k, self.queue)
        self.queue.push(k, normalize=True)
        return loss


def step(q: Tensor, k: Tensor, rows: Tensor) -> tuple[float, Tensor]:
    plain: Tensor = info_nce(q, k, rows, temperature=0.1, reduction="mean")
    loss, both = info_nce(q, k, rows, return_scores=True, seed=3)
    kept: Scores = both
    alone: ScoreStatistics = scores(q, k, rows)
    return float(loss + plain), kept.mixed.pos + alone.neg_mean


names: list[str] = ignore_queues_in_ddp(Trainer())
pair: tuple[Mix | None, Mix | None] = PRESETS["ft"]
result = flashnce.info_nce(np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), np.ones((8, 4), np.float32))
lambdas = flashnce.sample_lambda("positive", Mix(1.0), 4, 4, seed=1)
shape: tuple[int, ...] = (result.loss + lambdas).shape
reference: Tensor = flashnce.reference.info_nce(torch.ones(2, 4), torch.ones(2, 4), torch.ones(8, 4))
