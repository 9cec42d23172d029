"""Who computes the adapters' losses, and what they refuse: each in a sentence that names the argument."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings

import pytest
import torch
from other_trainers import example
from support import assert_close, batch, bound, cpu_only, rng_state, set_rng_state

from flashnce.compat import (
    _backend, info_nce, lightly, mem_moco, moco, moco_v3, open_clip, pytorch_metric_learning, sentence_transformers,
    solo, torch_nn,
)  # fmt: skip
from flashnce.torch import FeatureTransform, Queue, ShardedQueue

pytestmark = cpu_only
N, K, D = 24, 80, 12


def negatives():
    return batch(N, K, D)[2]


class Memory:
    """A CrossBatchMemory whose queries and keys are two arguments."""

    def __init__(self, **options):
        loss = pytorch_metric_learning.NTXentLoss(0.2)
        self.memory = pytorch_metric_learning.CrossBatchMemory(loss, D, K, **options)

    def __call__(self, q, k):
        mask = torch.arange(2 * N) >= N
        return self.memory(torch.cat([q, k]), torch.arange(N).repeat(2), enqueue_mask=mask)


# Each makes a callable of q and k, seeded the same way for every backend.
LOSSES = {
    "torch_nn": lambda **o: lambda q, k: torch_nn.InfoNCELoss(temperature=0.2, **o)(q, k, negatives()),
    "info_nce": lambda **o: lambda q, k: info_nce.InfoNCE(**o)(q, k, negatives()),
    "lightly": lambda **o: lightly.NTXentLoss(0.2, (K, D), transform=FeatureTransform(seed=2), **o),
    "pytorch_metric_learning": Memory,
    "torch_nn, in-batch": lambda **o: lambda q, k: torch_nn.InfoNCELoss(temperature=0.2, **o)(q, k),
    "lightly, in-batch": lambda **o: lightly.NTXentLoss(0.2, **o),
    "pytorch_metric_learning, labels": lambda **o: lambda q, k: pytorch_metric_learning.NTXentLoss(0.2, **o)(
        torch.cat([q, k]), torch.arange(N).repeat(2) % 7
    ),
    "open_clip": lambda **o: lambda q, k: open_clip.ClipLoss(**o)(q, k, 5.0),
    "sentence_transformers": lambda **o: lambda q, k: (
        sentence_transformers.MultipleNegativesRankingLoss(None, 5.0, **o).compute_loss_from_embeddings([q, k, k + 1])
    ),
    "moco_v3": lambda **o: lambda q, k: moco_v3.contrastive_loss(q, k, 0.2, **o),
    "solo": lambda **o: lambda q, k: solo.mocov2plus_loss_func(q, k, Queue(K, D), 0.2, **o),
    "solo, a tensor": lambda **o: lambda q, k: solo.mocov2plus_loss_func(q, k, negatives().T.contiguous(), **o),
    "mem_moco": lambda **o: lambda q, k: mem_moco.RGBMoCo_dropmix_norm(D, K, 0.2, "posneg", **o)(q, k)[0],
    "mem_moco, pos": lambda **o: lambda q, k: mem_moco.RGBMoCo_dropmix_norm(D, K, 0.2, "pos", **o)(q, k)[0],
}


def result(name, dtype=torch.float32, **options):
    """Loss and dq, of draws that depend on the name alone."""
    torch.manual_seed(4)
    q, k, _ = batch(N, K, D)
    q, k = torch.nn.functional.normalize(q.detach(), dim=1), torch.nn.functional.normalize(k, dim=1)
    q, k = q.to(dtype).requires_grad_(), k.to(dtype)
    loss = LOSSES[name](**options)(q, k)
    return loss.detach(), torch.autograd.grad(loss, q)[0]


@pytest.mark.parametrize("name", LOSSES)
def test_the_reference_is_the_same_function_and_is_never_taken_in_silence(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused, reference, auto = (result(name, backend=b) for b in ("fused", "reference", "auto"))
    assert all(torch.equal(a, b) for a, b in zip(fused, auto)) and not torch.equal(fused[1], reference[1])
    for a, b, what in zip(fused, reference, ("loss", "dq")):
        assert a.dtype == b.dtype == torch.float32
        assert_close(a, b, bound(0.2, 3.0), what)
    with pytest.raises(TypeError, match="[aq] has type torch.float64"):
        result(name, torch.float64, backend="fused")
    with pytest.warns(RuntimeWarning, match="the features are float64"):
        double = result(name, torch.float64, backend="auto")
    assert double[1].dtype == torch.float64
    assert_close(double[1], reference[1], bound(0.2, 3.0))


def test_accuracy_and_scores_are_those_of_the_reference():
    encoder = example("moco", "../tiny.py")["Encoder"]
    images = torch.randn(2, N, 48, generator=torch.Generator().manual_seed(0))
    found = []
    for backend in ("fused", "reference"):
        torch.manual_seed(1)
        model = moco.MoCo(encoder, D, K, backend=backend, transform=FeatureTransform(seed=3))
        loss, ranks = model(*images)
        q, k = (torch.nn.functional.normalize(x, dim=1) for x in batch(N, K, D)[:2])
        _, score = mem_moco.RGBMoCo_dropmix_norm(D, K, 0.2, "posneg", backend=backend)(q, k, seed=5)
        found.append((loss.detach(), ranks, score.detach()))
    assert torch.equal(found[0][1], found[1][1]) and found[0][1].dtype == torch.int64
    assert_close(found[0][0], found[1][0], bound(0.07, 3.0))
    for column in range(5):
        assert_close(found[0][2][:, column], found[1][2][:, column], 4 * bound(0.2, 3.0), str(column))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_logit_scale_of_any_type_is_the_same_number_for_every_backend(dtype):
    q, k = (torch.nn.functional.normalize(x.detach(), dim=1) for x in batch(N, K, D)[:2])
    scale = torch.tensor(15.9, dtype=dtype)
    fused, reference = (open_clip.ClipLoss(backend=b)(q, k, scale) for b in ("fused", "reference"))
    assert_close(reference, fused, bound(1 / 15.9))


def test_features_that_no_backend_has_are_the_references_with_a_warning():
    assert _backend._chosen("auto", torch.empty(1)) == "fused"
    with pytest.warns(RuntimeWarning, match="the features are on meta"):
        assert _backend._chosen("auto", torch.empty(1, device="meta")) == "reference"


def test_the_reference_draws_what_the_library_draws():
    """Without a seed, too: from the same state of the default generator."""
    q, k, _ = batch(N, K, D)
    state, found = rng_state(), []
    for backend in ("fused", "reference"):
        torch.manual_seed(0)
        loss = mem_moco.RGBMoCo_dropmix_norm(D, K, 0.2, "posneg", backend=backend)
        found.append(loss(q, k)[0].item())
    set_rng_state(state)
    assert found[0] == pytest.approx(found[1], rel=bound(0.2, 20.0))


@pytest.mark.parametrize("seed", [torch.tensor([-3]), 2**64 - 3])
def test_the_reference_reads_a_seed_as_64_bits(seed):
    q, k, _ = batch(N, K, D)
    found = []
    for backend in ("fused", "reference"):
        torch.manual_seed(0)
        loss = mem_moco.RGBMoCo_dropmix_norm(D, K, 0.2, "posneg", backend=backend)
        found.append(loss(q, k, seed=seed)[0].item())
    assert found[0] == pytest.approx(found[1], rel=bound(0.2, 20.0))


@pytest.mark.parametrize("options", [{"empty": True}, {"empty": True, "ids": True}])
def test_empty_slots_are_nobodys_negatives_for_any_backend(options):
    q, k, rows = batch(N, K, D)
    q, k = (torch.nn.functional.normalize(x, dim=1) for x in (q, k.flip(0)))
    queue = Queue(K, D, **options)
    queue.push(rows[: K // 2], torch.arange(K // 2) if queue.named else None)
    fused, reference = (solo.mocov2plus_loss_func(q, k, queue, backend=b) for b in ("fused", "reference"))
    assert_close(fused, reference, bound(0.1))
    full = solo.mocov2plus_loss_func(q, k, queue.queue.T, backend="reference")
    assert full.item() > reference.item() + 0.01


def run(code, **environment):
    command = [sys.executable, "-W", "error", "-c", code]
    environment = os.environ | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_environment_wins_over_every_backend():
    code = (
        "import torch; from flashnce.compat import info_nce\n"
        "q = torch.ones(2, 3, dtype=torch.float64)\n"
        "print(info_nce.InfoNCE(backend='reference').backend, info_nce.info_nce(q, q, q).dtype)"
    )
    assert run(code, FLASHNCE_COMPAT_BACKEND="reference").stdout == "reference torch.float32\n"
    assert "q has type torch.float64" in run(code, FLASHNCE_COMPAT_BACKEND="fused").stderr
    assert "RuntimeWarning: flashnce.compat: the reference" in run(code, FLASHNCE_COMPAT_BACKEND="auto").stderr
    sentence = "FLASHNCE_COMPAT_BACKEND in the environment is 'eager'; it must be one of 'auto', 'fused', 'reference'"
    assert sentence in run(code, FLASHNCE_COMPAT_BACKEND="eager").stderr


q, k = torch.ones(3, D), torch.ones(3, D)
wants = torch.ones(4, D, requires_grad=True)
shards = functools.partial(ShardedQueue, 8, D)
ranking = sentence_transformers.MultipleNegativesRankingLoss
xbm, ntxent = pytorch_metric_learning.CrossBatchMemory, pytorch_metric_learning.NTXentLoss
queries_and_keys = {"enqueue_mask": torch.tensor([False, True, True])}
REFUSED = [
    (NotImplementedError, "negative_mode is 'paired'", lambda: info_nce.InfoNCE(negative_mode="paired")),
    (NotImplementedError, "negative_mode is 'p", lambda: info_nce.info_nce(q, k, q[None], negative_mode="paired")),
    (ValueError, "negative_mode is 'all'", lambda: info_nce.InfoNCE(negative_mode="all")),
    (ValueError, "<query> must have 2 dim", lambda: info_nce.info_nce(q[0], k, q)),
    (ValueError, "<negative_keys> must have 2", lambda: info_nce.info_nce(q, k, q[None])),
    (ValueError, "same number of samples", lambda: info_nce.info_nce(q, k[:2], q)),
    (ValueError, "<query> and <negative_keys>", lambda: info_nce.info_nce(q, k, q[:, :3])),
    (ValueError, "Illegal memory bank size 5", lambda: lightly.NTXentLoss(memory_bank_size=5)),
    (ValueError, r"Illegal memory bank size \(5, 0\)", lambda: lightly.NTXentLoss(memory_bank_size=(5, 0))),
    (ValueError, "Illegal temperature", lambda: lightly.NTXentLoss(0.0, (4, 2))),
    (TypeError, "temprature is no argument", lambda: ntxent(temprature=None)),
    (ValueError, r"out1 has shape \[2, 12\]; it must be that of out0", lambda: lightly.NTXentLoss()(q, k[:2])),
    (ValueError, r"out1 has shape \[3\]", lambda: lightly.NTXentLoss(0.5, (4, D))(q, k[:, 0])),
    (ValueError, r"out0 has shape \[3\]", lambda: lightly.NTXentLoss()(q[:, 0], k)),
    (TypeError, "out1 is a list", lambda: lightly.NTXentLoss()(q, k.tolist())),
    (NotImplementedError, "distance is given", lambda: ntxent(distance=object())),
    (NotImplementedError, "indices_tuple is given", lambda: ntxent()(q, torch.arange(3), (1,))),
    (ValueError, "labels has shape None", lambda: ntxent()(q)),
    (ValueError, "ref_labels has shape", lambda: ntxent()(q, torch.arange(3), None, q, torch.arange(2))),
    (TypeError, "labels has type torch.float32", lambda: ntxent()(q, torch.tensor([0.2, 0.4, 0.2]))),
    (TypeError, "ref_labels has type", lambda: ntxent()(q, torch.arange(3), None, q, torch.tensor([0.2, 0.4, 1]))),
    (NotImplementedError, "transform is given", lambda: lightly.NTXentLoss(transform=FeatureTransform())),
    (NotImplementedError, "world_size is 2", lambda: open_clip.ClipLoss(True, world_size=2)),
    (NotImplementedError, "use_horovod is True", lambda: open_clip.ClipLoss(use_horovod=True)),
    (NotImplementedError, "similarity_fct is given", lambda: ranking(None, similarity_fct=torch.dot)),
    (ValueError, "columns of several processes", lambda: lightly.NTXentLoss(0.5, 0, True, backend="reference")(q, k)),
    (NotImplementedError, "partition_mode is 'per_direction'", lambda: ranking(None, partition_mode="per_direction")),
    (TypeError, "scales is no argument", lambda: ranking(None, scales=2)),
    (ValueError, "scale is 0; it must be above 0", lambda: ranking(None, scale=0)),
    (TypeError, "scale is a str", lambda: ranking(None, scale="20")),
    (ValueError, r"embeddings\[1\] has shape", lambda: ranking(None).compute_loss_from_embeddings([q, k[:2]])),
    (ValueError, r"embeddings\[2\] has shape", lambda: ranking(None).compute_loss_from_embeddings([q, k, k[:, :3]])),
    (ValueError, "logit_scale is 0.0; it must be", lambda: open_clip.ClipLoss(backend="reference")(q, k, 0.0)),
    (ValueError, "text_features has shape", lambda: open_clip.ClipLoss()(q, k[:2], 5.0)),
    (TypeError, "image_features is a list", lambda: open_clip.ClipLoss()([q], k, 5.0)),
    (ValueError, "at least 2 embeddings", lambda: ranking(None).compute_loss_from_embeddings([q])),
    (NotImplementedError, "loss is a Linear", lambda: xbm(torch.nn.Linear(1, 1), D)),
    (NotImplementedError, "miner is given", lambda: xbm(ntxent(), D, miner=object())),
    (NotImplementedError, "enqueue_mask is None", lambda: xbm(ntxent(), D)(q, torch.arange(3))),
    (NotImplementedError, "indices_tuple is given", lambda: xbm(ntxent(), D)(q, torch.arange(3), (1,))),
    (ValueError, "labels has shape", lambda: xbm(ntxent(), D)(q, torch.arange(2), **queries_and_keys)),
    (TypeError, "labels has type torch.float64", lambda: xbm(ntxent(), D)(q, q[:, 0].double(), **queries_and_keys)),
    (ValueError, "enqueue_mask has shape", lambda: xbm(ntxent(), D)(q, torch.arange(3), enqueue_mask=q[:2, 0] > 0)),
    (ValueError, "marks 2 rows; the memory has 1", lambda: xbm(ntxent(), D, 1)(q, torch.arange(3), **queries_and_keys)),
    (NotImplementedError, "occurs 0 times", lambda: xbm(ntxent(), D)(q, torch.arange(3), **queries_and_keys)),
    (NotImplementedError, "occurs 2 times", lambda: xbm(ntxent(), D)(q, torch.zeros(3).long(), **queries_and_keys)),
    (NotImplementedError, "mix_jig is True", lambda: mem_moco.RGBMoCo_dropmix_norm(D, mix_jig=True)),
    (NotImplementedError, "q_jig is given", lambda: mem_moco.RGBMoCo_dropmix_norm(D, 8)(q, k, q_jig=q)),
    (ValueError, "expolation_mask is True", lambda: mem_moco.RGBMoCo_dropmix_norm(D, 8, 0.1, "neg", False, True)),
    (ValueError, "mix_target is 'all'", lambda: mem_moco.RGBMoCo_dropmix_norm(D, mix_target="all")),
    (ValueError, "backend is 'eager'", lambda: info_nce.InfoNCE(backend="eager")),
    (ValueError, "backend is None", lambda: solo.mocov2plus_loss_func(q, k, q.T, backend=None)),
    (ValueError, "negatives is a ShardedQueue", lambda: solo.moco_loss_func(q, k, shards(), backend="reference")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "words", "call"), REFUSED, ids=[words for _, words, _ in REFUSED])
def test_refused(kind, words, call):
    with pytest.raises(kind, match=words):
        call()


def test_a_refused_call_leaves_the_memory_as_it_was():
    memory = xbm(ntxent(), D, 8)
    memory(q, torch.tensor([5, 5, 6]), enqueue_mask=torch.tensor([False, True, True]))
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    for labels in ([7, 8, 9], [5, 5, 9]):
        with pytest.raises(NotImplementedError, match="occurs"):
            memory(q, torch.tensor(labels), **queries_and_keys)
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())
    assert memory.queue_idx == 2
