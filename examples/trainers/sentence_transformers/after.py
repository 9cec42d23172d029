"""Retrieval with sentence-transformers' loss and a hard negative for each anchor, on small data."""

import sys
from pathlib import Path

import torch
from flashnce.compat.sentence_transformers import MultipleNegativesRankingLoss
from torch import nn

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])
from tiny import Encoder, main, views


class Sentences(nn.Module):
    """A sentence encoder: features in, embeddings out, as a SentenceTransformer."""

    def __init__(self, features):
        super().__init__()
        self.encoder = Encoder(features)

    def forward(self, features):
        return features | {"sentence_embedding": self.encoder(features["x"])}


def train(steps=50, batch=32, columns=0, features=32):
    torch.manual_seed(0)
    model = Sentences(features)
    criterion = MultipleNegativesRankingLoss(model, scale=5.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for anchors, positives in views(steps, batch):
        # The positive of another row, moved, is a hard negative.
        triplet = [{"x": x} for x in (anchors, positives, positives.roll(1, 0) + 0.1)]
        loss = criterion(triplet, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(train)
