"""Each adapter of flashnce.compat beside what it stands for: loss, gradients and state, over 50 steps."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from compat_cases import STEPS, TEMPERATURES, D, compare, features, leaves
from other_trainers import example, peer
from support import BACKENDS, assert_close, bound, cpu_only
from torch.nn.functional import cross_entropy, normalize

import flashnce
from flashnce.compat import info_nce, lightly, mem_moco, moco, pytorch_metric_learning, solo, torch_nn
from flashnce.torch import FeatureTransform

# Rows that each side divides by their norms: a rounding of the norm and one of the quotient, on both sides.
ROW = 4 * 2.0**-24
pytestmark = cpu_only


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_info_nce_pytorch(temperature, reduction):
    theirs = peer("info_nce")
    negatives = torch.randn(100, D, generator=torch.Generator().manual_seed(1))
    pair = [module.InfoNCE(temperature, reduction) for module in (theirs, info_nce)]
    compare(*(lambda q, k, one=one: one(q, k, negatives) for one in pair), temperature)


def test_info_nce_pytorch_has_the_defaults_of_the_package():
    theirs = peer("info_nce")
    negatives = 3 * torch.randn(100, D, generator=torch.Generator().manual_seed(1))
    compare(*(lambda q, k, m=m: m.InfoNCE()(q, k, negatives) for m in (theirs, info_nce)), 0.1)
    compare(*(lambda q, k, m=m: m.info_nce(q, k, negatives) for m in (theirs, info_nce)), 0.1)
    names = ("temperature", "reduction", "negative_mode")
    assert [getattr(info_nce.InfoNCE(), name) for name in names] == [getattr(theirs.InfoNCE(), name) for name in names]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_proposed_for_torch(temperature, reduction):
    # The softmax classification form of pytorch#195380: all are unit vectors, column 0 is the positive.
    def proposed(q, k):
        q, k, z = normalize(q, dim=1), normalize(k, dim=1), normalize(negatives, dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ z.T], 1) / temperature
        return cross_entropy(logits, torch.zeros(len(q), dtype=torch.long), reduction=reduction)

    negatives = torch.randn(100, D, generator=torch.Generator().manual_seed(1))
    loss = torch_nn.InfoNCELoss(temperature=temperature, reduction=reduction)
    compare(proposed, lambda q, k: loss(q, k, negatives), temperature)


# Batches that divide a bank of 100 rows, that do not, and that are larger than it.
@pytest.mark.parametrize("sizes", [(25,), (32, 20), (7, 130)])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_lightly(temperature, sizes):
    theirs = peer("lightly.loss")
    pair = []
    for module in (theirs, lightly):
        torch.manual_seed(3)
        pair.append(module.NTXentLoss(temperature, (100, D)))
    after_init = torch.rand(1)

    def same_bank():
        bank, queue = pair[0].memory_bank, pair[1].memory_bank
        assert torch.equal(queue.queue, bank.bank) and queue.position.item() == bank.bank_ptr.item()

    same_bank()
    torch.manual_seed(3)
    theirs.NTXentLoss(temperature, (100, D))
    assert torch.equal(torch.rand(1), after_init), "the adapter draws more than the package"
    compare(*pair, temperature, sizes=sizes, after=same_bank)
    with torch.no_grad():
        q, k = next(features())
        assert_close(pair[1](q, k), pair[0](q, k), bound(temperature))
    same_bank()
    assert lightly.NTXentLoss(memory_bank_size=(4, 2)).temperature == theirs.NTXentLoss().temperature


def test_lightly_state_with_and_without_a_bank():
    first, second = (lightly.NTXentLoss(memory_bank_size=(8, D)) for _ in range(2))
    first(*leaves(*next(features((3,))), False))
    model = torch.nn.ModuleDict({"criterion": second})
    assert not any(model.load_state_dict({"criterion." + name: x for name, x in first.state_dict().items()}))
    assert second.memory_bank.position.item() == 3 and torch.equal(second.memory_bank.queue, first.memory_bank.queue)
    model.load_state_dict({})
    assert second.memory_bank.position.item() == 3
    with pytest.raises(RuntimeError, match="memory_bank.position"):
        model.load_state_dict({"criterion.memory_bank.queue": first.memory_bank.queue})


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_pytorch_metric_learning(temperature):
    theirs = peer("pytorch_metric_learning.losses")
    both = (theirs, pytorch_metric_learning)
    pair = [module.CrossBatchMemory(module.NTXentLoss(temperature), D, memory_size=100) for module in both]
    step = [0, 0]

    def loss_of(which):
        def loss(q, k):
            n, start = len(q), step[which]
            step[which] += n
            # Queries and keys in any order.
            order = torch.randperm(2 * n, generator=torch.Generator().manual_seed(start))
            labels, mask = torch.arange(start, start + n).repeat(2)[order], (torch.arange(2 * n) >= n)[order]
            return pair[which](torch.cat([q, k])[order], labels, enqueue_mask=mask)

        return loss

    def same_memory():
        memory, own = pair
        expected = normalize(memory.embedding_memory, dim=1)[: own.filled]
        assert_close(own.embedding_memory.queue[: own.filled], expected, ROW)
        assert torch.equal(own.label_memory, memory.label_memory)
        assert (own.queue_idx, own.has_been_filled) == (memory.queue_idx, memory.has_been_filled)
        assert own.embedding_memory.position.item() == own.queue_idx

    options = {"key_gradient": False, "after": same_memory}
    compare(loss_of(0), loss_of(1), temperature, sizes=(32, 20), **options)
    # A state of the adapter continues where it was, which one of the package does not.
    other = pytorch_metric_learning.CrossBatchMemory(pytorch_metric_learning.NTXentLoss(temperature), D, 100)
    other.load_state_dict(pair[1].state_dict())
    pair[1], step[0] = other, step[1]
    compare(loss_of(0), loss_of(1), temperature, **options)
    other.reset_queue()
    assert other.queue_idx == other.filled.item() == 0 and not other.has_been_filled


def test_pytorch_metric_learning_where_scores_are_far_apart():
    # exp of a loss is beyond float32 here: each key is the other query.
    temperature, q = 0.02, torch.eye(2, D)[:1] * torch.tensor([[1.0], [-1.0]])
    q.requires_grad_()
    memory = pytorch_metric_learning.CrossBatchMemory(pytorch_metric_learning.NTXentLoss(temperature), D, 100)
    loss = memory(torch.cat([q, -q]), torch.tensor([0, 1, 0, 1]), enqueue_mask=torch.arange(4) >= 2)
    expected = cross_entropy(q.double() @ -q.double().T / temperature, torch.arange(2))
    assert expected > 99
    assert_close(loss, expected, bound(temperature))
    assert torch.isfinite(*torch.autograd.grad(loss, q)).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", ["tensor", "queue"])
def test_solo_learn(temperature, kind):
    theirs = example("solo_learn", "solo_code.py")["mocov2plus_loss_func"]
    torch.manual_seed(3)
    rings = normalize(torch.randn(2, D, 96), dim=1)
    torch.manual_seed(3)
    queues, at = solo.MoCoV2PlusQueue(D, 96), 0
    model = torch.nn.Module()
    model.queue = solo.MoCoV2PlusQueue(D, 96)
    model.load_state_dict({"queue": rings, "queue_ptr": torch.zeros(1, dtype=torch.long)})

    def symmetric(loss_func, of):
        return lambda q, k: (loss_func(q, k, of(1), temperature) + loss_func(k, q.detach(), of(0), temperature)) / 2

    def push():
        nonlocal at
        keys = normalize(torch.randn(2, 32, D), dim=2)
        rings[:, :, at : at + 32] = keys.permute(0, 2, 1)
        at = (at + 32) % 96
        queues.dequeue_and_enqueue(keys)
        for ring, queue in zip(rings, queues):
            assert torch.equal(queue.queue, ring.T) and queue.position.item() == at

    for ring, *both in zip(rings, queues, model.queue):
        assert all(torch.equal(queue.queue, ring.T) for queue in both)
    own = {"tensor": lambda i: rings[i], "queue": lambda i: queues[i]}[kind]
    compare(
        symmetric(theirs, lambda i: rings[i].clone()), symmetric(solo.mocov2plus_loss_func, own), temperature,
        unit=True, after=push,
    )  # fmt: skip


@pytest.mark.parametrize("mlp", [False, True])
def test_moco(mlp):
    theirs = example("moco", "moco_code.py")
    tiny = example("moco", "../tiny.py")
    encoder = tiny["Encoder"]
    pair = []
    for make in (theirs["MoCo"], moco.MoCo):
        torch.manual_seed(3)
        pair.append(make(encoder, D, 96, m=0.9, T=0.2, **({"mlp": mlp} if make is moco.MoCo and mlp else {})))
    if mlp:
        for key, width in (("encoder_q", 64), ("encoder_k", 64)):
            head = getattr(pair[1], key).fc
            assert [type(part).__name__ for part in head] == ["Linear", "ReLU", "Linear"]
            assert head[0].weight.shape == (width, width) and head[0].weight.requires_grad == (key == "encoder_q")
        return
    optimizers = [torch.optim.SGD(one.encoder_q.parameters(), lr=0.1) for one in pair]
    hits = set()
    for x_q, x_k in tiny["views"](STEPS, 32):
        output, target = pair[0](im_q=x_q, im_k=x_k)
        loss, ranks = pair[1](im_q=x_q, im_k=x_k)
        expected = cross_entropy(output, target)
        assert_close(loss, expected, bound(0.2), "loss")
        accuracies = [theirs["accuracy"](output, target, topk=(1, 5)), moco.accuracy(ranks, topk=(1, 5))]
        assert [x.item() for x in accuracies[0]] == [x.item() for x in accuracies[1]]
        hits.add(accuracies[1][0].item())
        for one, optimizer, value in zip(pair, optimizers, (expected, loss)):
            optimizer.zero_grad()
            value.backward()
        for p, own in zip(pair[0].encoder_q.parameters(), pair[1].encoder_q.parameters()):
            assert_close(own.grad, p.grad, 10 * bound(0.2), "gradient")
        for optimizer in optimizers:
            optimizer.step()
        for p, own in zip(pair[0].parameters(), pair[1].parameters()):
            assert_close(own, p, 10 * bound(0.2), "parameter")
        assert_close(pair[1].queue.queue, pair[0].queue.T, 10 * bound(0.2), "queue")
        assert pair[1].queue.position.item() == pair[0].queue_ptr.item()
    assert len(hits) > 3 and 0 < max(hits)
    pair[1].load_state_dict(pair[0].state_dict())
    assert torch.equal(pair[1].queue.queue, pair[0].queue.T)


SEPARATE = {"mix_target": "posneg", "mask_distribution": "beta", "sep_alpha": True}
AUTHORS = [
    {"mix_target": "pos"},
    {"mix_target": "neg", "mask_distribution": "beta", "alpha": 0.8},
    {"mix_target": "posneg", "expolation_mask": True},
    SEPARATE | {"dim_mask": "none", "expolation_mask": True},
    SEPARATE | {"dim_mask": "pos", "expolation_mask": True},
    SEPARATE | {"dim_mask": "neg", "postmix_norm": True, "expolation_mask": True},
    SEPARATE | {"pos_alpha": 0.4, "neg_alpha": 3.0},
    {"mix_target": "neg", "postmix_norm": True},
]


def shape_of_mask(side, options, rows):
    """How many numbers the authors draw (memory/mem_moco.py, RGBMoCo_dropmix_norm.forward)."""
    scalar = {"none": ("pos", "neg"), "pos": ("neg",), "neg": ("pos",), "both": ()}[options.get("dim_mask", "both")]
    return (1,) if options.items() >= SEPARATE.items() and side in scalar else (rows, D)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("options", AUTHORS)
def test_authors_of_the_feature_transformation(temperature, options):
    torch.manual_seed(3)
    memory = normalize(torch.randn(96, D))
    torch.manual_seed(3)
    own, at, step = mem_moco.RGBMoCo_dropmix_norm(D, 96, temperature, **options), 0, [0, 0]
    scores = [None, None]
    assert torch.equal(own.memory.queue, memory)

    def authors(q, k):
        """Their forward, with the numbers that the library draws."""
        queue, seed = memory.clone(), step[0]
        step[0] += 1
        if "pos" in options["mix_target"]:
            mask = torch.from_numpy(flashnce.sample_lambda("positive", own.positive, len(q), D, seed=seed))
            assert mask.shape == shape_of_mask("pos", options, len(q))
            assert (mask >= 1).all() == options.get("expolation_mask", False)
            q, k = mask * q + (1 - mask) * k, mask * k + (1 - mask) * q
        if "neg" in options["mix_target"]:
            mask = torch.from_numpy(flashnce.sample_lambda("negative", own.negative, 96, D, seed=seed))
            assert mask.shape == shape_of_mask("neg", options, 96)
            order = torch.from_numpy(flashnce.permutation(96, seed=seed).astype(np.int64))
            queue = mask * queue + (1 - mask) * queue[order]
        if options.get("postmix_norm"):
            q, k = normalize(q, dim=1), normalize(k, dim=1)
        pos, neg = (q * k).sum(1, keepdim=True), q @ queue.T
        parts = (neg.mean(1, True), neg.var(1, keepdim=True), pos, (neg / temperature).exp().mean(1, True))
        scores[0] = torch.cat([*parts, (pos / temperature).exp()], 1)
        return cross_entropy(torch.cat([pos, neg], 1) / temperature, torch.zeros(len(q), dtype=torch.long))

    def adapter(q, k):
        loss, scores[1] = own(q, k, all_k=k if step[1] % 2 else None, seed=step[1])
        step[1] += 1
        last.append(k)
        return loss

    last = []

    def after():
        nonlocal at
        memory[(torch.arange(32) + at) % 96] = last[-1]
        at = (at + 32) % 96
        assert torch.equal(own.memory.queue, memory) and own.memory.position.item() == at
        for column, (expected, actual) in enumerate(zip(scores[0].T, scores[1].T)):
            assert_close(actual, expected, 4 * bound(temperature, 3.0), f"score {column}")

    compare(authors, adapter, temperature, key_gradient=False, unit=True, after=after)
    q, k = (normalize(x, dim=1) for x in next(features()))
    plain = mem_moco.RGBMoCo_dropmix_norm(D, 96, temperature, **options)
    plain.load_state_dict({"memory": memory})
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ memory.T], 1) / temperature
    expected = cross_entropy(logits, torch.zeros(32, dtype=torch.long))
    assert_close(plain(q, k, mix_now=False)[0], expected, bound(temperature))


@pytest.mark.parametrize("backend", BACKENDS)
def test_adapters_compile_without_a_break(backend):
    torch._dynamo.reset()
    encoder = example("moco", "../tiny.py")["Encoder"]
    torch.manual_seed(0)
    modules = {
        "lightly": lightly.NTXentLoss(0.2, (20, D), transform=FeatureTransform(start=1, seed=3)),
        "moco": moco.MoCo(encoder, D, 20, T=0.2),
        "mem_moco": mem_moco.RGBMoCo_dropmix_norm(D, 20, 0.2, "posneg"),
    }
    for name, eager in modules.items():
        one = copy.deepcopy(eager)
        compiled = torch.compile(one, fullgraph=True, backend=backend)
        for step in range(3):
            q, k = (torch.randn(8, 48 if name == "moco" else D) for _ in range(2))
            given = {"seed": torch.tensor([step])} if name == "mem_moco" else {}
            results = [function(q.clone().requires_grad_(), k, **given) for function in (eager, compiled)]
            for expected, actual in zip(*(r if isinstance(r, tuple) else (r,) for r in results)):
                torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
            for expected, actual in zip(eager.buffers(), one.buffers()):
                torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
            if name == "lightly":
                eager.transform.step()
                one.transform.step()
