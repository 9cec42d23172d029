"""A small convolutional encoder for 28x28 grey images, and MoCo's momentum copy of it."""

import copy

import torch
from torch import nn

FEATURES = 512  # 128 channels on 2x2 cells: with one cell only, kNN falls below raw pixels
EMBEDDING = 64


class Encoder(nn.Module):
    """[B,1,28,28] -> [B,64] embedding (not normalised: the loss does that); `features` gives the [B,512] before it."""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs in ((1, 32), (32, 64), (64, 128)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(inplace=True), nn.Linear(128, EMBEDDING))

    def features(self, x):
        return self.backbone(x)

    def forward(self, x):
        return self.head(self.backbone(x))


def momentum_copy(encoder):
    """The key encoder: starts equal, is never trained by gradients."""
    return copy.deepcopy(encoder).requires_grad_(False)


@torch.no_grad()
def update_momentum(key_encoder, query_encoder, momentum):
    """key <- momentum * key + (1 - momentum) * query, for the parameters; batch norm keeps its own statistics."""
    for key, query in zip(key_encoder.parameters(), query_encoder.parameters()):
        key.lerp_(query, 1 - momentum)
