"""The losses of other packages by info_nce and clip_loss: values, gradients of both sides, 50 training steps.

Each is restated in float64 from its package's source, which is named. Where a package is installed, its own class is
checked against the restatement; a package's other dependencies need not be there.
"""

from __future__ import annotations

import copy

import pytest
import torch
from other_trainers import module_of
from support import assert_close, bound, generator
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from flashnce.torch import Queue, clip_loss, info_nce

N, D, TAU, STEPS = 24, 16, 0.1, 50


def open_clip(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    """open_clip 3.3, src/open_clip/loss.py, ClipLoss of one process, of unit features as its models return them."""
    logits = normalize(a, dim=1) @ normalize(b, dim=1).T / TAU
    target = torch.arange(len(a))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def lightly(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    """lightly 1.6, lightly/loss/ntx_ent_loss.py, NTXentLoss without a memory bank: SimCLR's."""
    views = normalize(torch.cat([a, b]), dim=1)
    logits = (views @ views.T / TAU).masked_fill(torch.eye(len(views), dtype=torch.bool), -torch.inf)
    return cross_entropy(logits, torch.arange(len(views)).roll(len(a)))


def sentence_transformers(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    """sentence-transformers 6.2, sentence_transformer/losses/multiple_negatives_ranking.py, with a hard negative each:
    the other sentences of the batch, here those of b rolled by 3, whose gradients count as well."""
    documents = torch.cat([b, b.roll(3, 0) + 0.3])
    return cross_entropy(normalize(a, dim=1) @ normalize(documents, dim=1).T / TAU, torch.arange(len(a)))


def pytorch_metric_learning(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    """pytorch-metric-learning 2.9, losses/ntxent_loss.py: each pair of one label against the columns of other labels,
    the mean over the pairs. (Only with its default distance, the cosine, and without a miner.)"""
    rows, labels = normalize(torch.cat([a, b]), dim=1), labels.repeat(2)
    scores, same = rows @ rows.T / TAU, labels[:, None] == labels
    anchors, positives = (same & ~torch.eye(len(rows), dtype=torch.bool)).nonzero(as_tuple=True)
    others = scores[anchors].masked_fill(same[anchors], -torch.inf)
    positive = scores[anchors, positives]
    return (torch.logaddexp(positive, torch.logsumexp(others, 1)) - positive).mean()


def moco_v3(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    """moco-v3 of Facebook Research, moco/builder.py, contrastive_loss of one process: the keys have no gradient."""
    logits = normalize(a, dim=1) @ normalize(b.detach(), dim=1).T / TAU
    return cross_entropy(logits, torch.arange(len(a))) * (2 * TAU)


def our_lightly(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    views, ids = torch.cat([a, b]), torch.arange(len(a)).repeat(2)
    # One id leaves out the row itself and its other view, which is the positive.
    return info_nce(views, torch.cat([b, a]), batch=views, ids=ids, batch_ids=ids, temperature=TAU, detach_key=False)


def our_sentence_transformers(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    ids = torch.arange(len(a))
    documents, no_positives = torch.cat([b, b.roll(3, 0) + 0.3]), torch.full_like(ids, len(a))
    return info_nce(
        a, b, batch=documents, ids=ids, batch_ids=torch.cat([ids, no_positives]), temperature=TAU, detach_key=False
    )


def our_pytorch_metric_learning(a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
    rows, labels = torch.cat([a, b]), labels.repeat(2)
    pairs = ((labels[:, None] == labels) & ~torch.eye(len(rows), dtype=torch.bool)).nonzero(as_tuple=True)
    q, k = (rows[side] for side in pairs)
    options = {"ids": labels[pairs[0]], "batch_ids": labels, "temperature": TAU, "detach_key": False}
    return info_nce(q, k, batch=rows, **options)


PEERS = {
    open_clip: lambda a, b, labels: clip_loss(a, b, logit_scale=1 / TAU),
    lightly: our_lightly,
    sentence_transformers: our_sentence_transformers,
    pytorch_metric_learning: our_pytorch_metric_learning,
    moco_v3: lambda a, b, labels: info_nce(a, b, batch=True, temperature=TAU, detach_key=True) * (2 * TAU),
}
peers = pytest.mark.parametrize(("theirs", "ours"), PEERS.items(), ids=[peer.__name__ for peer in PEERS])


def data() -> tuple[Tensor, Tensor, Tensor]:
    """Two views and labels, of which each is there three times."""
    x = torch.randn(N, D, generator=generator(0))
    return x, x + 0.5 * torch.randn(N, D, generator=generator(1)), torch.arange(N) % (N // 3)


@peers
def test_value_and_gradients(theirs, ours):
    *views, labels = data()
    single, double = ([x.to(dtype).requires_grad_() for x in views] for dtype in (torch.float32, torch.float64))
    loss, expected = ours(*single, labels), theirs(*double, labels)
    # A gradient is as large as 1 / temperature, and so is its error.
    tolerance = 4 * bound(TAU)
    assert_close(loss, expected, tolerance)
    of_both = [torch.autograd.grad(x, y, allow_unused=True) for x, y in ((loss, single), (expected, double))]
    for actual, wanted in zip(*of_both):
        assert (actual is None) == (wanted is None)
        if wanted is not None:
            assert_close(actual, wanted, tolerance)


@peers
def test_fifty_training_steps(theirs, ours):
    """Two towers, one of them trained by its gradient as a column alone where that is what it has."""
    torch.manual_seed(0)
    linear = torch.nn.Linear
    towers = torch.nn.ModuleList(torch.nn.Sequential(linear(D, 32), torch.nn.Tanh(), linear(32, D)) for _ in range(2))
    *views, labels = data()
    histories, models = [], []
    for loss_of, dtype in ((ours, torch.float32), (theirs, torch.float64)):
        model = copy.deepcopy(towers).to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        losses = []
        for _ in range(STEPS):
            loss = loss_of(*(tower(x.to(dtype)) for tower, x in zip(model, views)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        histories.append(losses)
        models.append(torch.cat([x.detach().flatten() for x in model.parameters()]))
    assert histories[1][-1] < 0.7 * histories[1][0]
    # Rounding grows with the steps.
    assert histories[0] == pytest.approx(histories[1], rel=1e-3, abs=1e-4)
    assert_close(models[0], models[1], 1e-3)


def test_the_logq_correction_of_retrieval():
    """A two-tower model's sampled softmax: -log q of each item's probability to be in the batch is added to its logit
    as a negative, as in Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations,
    RecSys 2019 (who add it to the positive's as well, which was not sampled). An item that is twice in the batch is no
    negative of itself."""
    a, b, _ = data()
    items = torch.arange(N) % (N - 4)
    probability = torch.rand(N - 4, generator=generator(2)) + 0.01
    bias = -probability.log()[items]
    full = [x.double().requires_grad_() for x in (a, b)]
    logits = normalize(full[0], dim=1) @ normalize(full[1], dim=1).T / TAU
    same = (items[:, None] == items) & ~torch.eye(N, dtype=torch.bool)
    without_own = bias.double() * (1 - torch.eye(N, dtype=torch.float64))
    expected = cross_entropy((logits + without_own).masked_fill(same, -torch.inf), torch.arange(N))
    single = [x.clone().requires_grad_() for x in (a, b)]
    loss = info_nce(*single, batch=True, ids=items, batch_bias=bias, temperature=TAU)
    assert_close(loss, expected, bound(TAU))
    for actual, wanted in zip(*(torch.autograd.grad(x, y) for x, y in ((loss, single), (expected, full)))):
        assert_close(actual, wanted, 4 * bound(TAU))


def test_a_queue_of_the_same_images_leaves_the_older_copy_of_a_key_out():
    """As in momentum-contrast trainers that keep the image's index beside each key."""
    a, b, _ = data()
    queue, ids = Queue(3 * N, D, ids=True, empty=True), torch.arange(N)
    queue.push(b + 0.1, ids)
    rows = queue.queue[:N].double()
    logits = normalize(a.double(), dim=1) @ rows.T / TAU
    positive = (normalize(a.double(), dim=1) * normalize(b.double(), dim=1)).sum(1, keepdim=True) / TAU
    logits = torch.cat([positive, logits.masked_fill(torch.eye(N, dtype=torch.bool), -torch.inf)], 1)
    expected = cross_entropy(logits, torch.zeros(N, dtype=torch.int64))
    assert_close(info_nce(a, b, queue, ids=ids, temperature=TAU), expected, bound(TAU))


def test_the_restatement_of_open_clip_is_its_loss():
    loss = module_of("open_clip.loss").ClipLoss()
    a, b, labels = (x.double() if x.is_floating_point() else x for x in data())
    assert_close(open_clip(a, b, labels), loss(normalize(a, dim=1), normalize(b, dim=1), 1 / TAU), 1e-12)


def test_the_restatement_of_lightly_is_its_loss():
    loss = module_of("lightly.loss.ntx_ent_loss").NTXentLoss(TAU)
    a, b, labels = (x.double() if x.is_floating_point() else x for x in data())
    assert_close(lightly(a, b, labels), loss(a, b), 1e-12)


def test_the_restatement_of_pytorch_metric_learning_is_its_loss():
    losses = module_of("pytorch_metric_learning.losses")
    a, b, labels = (x.double() if x.is_floating_point() else x for x in data())
    theirs = losses.NTXentLoss(TAU)(torch.cat([a, b]), labels.repeat(2))
    assert_close(pytorch_metric_learning(a, b, labels), theirs, 1e-6)


def test_the_restatement_of_sentence_transformers_is_its_loss():
    module = module_of("sentence_transformers.sentence_transformer.losses.multiple_negatives_ranking")
    a, b, labels = (x.double() if x.is_floating_point() else x for x in data())
    loss = module.MultipleNegativesRankingLoss(torch.nn.Identity(), scale=1 / TAU)
    theirs = loss.compute_loss_from_embeddings([a, b, b.roll(3, 0) + 0.3], labels)
    assert_close(sentence_transformers(a, b, labels), theirs, 1e-12)
