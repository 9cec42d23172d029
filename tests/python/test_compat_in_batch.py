"""Adapters of losses whose negatives are the batch, beside what they stand for: loss and gradients over 50 steps."""

from __future__ import annotations

import pytest
import torch
from compat_cases import TEMPERATURES, D, compare
from other_trainers import module_of, peer
from support import assert_close, bound, cpu_only
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from flashnce.compat import info_nce, lightly, moco_v3, open_clip, pytorch_metric_learning, sentence_transformers
from flashnce.compat import torch_nn

pytestmark = cpu_only
temperatures = pytest.mark.parametrize("temperature", TEMPERATURES)


@temperatures
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_info_nce_pytorch(temperature, reduction):
    theirs = peer("info_nce")
    pair = [module.InfoNCE(temperature, reduction) for module in (theirs, info_nce)]
    compare(*pair, temperature)
    # Negatives that an encoder of this step makes, here of the keys.
    compare(*(lambda q, k, one=one: one(q, k, 2 * k.roll(3, 0) + q.roll(1, 0)) for one in pair), temperature)


@temperatures
def test_proposed_for_torch(temperature):
    def proposed(q, k):
        return cross_entropy(normalize(q, dim=1) @ normalize(k, dim=1).T / temperature, torch.arange(len(q)))

    compare(proposed, torch_nn.InfoNCELoss(temperature=temperature), temperature)


@temperatures
def test_lightly_without_a_bank(temperature):
    theirs = peer("lightly.loss")
    compare(*(module.NTXentLoss(temperature) for module in (theirs, lightly)), temperature, sizes=(25, 1, 40))
    own = lightly.NTXentLoss()
    assert own.temperature == theirs.NTXentLoss().temperature and not own.state_dict()


# Two views of each image, classes of many images, and some that nothing else has.
@pytest.mark.parametrize("classes", [2, 7, 1000])
@temperatures
def test_pytorch_metric_learning_with_labels(temperature, classes):
    theirs = peer("pytorch_metric_learning.losses")
    pair = [module.NTXentLoss(temperature) for module in (theirs, pytorch_metric_learning)]
    labels = (torch.arange(32) % 29 % classes).repeat(2)
    compare(*(lambda q, k, one=one: one(torch.cat([q, k]), labels) for one in pair), temperature)
    compare(
        *(lambda q, k, one=one: one(q, labels[:32], ref_emb=k, ref_labels=labels[:32]) for one in pair), temperature
    )


@pytest.mark.parametrize("with_itself", [False, True])
@pytest.mark.parametrize("one_tensor", [False, True])
def test_pytorch_metric_learning_with_one_tensor_of_labels_for_both_sides(one_tensor, with_itself):
    theirs = peer("pytorch_metric_learning.losses")
    labels = torch.arange(32) % 29 % 7
    ref_labels = labels if one_tensor else labels.clone()

    def loss_of(one):
        def loss(q, k):
            both = q + k
            return one(both, labels, ref_emb=both if with_itself else k, ref_labels=ref_labels)

        return loss

    compare(*(loss_of(module.NTXentLoss(0.5)) for module in (theirs, pytorch_metric_learning)), 0.5)


def test_pytorch_metric_learning_without_a_pair():
    theirs = peer("pytorch_metric_learning.losses")
    q = torch.randn(4, D, requires_grad=True)
    for module in (theirs, pytorch_metric_learning):
        loss = module.NTXentLoss()(q, torch.arange(4))
        assert loss.item() == 0 and not torch.autograd.grad(loss, q)[0].any()
    assert pytorch_metric_learning.NTXentLoss().temperature == theirs.NTXentLoss().temperature


@temperatures
@pytest.mark.parametrize("output_dict", [False, True])
def test_open_clip(temperature, output_dict):
    pair = [module.ClipLoss() for module in (module_of("open_clip.loss"), open_clip)]
    gradients = []

    def loss_of(one):
        def loss(q, k):
            scale, bias = torch.tensor(1 / temperature, requires_grad=True), torch.zeros(1, requires_grad=True)
            # open_clip adds the bias to logits in place, where it needs no gradient of the sum.
            value = one(q, k, scale, bias.expand(1), output_dict=output_dict)
            value = value["contrastive_loss"] if output_dict else value
            gradients.append([x.item() for x in torch.autograd.grad(value, (scale, bias), retain_graph=True)])
            return value

        return loss

    compare(loss_of(pair[0]), loss_of(pair[1]), temperature, unit=True)
    for expected, actual in zip(gradients[::2], gradients[1::2]):
        assert_close(torch.tensor(actual[0]), torch.tensor(expected[0]), 4 * bound(temperature))
        assert actual[1] == 0 and abs(expected[1]) < 1e-6


class Sentences(nn.Module):
    """A model of sentences whose features are their embeddings."""

    def forward(self, features):
        return {"sentence_embedding": features["x"]}


@temperatures
@pytest.mark.parametrize("hard", [0, 2])
def test_sentence_transformers(temperature, hard):
    name = "sentence_transformers.sentence_transformer.losses.multiple_negatives_ranking"
    pair = [
        module.MultipleNegativesRankingLoss(Sentences(), 1 / temperature)
        for module in (module_of(name), sentence_transformers)
    ]

    def loss_of(one):
        def loss(q, k):
            texts = [q, k, *(k.roll(i + 1, 0) + 0.5 * q for i in range(hard))]
            if one is pair[1]:
                return one([{"x": x} for x in texts], None)
            return one.compute_loss_from_embeddings(texts, None)

        return loss

    compare(*map(loss_of, pair), temperature)
    assert pair[1].scale == pytest.approx(1 / temperature)


@temperatures
def test_moco_v3(temperature):
    def theirs(q, k):
        """moco/builder.py, MoCo.contrastive_loss, of one process."""
        logits = torch.einsum("nc,mc->nm", [normalize(q, dim=1), normalize(k, dim=1)]) / temperature
        return nn.CrossEntropyLoss()(logits, torch.arange(len(q))) * (2 * temperature)

    own = lambda q, k: moco_v3.contrastive_loss(q, k, temperature)  # noqa: E731
    compare(theirs, own, temperature, key_gradient=False, sizes=(25, 1, 40))
