"""CLIP with open_clip's loss and its learned scale, on small data."""

import math
import sys
from pathlib import Path

import torch
from flashnce.compat.open_clip import ClipLoss
from torch import nn
from torch.nn.functional import normalize

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from tiny import Encoder, main, views


def train(steps=50, batch=32, columns=0, features=32):
    torch.manual_seed(0)
    image_encoder, text_encoder = Encoder(features), Encoder(features)
    logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.2)))
    criterion = ClipLoss()
    parameters = [*image_encoder.parameters(), *text_encoder.parameters(), logit_scale]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    losses = []
    for images, texts in views(steps, batch):
        image_features = normalize(image_encoder(images), dim=1)
        text_features = normalize(text_encoder(texts), dim=1)
        loss = criterion(image_features, text_features, logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
