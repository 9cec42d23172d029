"""The loss as autograd sees it: gradients come out of the forward pass, and the backward pass only scales them.

Those of batch columns mix the upstream gradients of all rows. They are made in the backward pass, without the queue.

    InfoNCE        an eager call
    Transformed    a call under the transforms of torch.func, which ask for setup_context
    Underivable    what gradients pass through under create_graph=True: it raises where they are differentiated again

The operator has the same formula by torch.library, for torch.compile and for whoever calls it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils import checkpoint

from .. import _library as c
from . import _ops
from ._call import Inputs, Numbers, Structure

_MOVED = (
    "the loss stands under torch.utils.checkpoint, and its queue has moved on since: computed again, its gradient "
    "would be that of other negatives; leave the loss outside of what is checkpointed (it stores no logits), or push "
    "afterwards"
)


class Gradients(NamedTuple):
    """Those of what may have one, or what belongs to each of them."""

    q: object
    k: object
    temperature: object
    batch: object

    @classmethod
    def of(cls, inputs: Sequence) -> Gradients:
        """Out of what is in the order of Inputs."""
        inputs = Inputs(*inputs)
        return cls(inputs.q, inputs.k, inputs.temperature, inputs.batch)

    def inputs(self) -> Inputs:
        """In the order of Inputs, None for the others."""
        return _NO_GRADIENTS._replace(**self._asdict())


_NO_GRADIENTS = Inputs(*(None,) * len(Inputs._fields))


class Call(NamedTuple):
    """What the backward pass knows of a call beside tensors."""

    structure: Structure
    numbers: Sequence[float]
    integers: tuple[int, ...]
    dtype: torch.dtype
    """That of q, k and the batch columns."""
    queue_type: torch.dtype
    temperature_shape: torch.Size | None

    @classmethod
    def of(cls, inputs: Inputs, structure: Structure, numbers: Sequence[float]) -> Call:
        shape = None if inputs.temperature is None else inputs.temperature.shape
        return cls(structure, numbers, inputs.integers(), inputs.q.dtype, inputs.negatives.dtype, shape)

    def wanted(self) -> Gradients:
        s = self.structure
        return Gradients(s.need_dq, s.need_dk, s.need_dtemperature, s.need_dbatch)


def saved_of(inputs: Inputs, structure: Structure, outputs: Sequence) -> list[Tensor | None]:
    """The tensors that gradients_of takes, out of the outputs of a call: gradients, and what those of batch columns are
    made of. Of the queue and its mixing these need the log-sum-exps alone."""
    _, *gradients, log_sum_exp, _, _ = outputs
    if not structure.need_dbatch:
        return gradients
    kept = inputs._replace(negatives=None, lambda_neg=None, permutation=None, negative_ids=None, bias=None)
    return [*gradients, log_sum_exp, *kept.tensors()]


def _batch_gradient(upstream: Tensor, call: Call, log_sum_exp: Tensor, tensors: Sequence[Tensor | None]) -> Tensor:
    """Equation (16), by a problem that has no queue."""
    inputs = Inputs(*tensors, *call.integers)
    inputs = inputs._replace(negatives=inputs.q.new_empty((0, inputs.q.shape[1]), dtype=call.queue_type))
    structure = call.structure._replace(
        per_neg=0, renormalize_neg=0, columns=c.COLUMNS["queue"], scores=c.SCORES_NONE, need_dq=0, need_dk=0,
        need_dtemperature=0, need_dbatch=0,
    )  # fmt: skip
    lists = list(structure), list(map(float, call.numbers))
    return torch.ops.flashnce.columns_backward.default(*inputs, log_sum_exp, upstream, *lists)


def no_second_derivative(function: str) -> NotImplementedError:
    """What is raised where a gradient of `function` of flashnce is differentiated."""
    return NotImplementedError(
        f"flashnce.{function} has no second derivative, and a gradient of its gradient is asked for; "
        f"flashnce.reference.{function} has one"
    )


class Underivable(Function):
    """The identity of a gradient, which also depends on `edges`: without them its gradient would be taken for 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *edges: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, _):
        raise no_second_derivative("info_nce")

    @staticmethod
    def jvp(ctx, *_):
        raise no_second_derivative("info_nce")


def _scaled(gradient: Tensor, upstream: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.float32:
        return gradient * (upstream if upstream.dim() == 0 else upstream[:, None])
    return torch.ops.flashnce.scale.default(gradient, upstream, dtype)


def gradients_of(
    upstream: Tensor | None, need: Gradients, saved: Sequence[Tensor | None], call: Call, edges: Sequence[Tensor],
    dtype: torch.dtype | None = None,
) -> Gradients:  # fmt: skip
    """The gradients of a call.

    Args:
        upstream: the gradient of the loss.
        need: who wants one.
        saved: what saved_of gave.
        edges: what the gradients depend on, as far as anybody may differentiate them.
        dtype: the type of those of q and k, if not that of q and k.
    """
    found = [None] * len(Gradients._fields)
    if upstream is None:
        return Gradients(*found)
    differentiable = torch.is_grad_enabled()
    need = [asked and bool(made) for asked, made in zip(need, call.wanted())]
    with torch.no_grad():
        for i in (0, 1):
            if need[i]:
                found[i] = _scaled(saved[i], upstream, dtype or call.dtype)
        if need[2]:
            found[2] = (saved[2] * upstream).sum().reshape(call.temperature_shape)
        if need[3]:
            # One tensor more may follow, which is not ours.
            log_sum_exp, *tensors = saved[3 : 4 + len(Inputs._fields) - len(call.integers)]
            found[3] = _batch_gradient(upstream, call, log_sum_exp, tensors)
    if differentiable:
        found = [None if x is None else Underivable.apply(x, upstream, *edges) for x in found]
    return Gradients(*found)


def kept(
    ctx, inputs: Inputs, structure: Structure, numbers: Numbers, outputs: Sequence, more: Sequence[Tensor | None] = ()
) -> tuple[Tensor, ...]:
    """What the forward of a Function returns, whose backward is gradients_kept. `more` is saved behind the rest."""
    loss, *_, floats, integers = outputs
    saved = (*saved_of(inputs, structure, outputs), *more)
    ctx.version = None
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        # A checkpoint will give back what a recomputation saves, so that this tells which queue that has seen.
        ctx.version = _version(inputs.negatives)
        saved = (*saved, torch.tensor(ctx.version, device="cpu"))
    _keep(ctx, inputs, structure, numbers, saved)
    if not structure.scores:
        return loss, None, None
    ctx.mark_non_differentiable(floats, integers)
    return loss, floats, integers


def gradients_kept(ctx, upstream: Tensor | None, need: Sequence[bool]) -> Gradients:
    """The gradients of what `kept` has kept; `need` is in the order of Gradients."""
    saved = ctx.saved_tensors
    if ctx.version is not None and saved[-1].item() != ctx.version:
        raise RuntimeError(_MOVED)
    return gradients_of(upstream, Gradients(*need), saved, ctx.call, ctx.edges)


def _version(negatives: Tensor) -> int:
    """How often they have been written to, as far as PyTorch counts."""
    return 0 if negatives.is_inference() else negatives._version


def refuse_reentrant_checkpoint() -> None:
    """Raises in a recomputation by the older kind of checkpoint, in which nothing tells what the first one has seen."""
    if torch._C._current_graph_task_id() == -1:
        return
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is checkpoint.CheckpointFunction.backward.__code__:
            raise RuntimeError(
                "the loss stands under torch.utils.checkpoint with use_reentrant=True, where it cannot tell whether "
                "its queue has moved on; pass use_reentrant=False, or leave the loss outside: it stores no logits"
            )
        frame = frame.f_back


def _keep(ctx, inputs: Inputs, structure: Structure, numbers: Sequence[float], saved: Sequence) -> None:
    """The edges are no saved tensors: an input may be changed in place afterwards."""
    ctx.save_for_backward(*saved)
    ctx.set_materialize_grads(False)
    ctx.call = Call.of(inputs, structure, numbers)
    ctx.edges = [x for x in Gradients.of(inputs) if x is not None and x.requires_grad]


class InfoNCE(Function):
    """Eager calls: only what may get a gradient is an argument of its own, and only what is returned an output."""

    @staticmethod
    def forward(ctx, inputs: Inputs, structure: Structure, numbers: Numbers, q, k, temperature, batch):
        return kept(ctx, inputs, structure, numbers, _ops.run(inputs, structure, numbers))

    @staticmethod
    def backward(ctx, upstream, *_):
        return None, None, None, *gradients_kept(ctx, upstream, ctx.needs_input_grad[3:])


class Transformed(Function):
    """Calls under torch.func.grad, vjp and jacrev."""

    @staticmethod
    def forward(structure, numbers, *inputs):
        return torch.ops.flashnce.info_nce_forward.default(*inputs, structure, numbers)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        structure, numbers, *inputs = inputs
        inputs, structure = Inputs(*inputs), Structure(*structure)
        ctx.save_for_backward(*Gradients.of(inputs), *saved_of(inputs, structure, output))
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.call = Call.of(inputs, structure, numbers)

    @staticmethod
    def backward(ctx, upstream, *_):
        count = len(Gradients._fields)
        edges = [x for x in ctx.saved_tensors[:count] if x is not None and x.requires_grad]
        # Not the operator, which torch.vmap does not know: jacrev puts many upstream gradients into one call.
        need = Gradients.of(ctx.needs_input_grad[2:])
        found = gradients_of(upstream, need, ctx.saved_tensors[count:], ctx.call, edges, torch.float32)
        dq, dk = (None if x is None else x.to(ctx.call.dtype) for x in found[:2])
        return None, None, *found._replace(q=dq, k=dk).inputs()

    @staticmethod
    def vmap(info, in_dims, *_):
        raise NotImplementedError(
            "flashnce.info_nce cannot be mapped by torch.vmap: call it in a loop, or with reduction='none' on the rows "
            "of all calls that share their negatives"
        )

    @staticmethod
    def jvp(ctx, *_):
        raise NotImplementedError(
            "flashnce.info_nce has no forward-mode derivative: use torch.func.grad, vjp or jacrev, or "
            "flashnce.reference.info_nce"
        )


def setup_context(ctx, inputs, output) -> None:
    """torch.library's, for the operator itself."""
    *inputs, structure, numbers = inputs
    inputs, structure = Inputs(*inputs), Structure(*structure)
    ctx.mark_non_differentiable(*output[1:])
    _keep(ctx, inputs, structure, numbers, saved_of(inputs, structure, output))


def _backward(ctx, upstream, *_):
    # Structure and numbers come last.
    need = Gradients.of(ctx.needs_input_grad[:-2])
    found = gradients_of(upstream, need, ctx.saved_tensors, ctx.call, ctx.edges)
    return *found.inputs(), None, None


torch.library.register_autograd(
    "flashnce::info_nce_forward", _backward, setup_context=setup_context, lib=_ops.library
)


def info_nce_forward(
    inputs: Inputs, structure: Structure, numbers: Numbers
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss and, where the structure asks for them, the packed statistics: float32 and int64 ones."""
    if torch.compiler.is_compiling():
        outputs = torch.ops.flashnce.info_nce_forward.default(*inputs, list(structure), list(map(float, numbers)))
        return outputs[0], *outputs[-2:]
    refuse_reentrant_checkpoint()
    if torch._C._are_functorch_transforms_active():
        outputs = Transformed.apply(list(structure), list(map(float, numbers)), *inputs)
    elif structure.need_dq or structure.need_dk or structure.need_dtemperature or structure.need_dbatch:
        return InfoNCE.apply(inputs, structure, numbers, *Gradients.of(inputs))
    else:
        outputs = _ops.run(inputs, structure, numbers)
    return outputs[0], *outputs[-2:]
