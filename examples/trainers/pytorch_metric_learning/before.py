"""MoCo with pytorch-metric-learning's cross-batch memory, as in that package's MoCo example, on small data."""

import sys
from pathlib import Path

import torch
from pytorch_metric_learning.losses import CrossBatchMemory, NTXentLoss

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from tiny import Encoder, follow, key_encoder_of, main, views


def train(steps=50, batch=32, columns=256, features=32):
    torch.manual_seed(0)
    encoder = Encoder(features)
    key_encoder = key_encoder_of(encoder)
    criterion = CrossBatchMemory(NTXentLoss(temperature=0.2), features, memory_size=columns)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    keys_of_both = torch.cat([torch.zeros(batch, dtype=torch.bool), torch.ones(batch, dtype=torch.bool)])
    losses = []
    for step, (x_query, x_key) in enumerate(views(steps, batch)):
        follow(key_encoder, encoder)
        embeddings = torch.cat([encoder(x_query), key_encoder(x_key)])
        labels = torch.arange(step * batch, (step + 1) * batch).repeat(2)
        loss = criterion(embeddings, labels, enqueue_mask=keys_of_both)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
