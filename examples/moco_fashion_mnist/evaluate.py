"""How good an encoder is without training a classifier on it: kNN accuracy on test images that moved."""

import torch
import torch.nn.functional as F

from augment import moved, standardize, to_float

BANK = 10000  # training images with labels that the neighbours are taken from
NEIGHBOURS = 20
WEIGHT_TEMPERATURE = 0.1
MOVE_SEED = 20211013


@torch.no_grad()
def unit_features(encoder, x):
    """[B,1,H,W] in 0..1 -> unit feature rows; the pixels themselves if encoder is None."""
    if encoder is None:
        return F.normalize(x.flatten(1), dim=1)
    encoder.eval()
    rows = [F.normalize(encoder.features(standardize(part)), dim=1) for part in x.split(500)]
    encoder.train()
    return torch.cat(rows)


def knn_predict(bank, bank_labels, queries):
    """The label that wins the vote of the nearest neighbours, each weighted by exp(cosine / temperature)."""
    classes = int(bank_labels.max()) + 1
    predictions = []
    for part in queries.split(1000):
        similarity, index = (part @ bank.T).topk(min(NEIGHBOURS, len(bank)), dim=1)
        votes = torch.zeros(len(part), classes)
        votes.scatter_add_(1, bank_labels[index], (similarity / WEIGHT_TEMPERATURE).exp())
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)


def knn_accuracy(encoder, train, test):
    """Per cent of test images classified right: {"knn": as they are, "knn_moved": after they moved}. The bank stays."""
    bank = unit_features(encoder, to_float(train.images[:BANK]))
    bank_labels, labels = train.labels[:BANK].long(), test.labels.long()
    moved_images = moved(test.images, torch.Generator().manual_seed(MOVE_SEED))
    accuracy = {}
    for name, images in (("knn", to_float(test.images)), ("knn_moved", moved_images)):
        predicted = knn_predict(bank, bank_labels, unit_features(encoder, images))
        accuracy[name] = 100 * (predicted == labels).double().mean().item()
    return accuracy
