"""The peers written in PyTorch and NumPy: the loss of a step and its gradient in q, as a user without this library
writes it.

A peer is an object with `step()`, the timed training step, which draws anew each time, and `result(draws)`, the loss
and the gradient with given draws, which the errors come from. `transformation` is the preset that it computes; None: no
loss at all.
"""

from __future__ import annotations

import shutil
import time
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import cross_entropy, normalize

TEMPERATURE = 0.07
ALPHA_POS, SHIFT_POS, ALPHA_NEG = 2.0, 1.0, 1.6  # those of the presets


@dataclass(frozen=True)
class Shape:
    """N queries, K negatives, D features."""

    n: int
    k: int
    d: int

    @staticmethod
    def parse(text: str) -> Shape:
        sizes = [int(part) for part in text.split("x")]
        if len(sizes) != 3 or min(sizes) < 1:
            raise ValueError(f"shape is {text!r}; it must be NxKxD, such as 256x65536x128")
        return Shape(*sizes)


class Inputs:
    """Raw queries, keys near them, a queue of unit rows; `x_q` requires a gradient."""

    def __init__(self, shape: Shape) -> None:
        generator = torch.Generator().manual_seed(1)
        self.shape = shape
        self.x_q = torch.randn(shape.n, shape.d, generator=generator)
        self.x_k = self.x_q + 0.5 * torch.randn(shape.n, shape.d, generator=generator)
        self.queue = normalize(torch.randn(shape.k, shape.d, generator=generator), dim=1)
        self.x_q.requires_grad_()
        self.others: dict[torch.dtype, Inputs] = {}

    def of_type(self, dtype: torch.dtype) -> Inputs:
        """The same numbers rounded to another element type; kept, so that all peers of a type share them."""
        if dtype == self.queue.dtype:
            return self
        if dtype not in self.others:
            other = copy(self)
            other.x_q, other.x_k, other.queue = (x.detach().to(dtype) for x in (self.x_q, self.x_k, self.queue))
            other.others = {}
            self.others[dtype] = other
        return self.others[dtype]

    def with_queue(self, queue: Tensor) -> Inputs:
        """The same with the queue in other memory."""
        other = copy(self)
        other.queue, other.others = queue, {}
        return other


@dataclass
class Draws:
    """Explicit randomness of a step: lambda of equations (2) and (3) with any shift added, the permutation (int64)."""

    lambda_pos: Tensor | None = None
    lambda_neg: Tensor | None = None
    permutation: Tensor | None = None


class Gemms:
    """The two matrix products of a step and nothing else: scores [N,K], then scores times the queue. No loss."""

    transformation = None

    def result(self, draws: Draws):
        raise NotImplementedError("two matrix products have no loss")


class TorchGemms(Gemms):
    """In the inputs' element type. `scores`: memory for them that is shared with others."""

    def __init__(self, inputs: Inputs, scores: Tensor | None = None) -> None:
        n, k, d = inputs.shape.n, inputs.shape.k, inputs.shape.d
        self.q, self.queue = inputs.x_q.detach(), inputs.queue
        self.scores = torch.zeros(n, k, dtype=self.q.dtype) if scores is None else scores
        self.out = torch.zeros(n, d, dtype=self.q.dtype)

    def step(self) -> None:
        torch.mm(self.q, self.queue.T, out=self.scores)
        torch.mm(self.scores, self.queue, out=self.out)


class NumpyGemms(Gemms):
    def __init__(self, inputs: Inputs, scores: Tensor | None = None) -> None:
        n, k, d = inputs.shape.n, inputs.shape.k, inputs.shape.d
        self.q, self.queue = inputs.x_q.detach().numpy(), inputs.queue.numpy()
        self.scores = np.zeros((n, k), np.float32) if scores is None else scores.numpy()
        self.out = np.zeros((n, d), np.float32)

    def step(self) -> None:
        np.matmul(self.q, self.queue.T, out=self.scores)
        np.matmul(self.scores, self.queue, out=self.out)


SENSIBLE = 4  # times float32's: GEMMs of a type that are slower have no kernels for it on this processor


class HalfGemms(TorchGemms):
    """float16. On a processor without arithmetic for it PyTorch multiplies one by one, which nobody would use."""

    @staticmethod
    def missing() -> str | None:
        sides = [torch.randn(256, 128), torch.randn(2048, 128)]
        seconds = []
        for dtype in (torch.float32, torch.float16):
            left, right = (side.to(dtype) for side in sides)
            tries = []
            for _ in range(5):
                start = time.perf_counter()
                torch.mm(left, right.T)
                tries.append(time.perf_counter() - start)
            seconds.append(min(tries))
        if seconds[1] <= SENSIBLE * seconds[0]:
            return None
        return f"a float16 product takes more than {SENSIBLE} times as long as a float32 one here"


def moco_loss(x_q: Tensor, x_k: Tensor, queue_columns: Tensor, labels: Tensor) -> Tensor:
    """MoCo as it is usually written: a queue [D,K], cloned so that the later push does not disturb the backward
    pass."""
    q, k = normalize(x_q, dim=1), normalize(x_k, dim=1)
    positive = torch.einsum("nd,nd->n", q, k)[:, None]
    negative = torch.einsum("nd,dk->nk", q, queue_columns.clone())
    return cross_entropy(torch.cat([positive, negative], dim=1) / TEMPERATURE, labels)


def ft_loss(
    x_q: Tensor, x_k: Tensor, queue: Tensor, labels: Tensor, lambda_pos: Tensor, lambda_neg: Tensor, permutation: Tensor
) -> Tensor:
    """The feature transformation in plain PyTorch, for lambda of any granularity."""
    q, k = normalize(x_q, dim=1), normalize(x_k, dim=1)
    q, k = torch.lerp(k, q, lambda_pos), torch.lerp(q, k, lambda_pos)
    negatives = torch.lerp(queue[permutation], queue, lambda_neg)
    positive = (q * k).sum(dim=1, keepdim=True)
    return cross_entropy(torch.cat([positive, q @ negatives.T], dim=1) / TEMPERATURE, labels)


class PlainStep:
    """Forward and backward of a loss on the inputs."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.labels = torch.zeros(inputs.shape.n, dtype=torch.int64)

    def draw(self) -> Draws:
        return Draws()

    def loss(self, draws: Draws) -> Tensor:
        raise NotImplementedError

    def run(self, draws: Draws) -> Tensor:
        self.inputs.x_q.grad = None
        loss = self.loss(draws)
        loss.backward()
        return loss

    def step(self) -> None:
        self.run(self.draw())

    def result(self, draws: Draws) -> tuple[float, Tensor]:
        return self.run(draws).item(), self.inputs.x_q.grad.clone()


class MocoCode(PlainStep):
    transformation = "moco"

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.queue_columns = inputs.queue.T.contiguous()

    def loss(self, draws: Draws) -> Tensor:
        return moco_loss(self.inputs.x_q, self.inputs.x_k, self.queue_columns, self.labels)


class EagerFt(PlainStep):
    transformation = "ft"

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.beta_pos, self.beta_neg = Beta(ALPHA_POS, ALPHA_POS), Beta(ALPHA_NEG, ALPHA_NEG)
        self.shape_pos = self.shape_neg = ()

    def draw(self) -> Draws:
        return Draws(
            self.beta_pos.sample(self.shape_pos) + SHIFT_POS,
            self.beta_neg.sample(self.shape_neg),
            torch.randperm(self.inputs.shape.k),
        )

    def loss(self, draws: Draws) -> Tensor:
        i = self.inputs
        return ft_loss(i.x_q, i.x_k, i.queue, self.labels, draws.lambda_pos, draws.lambda_neg, draws.permutation)


class EagerFtElementwise(EagerFt):
    transformation = "ft-elementwise"

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        shape = inputs.shape
        self.shape_pos, self.shape_neg = (shape.n, shape.d), (shape.k, shape.d)


class CompiledFt(EagerFt):
    """The same function under torch.compile; the draws stay outside, where they are as fast."""

    compiled = staticmethod(torch.compile(ft_loss, dynamic=False))

    @staticmethod
    def missing() -> str | None:
        """Why it cannot run here, if it cannot."""
        return None if any(map(shutil.which, ("g++", "clang++", "c++"))) else "there is no C++ compiler"

    def loss(self, draws: Draws) -> Tensor:
        i = self.inputs
        return self.compiled(i.x_q, i.x_k, i.queue, self.labels, draws.lambda_pos, draws.lambda_neg, draws.permutation)
