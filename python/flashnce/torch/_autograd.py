"""The loss as autograd sees it: gradients come out of the forward pass, and the backward pass only scales them.

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

from . import _ops
from ._call import Inputs, Numbers, Structure

_SECOND = (
    "flashnce.info_nce has no second derivative, and a gradient of its gradient is asked for; "
    "flashnce.reference.info_nce has one"
)
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

    @classmethod
    def of(cls, inputs: Sequence) -> Gradients:
        """Out of what is in the order of Inputs."""
        inputs = Inputs(*inputs)
        return cls(inputs.q, inputs.k, inputs.temperature)

    def inputs(self) -> Inputs:
        """In the order of Inputs, None for the others."""
        return _NO_GRADIENTS._replace(**self._asdict())


_NO_GRADIENTS = Inputs(*(None,) * len(Inputs._fields))


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
        raise NotImplementedError(_SECOND)

    @staticmethod
    def jvp(ctx, *_):
        raise NotImplementedError(_SECOND)


def _scaled(gradient: Tensor, upstream: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.float32:
        return gradient * (upstream if upstream.dim() == 0 else upstream[:, None])
    return torch.ops.flashnce.scale.default(gradient, upstream, dtype)


def gradients_of(
    upstream: Tensor | None,
    need: Gradients,
    saved: Sequence[Tensor | None],
    dtype: torch.dtype,
    shape: torch.Size | None,
    edges: Sequence[Tensor],
) -> Gradients:
    """The gradients of a call.

    Args:
        upstream: the gradient of the loss.
        need: who wants one.
        saved: those for an upstream gradient of 1; None or empty where nobody wants it.
        dtype, shape: the type of q and k, the shape of the temperature.
        edges: what the gradients depend on, as far as anybody may differentiate them.
    """
    found = [None, None, None]
    if upstream is None:
        return Gradients(*found)
    differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        for i in (0, 1):
            if need[i] and saved[i] is not None and saved[i].numel():
                found[i] = _scaled(saved[i], upstream, dtype)
        if need.temperature and saved[2] is not None and saved[2].numel():
            found[2] = (saved[2] * upstream).sum().reshape(shape)
    if differentiable:
        found = [None if x is None else Underivable.apply(x, upstream, *edges) for x in found]
    return Gradients(*found)


def kept(ctx, inputs: Inputs, structure: Structure, loss, gradients, floats, integers) -> tuple[Tensor, ...]:
    """What the forward of a Function returns, whose backward is gradients_kept."""
    ctx.version = None
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        # A checkpoint will give back what a recomputation saves, so that this tells which queue that has seen.
        ctx.version = _version(inputs.negatives)
        gradients = (*gradients, torch.tensor(ctx.version, device="cpu"))
    _keep(ctx, inputs, gradients)
    if not structure.scores:
        return loss, None, None
    ctx.mark_non_differentiable(floats, integers)
    return loss, floats, integers


def gradients_kept(ctx, upstream: Tensor | None, need: Sequence[bool]) -> Gradients:
    """The gradients of what `kept` has kept; `need` is in the order of Gradients."""
    saved = ctx.saved_tensors
    if ctx.version is not None and saved[-1].item() != ctx.version:
        raise RuntimeError(_MOVED)
    return gradients_of(upstream, Gradients(*need), saved, ctx.dtype, ctx.shape, ctx.edges)


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


def _keep(ctx, inputs: Inputs, saved: Sequence[Tensor | None]) -> None:
    """The edges are no saved tensors: an input may be changed in place afterwards."""
    ctx.save_for_backward(*saved)
    ctx.set_materialize_grads(False)
    ctx.dtype, ctx.shape = inputs.q.dtype, None if inputs.temperature is None else inputs.temperature.shape
    ctx.edges = [x for x in Gradients.of(inputs) if x is not None and x.requires_grad]


class InfoNCE(Function):
    """Eager calls: only what may get a gradient is an argument of its own, and only what is returned an output."""

    @staticmethod
    def forward(ctx, inputs: Inputs, structure: Structure, numbers: Numbers, q, k, temperature):
        loss, *gradients, floats, integers = _ops.run(inputs, structure, numbers)
        return kept(ctx, inputs, structure, loss, gradients, floats, integers)

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
        inputs = Inputs(*inputs[2:])
        ctx.save_for_backward(*output[1:4], inputs.q, inputs.k, inputs.temperature)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.dtype, ctx.shape = inputs.q.dtype, None if inputs.temperature is None else inputs.temperature.shape

    @staticmethod
    def backward(ctx, upstream, *_):
        *gradients, q, k, temperature = ctx.saved_tensors
        edges = [x for x in (q, k, temperature) if x is not None and x.requires_grad]
        # Not the operator, which torch.vmap does not know: jacrev puts many upstream gradients into one call.
        need = Gradients.of(ctx.needs_input_grad[2:])
        found = gradients_of(upstream, need, gradients, torch.float32, ctx.shape, edges)
        dq, dk = (None if x is None else x.to(ctx.dtype) for x in found[:2])
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
    ctx.mark_non_differentiable(*output[1:])
    _keep(ctx, Inputs(*inputs[: len(Inputs._fields)]), output[1:4])


def _backward(ctx, upstream, *_):
    # Structure and numbers come last.
    need = Gradients.of(ctx.needs_input_grad[:-2])
    found = gradients_of(upstream, need, ctx.saved_tensors, ctx.dtype, ctx.shape, ctx.edges)
    return *found.inputs(), None, None


torch.library.register_autograd(
    "flashnce::info_nce_forward", _backward, setup_context=setup_context, lib=_ops.library
)


def info_nce_forward(
    inputs: Inputs, structure: Structure, numbers: Numbers
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss and, where the structure asks for them, the packed statistics: float32 and int64 ones."""
    lists = list(structure), list(map(float, numbers))
    if torch.compiler.is_compiling():
        outputs = torch.ops.flashnce.info_nce_forward.default(*inputs, *lists)
        return outputs[0], *outputs[-2:]
    refuse_reentrant_checkpoint()
    if torch._C._are_functorch_transforms_active():
        outputs = Transformed.apply(*lists, *inputs)
    elif structure.need_dq or structure.need_dk or structure.need_dtemperature:
        return InfoNCE.apply(inputs, structure, numbers, inputs.q, inputs.k, inputs.temperature)
    else:
        outputs = _ops.run(inputs, structure, numbers)
    return outputs[0], *outputs[-2:]
