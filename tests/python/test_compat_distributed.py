"""Adapters on two processes: keys of both enter each queue in rank order, and MoCo's shuffle is undone."""

from __future__ import annotations

import pytest
import torch
from processes import outputs_of

WORKER = """
import gc
import sys
import torch
from torch import nn
from torch.nn.functional import normalize
from flashnce.compat import _rows, lightly, moco, moco_v3, open_clip, sentence_transformers

rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)

x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
q, k = x[rank].clone().requires_grad_(), x[rank] + 1
both = normalize(x.flatten(0, 1) + 1, dim=1)
for gather, expected in ((True, both), (False, normalize(k, dim=1))):
    loss = lightly.NTXentLoss(memory_bank_size=(16, 6), gather_distributed=gather)
    loss(q, k)
    assert torch.equal(loss.memory_bank.queue[: len(expected)], expected)
    assert loss.memory_bank.position.item() == len(expected)


class Encoder(nn.Linear):
    def __init__(self, num_classes):
        super().__init__(6, num_classes)

    def forward(self, x):
        seen.append(x.detach().clone())
        return super().forward(x)


seen = []
torch.manual_seed(0)
model = moco.MoCo(Encoder, 6, 16, m=1.0, T=0.2)
torch.manual_seed(rank)
before = model.queue.queue.clone()
loss, ranks = model(im_q=x[rank], im_k=x[rank] + 1)
# The key encoder has seen images of both ranks, and the keys came back in order.
rows = [[row.tolist() for row in part] for part in (x[0] + 1, x[1] + 1)]
found = [any(row.tolist() in part for row in seen[1]) for part in rows]
keys = normalize(nn.functional.linear(x.flatten(0, 1) + 1, model.encoder_k.weight, model.encoder_k.bias), dim=1)
assert torch.allclose(model.queue.queue[:8], keys, atol=1e-6)
query = normalize(nn.functional.linear(x[rank], model.encoder_q.weight, model.encoder_q.bias), dim=1)
own = keys[4 * rank :][:4]
logits = torch.cat([(query * own).sum(1, keepdim=True), query @ before.T], 1) / 0.2
expected = nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
assert torch.allclose(loss, expected, atol=1e-5), (loss, expected)
assert torch.equal(ranks, (logits[:, 1:] >= logits[:, :1]).sum(1))
# In-batch losses over both processes: the gradient of the sum of their losses, as the packages' gathering has it.
a, b = (torch.randn(8, 6, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (5, 6))


def cross(q, columns, own, tau):
    return nn.functional.cross_entropy(normalize(q, dim=1) @ normalize(columns, dim=1).T / tau, own)


def of_lightly(own, a, b):
    views = torch.cat([a, b])
    logits = normalize(views, dim=1) @ normalize(views, dim=1).T / 0.3
    logits = logits.masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf)
    rows = torch.cat([own, own + 8])
    return nn.functional.cross_entropy(logits[rows], (rows + 8) % 16)


def of_clip(own, a, b, tau=0.2):
    return 0.5 * (cross(a[own], b, own, tau) + cross(b[own], a, own, tau))


half_scale = torch.tensor(15.9, dtype=torch.float16)


def of_clip_with_half_scale(own, a, b):
    return of_clip(own, a, b, 1 / half_scale.double())


def of_ranking(own, a, b):
    return cross(a[own], torch.cat([b, b + 1]), own, 1 / 20)


def of_moco_v3(own, a, b):
    return 2 * 0.2 * cross(a[own], b.detach(), own, 0.2)


def refuses(call, words):
    try:
        call()
    except (RuntimeError, ValueError) as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)


unit = lambda x: normalize(x, dim=1)
clip = open_clip.ClipLoss(True, True, rank=rank, world_size=2)
ranking = sentence_transformers.MultipleNegativesRankingLoss(None, gather_across_devices=True)
of_any_size = (
    (lightly.NTXentLoss(0.3, gather_distributed=True), of_lightly),
    (lambda a, b: clip(unit(a), unit(b), 5.0), of_clip),
    (lambda a, b: clip(unit(a), unit(b), half_scale), of_clip_with_half_scale),
    (lambda a, b: ranking.compute_loss_from_embeddings([a, b, b + 1]), of_ranking),
)
of_equal_sizes = ((lambda a, b: moco_v3.contrastive_loss(a, b, 0.2), of_moco_v3),)
for sizes, pairs in (((4, 4), of_any_size + of_equal_sizes), ((5, 3), of_any_size)):
    parts = torch.arange(8).split(sizes)
    for ours, theirs in pairs:
        leaves = [x[parts[rank]].float().requires_grad_() for x in (a, b)]
        loss = ours(*leaves)
        whole = [x.clone().requires_grad_() for x in (a, b)]
        losses = [theirs(own, *whole) for own in parts]
        assert abs(loss.item() - losses[rank].item()) < 1e-5, (theirs.__name__, sizes)
        expected = torch.autograd.grad(sum(losses), whole, allow_unused=True)
        for actual, wanted in zip(torch.autograd.grad(loss, leaves, allow_unused=True), expected):
            assert (actual is None) == (wanted is None), theirs.__name__
            same = actual is None or torch.allclose(actual, wanted[parts[rank]].float(), atol=1e-5)
            assert same, (theirs.__name__, sizes)

# Where keys of all processes are gathered, each must have as many.
few = a[: 5 - 2 * rank].float().requires_grad_()
bank = lightly.NTXentLoss(memory_bank_size=(16, 6), gather_distributed=True)
refuses(lambda: bank(few, few), "the number of rows of out1 is 3 on rank 1 and 5 on rank 0")
refuses(lambda: moco_v3.contrastive_loss(few, few), "the number of rows of k is 3 on rank 1 and 5 on rank 0")
refuses(lambda: model(im_q=few, im_k=few), "the number of rows of im_k is 3 on rank 1 and 5 on rank 0")

# A rank whose data has ended takes part in no exchange of an adapter.
wrapped = torch.nn.parallel.DistributedDataParallel(nn.Linear(6, 6))
with wrapped.join():
    wrapped(k).sum().backward()
    refuses(lambda: _rows.gathered("k", k), "inside DistributedDataParallel.join()")
del wrapped
gc.collect()
torch.distributed.barrier()
torch.distributed.destroy_process_group()
print("done", rank, *found)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes(tmp_path):
    assert outputs_of(WORKER, tmp_path) == [["done", str(rank), "True", "True"] for rank in range(2)]
