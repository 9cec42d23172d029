"""FlashNCE as a peer: through flashnce.torch as users call it, and through the C interface alone, which shows what the
binding costs."""

from __future__ import annotations

from collections.abc import Callable

import flashnce
import torch
from flashnce import _library as c
from flashnce.torch import PRESETS, InfoNCE
from torch import Tensor

from .loaded import Loaded, own
from .steps import TEMPERATURE, Draws, Inputs, Shape

SEED = 20  # that the errors are measured with


def draws_of(transformation: str, shape: Shape, seed: int = SEED) -> Draws:
    """What a call of the library with this seed draws, for the other implementations."""
    positive, negative = PRESETS[transformation]
    if positive is None:
        return Draws()
    sample = [
        torch.from_numpy(flashnce.sample_lambda(side, mix, rows, shape.d, seed=seed))
        for side, mix, rows in (("positive", positive, shape.n), ("negative", negative, shape.k))
    ]
    # One lambda for the call as a scalar, as torch.distributions draws it: the same shape, so the same compiled code.
    sample = [value[0] if value.numel() == 1 else value for value in sample]
    return Draws(*sample, torch.from_numpy(flashnce.permutation(shape.k, seed=seed)).long())


class Binding:
    """flashnce.torch.InfoNCE and backward. Its threads are torch's."""

    def __init__(self, inputs: Inputs, transformation: str) -> None:
        self.inputs, self.transformation = inputs, transformation
        self.criterion = InfoNCE(temperature=TEMPERATURE, preset=transformation)

    def run(self, **options) -> Tensor:
        self.inputs.x_q.grad = None
        loss = self.criterion(self.inputs.x_q, self.inputs.x_k, self.inputs.queue, **options)
        loss.backward()
        return loss

    def step(self) -> None:
        self.run()

    def result(self, draws: Draws) -> tuple[float, Tensor]:
        loss = self.run(seed=SEED) if draws.permutation is not None else self.run()
        return loss.item(), self.inputs.x_q.grad.clone()


def allocate(size: int) -> Tensor:
    """Bytes of ordinary memory."""
    return torch.empty(size, dtype=torch.uint8)


class CInterface:
    """fnce_loss on a plan: loss and dq in one call. x_q, x_k and the queue are of the inputs' element type, dq is
    float32 as a trainer saves it for fnce_scale. `reduction` is "mean" where the step is timed, "none" where single
    rows are looked at."""

    def __init__(
        self,
        inputs: Inputs,
        transformation: str,
        *,
        loaded: Loaded | None = None,
        reduction: str = "mean",
        workspace: Callable[[int], Tensor] = allocate,
    ) -> None:
        self.transformation, self.loaded = transformation, loaded or own()
        shape, element = inputs.shape, c.TYPES[str(inputs.queue.dtype).removeprefix("torch.")]
        problem = self.loaded.problem(transformation)
        problem.n, problem.k, problem.d = shape.n, shape.k, shape.d
        problem.threads = torch.get_num_threads()
        problem.feature_type = problem.queue_type = element
        problem.reduction = c.REDUCTION[reduction]
        self.plan = None
        self.plan, self.workspace_bytes = self.loaded.plan(problem)
        self.buffer = workspace(self.workspace_bytes + c.ALIGNMENT)
        self.workspace = -(-self.buffer.data_ptr() // c.ALIGNMENT) * c.ALIGNMENT
        self.loss, self.dq = torch.empty(shape.n if reduction == "none" else ()), torch.empty(shape.n, shape.d)
        self.inputs = inputs  # the pointers below are into it
        self.args = self.loaded.args()
        self.args.temperature = TEMPERATURE
        self.args.x_q, self.args.x_k = inputs.x_q.data_ptr(), inputs.x_k.data_ptr()
        self.args.queue = inputs.queue.data_ptr()
        self.args.loss, self.args.dq = self.loss.data_ptr(), self.dq.data_ptr()

    def __del__(self) -> None:
        if self.plan is not None:
            self.loaded.handle.fnce_plan_destroy(self.plan)

    def step(self) -> None:
        self.args.seed += 1
        self.loaded.check(
            self.loaded.handle.fnce_loss(self.plan, self.args, self.workspace, self.workspace_bytes, None)
        )

    def products(self) -> str | None:
        """The type that scores are multiplied in, where the plan tells it."""
        return self.loaded.products(self.plan)

    def run(self) -> tuple[Tensor, Tensor]:
        """Loss and dq of the seed that the errors are measured with."""
        self.args.seed = SEED - 1
        self.step()
        return self.loss.clone(), self.dq.clone()

    def result(self, draws: Draws) -> tuple[float, Tensor]:
        loss, dq = self.run()
        return loss.item(), dq
