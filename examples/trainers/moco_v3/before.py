"""MoCo v3's loss of both views against the keys of the batch, on small data."""

import sys
from pathlib import Path

import torch

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from moco_v3_code import contrastive_loss
from tiny import Encoder, follow, key_encoder_of, main, views


def train(steps=50, batch=32, columns=0, features=32):
    torch.manual_seed(0)
    encoder = Encoder(features)
    key_encoder = key_encoder_of(encoder)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for first, second in views(steps, batch):
        follow(key_encoder, encoder)
        q1, q2, k1, k2 = encoder(first), encoder(second), key_encoder(first), key_encoder(second)
        loss = contrastive_loss(q1, k2, 0.2) + contrastive_loss(q2, k1, 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
