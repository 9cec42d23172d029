"""Every tensor argument of the PyTorch functions against every kind of wrong tensor, and the other arguments against
values of wrong types: a TypeError or ValueError that names the argument, and nothing is written."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from support import batch
from torch import Tensor

from flashnce.torch import InfoNCE, Mix, Queue, ShardedQueue, info_nce, scores

N, K, D = 6, 32, 8
SHAPES = {
    "q": (N, D), "k": (N, D), "negatives": (K, D), "weight": (N,), "lambda_pos": (N, 1), "lambda_neg": (K, 1),
    "permutation": (K,), "temperature": (1,), "seed": (1,),
}  # fmt: skip
INTEGERS = {"permutation": torch.int32, "seed": torch.int64}
TENSORS = {
    "info_nce": tuple(SHAPES),
    "scores": ("q", "k", "negatives", "temperature"),
    "Queue.push": ("keys",),
    "ShardedQueue.push": ("keys",),
}
# A temperature, a lambda and a seed may be plain numbers, and a missing one is none.
NO_TENSORS = {
    "list": lambda good: good.tolist(), "array": lambda good: good.numpy(), "text": lambda good: "0.5",
    "object": lambda good: object(), "bool": lambda good: True,
}  # fmt: skip


def nested(good: Tensor) -> Tensor:
    return torch.nested.nested_tensor([good, good])


def masked(good: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.masked.masked_tensor(good.float(), torch.ones(good.shape, dtype=torch.bool))


class Distributed(Tensor):
    """As far as it matters here a DTensor, which needs a process group."""

    def to_local(self) -> Tensor:
        return self.as_subclass(Tensor)


WRONG_TENSORS = {
    "one dimension more": lambda good: torch.zeros(3, *good.shape, dtype=good.dtype),
    "a row more": lambda good: good.new_zeros(good.shape[0] + 1, *good.shape[1:]),
    "empty": lambda good: good.new_zeros(0, *good.shape[1:]),
    "another device": lambda good: good.to("meta"),
    "complex": lambda good: good.to(torch.complex64),
    "boolean": lambda good: good.bool(),
    "sparse": lambda good: good.to_sparse(),
    "mkldnn": lambda good: good.float().to_mkldnn(),
    "nested": nested,
    "masked": masked,
    "distributed": lambda good: good.as_subclass(Distributed),
}
# Rows of negatives and of keys may be as many as one likes, also none, and one element may have any shape.
RIGHT = {
    ("negatives", "a row more"), ("negatives", "empty"), ("keys", "a row more"), ("keys", "empty"),
}  # fmt: skip
ARGUMENTS = [(function, name) for function, names in TENSORS.items() for name in names]


def good_of(name: str) -> Tensor:
    if name in INTEGERS:
        return torch.arange(SHAPES[name][0], dtype=INTEGERS[name])
    return torch.full(SHAPES.get(name, (N, D)), 0.5)


def call_of(function: str, name: str, wrong: object) -> tuple[functools.partial, tuple[Tensor, ...]]:
    """The call with one wrong argument, and the tensors that it must not change."""
    if function.endswith("push"):
        queue = Queue(K, D) if function == "Queue.push" else ShardedQueue(K, D, perm_block=16)
        return functools.partial(queue.push, wrong), tuple(queue.buffers())
    arguments = dict(zip(("q", "k", "negatives"), batch(N, K, D)))
    if function == "scores":
        return functools.partial(scores, **arguments | {name: wrong}), ()
    options = {"positive": Mix(2.0, per="row"), "negative": Mix(1.6, per="row"), "seed": 1}
    return functools.partial(info_nce, **arguments | options | {name: wrong}), ()


def check(function: str, name: str, wrong: object) -> None:
    call, tensors = call_of(function, name, wrong)
    before = [x.clone() for x in tensors]
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        call()
    assert all(torch.equal(x, y) for x, y in zip(tensors, before))


@pytest.mark.parametrize(
    ("function", "name", "kind"),
    [(f, name, kind) for f, name in ARGUMENTS for kind in WRONG_TENSORS if (name, kind) not in RIGHT],
)
def test_wrong_tensors(function, name, kind):
    check(function, name, WRONG_TENSORS[kind](good_of(name)))


@pytest.mark.parametrize("kind", NO_TENSORS)
@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_what_is_no_tensor(function, name, kind):
    check(function, name, NO_TENSORS[kind](good_of(name)))


FLAGS = ("normalize", "return_scores", "detach_key")
CHOICES = ("columns", "anchor", "reduction", "rng")
OTHERS = {
    **{name: (1, "yes", 0.5, torch.tensor(True)) for name in FLAGS},
    **{name: (1, "all", b"mean", torch.tensor(1), ["mean"]) for name in CHOICES},
    "positive": (2.0, "ft", (2.0, 1.0)),
    "negative": (2.0, "ft", (2.0, 1.0)),
    "generator": (3, "cpu"),
    "offset": (1.5, "4", None, True, torch.tensor(4.5), -4, 2**63),
    "row_offset": (1.5, "4", None, True, torch.tensor(4.5), -1, 2**32 + 1),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OTHERS.items() for value in values])
def test_the_other_arguments_of_the_loss(name, value):
    check("info_nce", name, value)


MODULE = {name: OTHERS[name] for name in ("positive", "negative", "normalize", "detach_key", *CHOICES)}
MODULE |= {"preset": (1, None, "simclr"), "temperature": ("0.2", None, True, [0.2]), "mix_in_eval": (1, None)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in MODULE.items() for value in values])
def test_the_arguments_of_the_module(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        InfoNCE(**{name: value})


QUEUE = {
    "size": (0, -1, 1.0, "9", None, True), "features": (0, 1.0, None), "dtype": (torch.float64, torch.int32, "float32"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [Queue, ShardedQueue])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in QUEUE.items() for value in values])
def test_the_arguments_of_queues(kind, name, value):
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        kind(**{"size": 9, "features": 4, name: value})


@pytest.mark.parametrize("kind", [Queue, ShardedQueue])
@pytest.mark.parametrize("value", [1, None, "yes"])
def test_normalize_of_a_push(kind, value):
    queue = kind(9, 4)
    with pytest.raises(TypeError, match="normalize"):
        queue.push(torch.ones(2, 4), normalize=value)
    assert queue.position.item() == 0
