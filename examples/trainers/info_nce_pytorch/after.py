"""A loop with info-nce-pytorch's loss and a ring of keys that the trainer keeps itself, on small data."""

import sys
from pathlib import Path

import torch
from flashnce.compat.info_nce import InfoNCE

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from tiny import Encoder, follow, key_encoder_of, main, views


def train(steps=50, batch=32, columns=256, features=32):
    torch.manual_seed(0)
    encoder = Encoder(features)
    key_encoder = key_encoder_of(encoder)
    criterion = InfoNCE(temperature=0.2)
    ring = torch.randn(columns, features)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step, (x_query, x_key) in enumerate(views(steps, batch)):
        follow(key_encoder, encoder)
        key = key_encoder(x_key)
        loss = criterion(encoder(x_query), key, ring)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ring[torch.arange(step * batch, (step + 1) * batch) % columns] = key
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
