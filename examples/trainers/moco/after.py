"""The loop of facebookresearch/moco's main_moco.py on small data."""

import sys
from pathlib import Path

import torch

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from flashnce.compat.moco import MoCo, accuracy
from tiny import Encoder, main, views


def train(steps=50, batch=32, columns=256, features=32, show=lambda acc1, acc5: None):
    torch.manual_seed(0)
    model = MoCo(Encoder, features, columns, m=0.99, T=0.2)
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for images in views(steps, batch):
        loss, ranks = model(im_q=images[0], im_k=images[1])
        acc1, acc5 = accuracy(ranks, topk=(1, 5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        show(acc1.item(), acc5.item())
    return losses


if __name__ == "__main__":
    main(train)
