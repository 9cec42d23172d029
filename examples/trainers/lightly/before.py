"""MoCo with lightly's loss and its memory bank, as in lightly's examples, on small data."""

import sys
from pathlib import Path

import torch
from lightly.loss import NTXentLoss

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from tiny import Encoder, follow, key_encoder_of, main, views


def train(steps=50, batch=32, columns=256, features=32):
    torch.manual_seed(0)
    encoder = Encoder(features)
    key_encoder = key_encoder_of(encoder)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(columns, features))
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for x_query, x_key in views(steps, batch):
        follow(key_encoder, encoder)
        loss = criterion(encoder(x_query), key_encoder(x_key))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
