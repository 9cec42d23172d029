"""What tests of a ScoreMeter share: a sink that keeps rows, and a call whose scores a meter takes."""

from __future__ import annotations

from support import batch

from flashnce import Mix
from flashnce.torch import info_nce


class Rows(list):
    """A sink that keeps what it gets."""

    def __init__(self):
        super().__init__()
        self.details = []

    write = list.append

    def write_details(self, details):
        self.details.append(details)

    def close(self):
        pass


def call(n=24, k=80, d=12, seed=0, **options):
    q, key, negatives = batch(n, k, d, seed)
    loss, found = info_nce(q, key, negatives, temperature=0.2, seed=seed, return_scores=True, **options)
    return loss, found, (q, key, negatives)


FT = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6)}
