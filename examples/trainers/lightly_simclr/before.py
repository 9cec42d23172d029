"""SimCLR with lightly's loss without a memory bank, as in lightly's examples, on small data."""

import sys
from pathlib import Path

import torch
from lightly.loss import NTXentLoss

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from tiny import Encoder, main, views


def train(steps=50, batch=32, columns=0, features=32):
    torch.manual_seed(0)
    encoder = Encoder(features)
    criterion = NTXentLoss(temperature=0.2)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for first, second in views(steps, batch):
        loss = criterion(encoder(first), encoder(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
