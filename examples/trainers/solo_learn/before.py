"""solo-learn's MoCoV2Plus (solo/methods/mocov2plus.py), two queues and a symmetric loss, on small data."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from solo_code import mocov2plus_loss_func
from tiny import Encoder, follow, key_encoder_of, main, views


class MoCoV2Plus(nn.Module):
    def __init__(self, proj_output_dim, queue_size, temperature):
        super().__init__()
        self.queue_size, self.temperature = queue_size, temperature
        self.encoder = Encoder(proj_output_dim)
        self.momentum_encoder = key_encoder_of(self.encoder)
        self.register_buffer("queue", torch.randn(2, proj_output_dim, queue_size))
        self.queue = nn.functional.normalize(self.queue, dim=1)
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys):
        ptr, batch_size = int(self.queue_ptr), keys.shape[1]
        self.queue[:, :, ptr : ptr + batch_size] = keys.permute(0, 2, 1)
        self.queue_ptr[0] = (ptr + batch_size) % self.queue_size

    def training_step(self, x1, x2):
        follow(self.momentum_encoder, self.encoder)
        q1, q2 = (normalize(self.encoder(x), dim=-1) for x in (x1, x2))
        k1, k2 = (normalize(self.momentum_encoder(x), dim=-1) for x in (x1, x2))
        queue = self.queue.clone().detach()
        nce_loss = (
            mocov2plus_loss_func(q1, k2, queue[1], self.temperature)
            + mocov2plus_loss_func(q2, k1, queue[0], self.temperature)
        ) / 2
        self._dequeue_and_enqueue(torch.stack((k1, k2)))
        return nce_loss


def train(steps=50, batch=32, columns=256, features=32):
    torch.manual_seed(0)
    model = MoCoV2Plus(features, columns, temperature=0.2)
    optimizer = torch.optim.SGD(model.encoder.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for x1, x2 in views(steps, batch):
        loss = model.training_step(x1, x2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
