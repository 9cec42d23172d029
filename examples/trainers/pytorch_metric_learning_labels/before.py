"""Contrastive training with pytorch-metric-learning's loss and a label for each image, on small data."""

import sys
from pathlib import Path

import torch
from pytorch_metric_learning.losses import NTXentLoss

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from tiny import Encoder, main, views


def train(steps=50, batch=32, columns=0, features=32):
    torch.manual_seed(0)
    encoder = Encoder(features)
    criterion = NTXentLoss(temperature=0.2)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    # One label for both views of an image.
    labels = torch.arange(batch).repeat(2)
    losses = []
    for first, second in views(steps, batch):
        loss = criterion(encoder(torch.cat([first, second])), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
