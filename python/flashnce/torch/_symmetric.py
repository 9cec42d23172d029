"""The symmetric loss of equation (17): its operators, and how autograd sees them.

    symmetric_forward    the loss and both log-sum-exps, from one matrix product
    symmetric_backward   the gradients of both sides and of the temperature, from what comes from above and these

Nothing is kept between them but the inputs and two numbers a pair. flashnce.torch.clip_loss is the function to call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils.flop_counter import register_flop_formula

from .. import _library as c
from .._names import PAIR_NAMES
from .._options import check_temperature, pairs_plan
from ._autograd import Underivable, no_second_derivative
from ._call import device_of, element_type, same_device, workspace_of
from ._ops import library

_TENSORS = (
    "Tensor a, Tensor b, Tensor? temperature, Tensor? weight, Tensor? a_ids, Tensor? b_ids, Tensor? a_bias, "
    "Tensor? b_bias"
)
_REST = "int normalize, int reduction, float temperature_value"
library.define(f"symmetric_forward({_TENSORS}, {_REST}) -> (Tensor loss, Tensor a_log_sum_exp, Tensor b_log_sum_exp)")
library.define(
    f"symmetric_backward({_TENSORS}, Tensor a_log_sum_exp, Tensor b_log_sum_exp, Tensor upstream, int[] need, {_REST}) "
    "-> (Tensor da, Tensor db, Tensor dtemperature)"
)


class Pairs(NamedTuple):
    """The tensors of a call, in the order of the operators."""

    a: Tensor
    b: Tensor
    temperature: Tensor | None
    weight: Tensor | None
    a_ids: Tensor | None
    b_ids: Tensor | None
    a_bias: Tensor | None
    b_bias: Tensor | None


class Rest(NamedTuple):
    """The numbers of a call. temperature_value counts only where no tensor is given for it."""

    normalize: int
    reduction: int
    temperature_value: float


_OF_A_ROW = {
    "weight": torch.float32, "a_ids": torch.int64, "b_ids": torch.int64, "a_bias": torch.float32,
    "b_bias": torch.float32,
}  # fmt: skip


def _check(pairs: Pairs) -> None:
    """What the library cannot see: types, sizes and devices of tensors."""
    a, b = pairs.a, pairs.b
    if b.shape != a.shape or b.dtype != a.dtype:
        raise ValueError(f"b is {b.dtype} {list(b.shape)}; it must be as a, {a.dtype} {list(a.shape)}")
    same_device("b", b, a)
    if pairs.temperature is not None and (pairs.temperature.dtype != torch.float32 or pairs.temperature.numel() != 1):
        raise ValueError("temperature must be float32 of one element")
    for name, dtype in _OF_A_ROW.items():
        tensor = getattr(pairs, name)
        if tensor is None:
            continue
        if tensor.dtype != dtype or tensor.numel() != a.shape[0]:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}; it must be {dtype} [{a.shape[0]}]")
        same_device(name, tensor, a)
    if pairs.temperature is not None:
        check_temperature(pairs.temperature.item())


class _Call:
    """One call of the library: its plan, its fnce_pairs and what these point at."""

    def __init__(self, pairs: Pairs, rest: Rest) -> None:
        _check(pairs)
        self.pairs = pairs = Pairs(*(None if x is None else x.contiguous() for x in pairs))
        a, (device, index) = pairs.a, device_of("a", pairs.a)
        self.plan = pairs_plan(
            *a.shape, device, index, element_type("a", a), rest.normalize, rest.reduction, torch.get_num_threads(),
            pairs.a_ids is not None, pairs.a_bias is not None,
        )  # fmt: skip
        self.args = args = c.new_pairs()
        args.x_a, args.x_b, args.temperature = a.data_ptr(), pairs.b.data_ptr(), rest.temperature_value
        for name in _OF_A_ROW:
            tensor = getattr(pairs, name)
            setattr(args, name, None if tensor is None else tensor.data_ptr())
        if pairs.temperature is not None:
            args.temperature_pointer = pairs.temperature.data_ptr()

    def run(self, function, *upstream: int) -> None:
        buffer, workspace = workspace_of(self.plan.workspace_bytes, self.pairs.a.device)
        size = self.plan.workspace_bytes
        c.check(function(self.plan.handle, self.args, *upstream, workspace, size, None), PAIR_NAMES)


def _forward_outputs(a: Tensor, reduction: int) -> tuple[Tensor, Tensor, Tensor]:
    n = a.shape[0]
    new = lambda *size: a.new_empty(size, dtype=torch.float32)  # noqa: E731
    return (new(n) if reduction == c.REDUCTION["none"] else new()), new(n), new(n)


def _forward(*arguments):
    pairs, rest = Pairs(*arguments[: len(Pairs._fields)]), Rest(*arguments[len(Pairs._fields) :])
    outputs = _forward_outputs(pairs.a, rest.reduction)
    if not pairs.a.shape[0]:
        outputs[0].fill_(math.nan if rest.reduction == c.REDUCTION["mean"] else 0.0)
        return outputs
    call = _Call(pairs, rest)
    call.args.loss, call.args.a_log_sum_exp, call.args.b_log_sum_exp = (x.data_ptr() for x in outputs)
    call.run(c.LIBRARY.fnce_symmetric)
    return outputs


def _forward_fake(*arguments):
    return _forward_outputs(arguments[0], Rest(*arguments[len(Pairs._fields) :]).reduction)


def _backward_outputs(a: Tensor, need: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Those of nobody have no elements."""
    da, db = (torch.empty(a.shape if wanted else (0,), dtype=a.dtype, device=a.device) for wanted in need[:2])
    return da, db, a.new_zeros(1 if need[2] else 0, dtype=torch.float32)


def _backward(*arguments):
    count = len(Pairs._fields)
    pairs, (*sums, upstream, need) = Pairs(*arguments[:count]), arguments[count : count + 4]
    rest = arguments[count + 4 :]
    outputs, n = _backward_outputs(pairs.a, need), pairs.a.shape[0]
    for name, tensor, counts in (*((s, x, (n,)) for s, x in zip("ab", sums)), ("upstream", upstream, (1, n))):
        if tensor.dtype != torch.float32 or tensor.numel() not in counts:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}; it must be float32 of {counts} elements")
        same_device(name, tensor, pairs.a)
    if not n:
        return outputs
    call, sums, upstream = _Call(pairs, Rest(*rest)), [x.contiguous() for x in sums], upstream.contiguous()
    call.args.a_log_sum_exp, call.args.b_log_sum_exp = (x.data_ptr() for x in sums)
    for name, tensor in zip(("da", "db", "dtemperature"), outputs):
        setattr(call.args, name, tensor.data_ptr() if tensor.numel() else None)
    call.run(c.LIBRARY.fnce_symmetric_backward, upstream.data_ptr(), upstream.numel())
    return outputs


def _backward_fake(*arguments):
    return _backward_outputs(arguments[0], arguments[len(Pairs._fields) + 3])


for _name, _implementation, _fake in (
    ("symmetric_forward", _forward, _forward_fake), ("symmetric_backward", _backward, _backward_fake),
):  # fmt: skip
    library.impl(_name, _implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"flashnce::{_name}", _fake, lib=library)


@register_flop_formula(torch.ops.flashnce.symmetric_forward)
def _forward_flops(a, *_, **__) -> int:
    return 2 * a[0] * a[0] * a[1]


@register_flop_formula(torch.ops.flashnce.symmetric_backward)
def _backward_flops(a, *_, **__) -> int:
    return 4 * _forward_flops(a)


def _setup_context(ctx, inputs, output) -> None:
    count = len(Pairs._fields)
    pairs = Pairs(*inputs[:count])
    ctx.save_for_backward(*pairs, *output[1:])
    ctx.rest, ctx.dtype = Rest(*inputs[count:]), pairs.a.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


class _Underivable(Underivable):
    """As of info_nce, but it names this function."""

    @staticmethod
    def backward(ctx, _):
        raise no_second_derivative("clip_loss")

    @staticmethod
    def jvp(ctx, *_):
        raise no_second_derivative("clip_loss")


def _gradients(ctx, upstream, *_):
    nothing = (None,) * (len(Pairs._fields) + len(Rest._fields) - 3)
    need = [int(wanted) for wanted in ctx.needs_input_grad[:3]]
    if upstream is None or not any(need):
        return None, None, None, *nothing
    *tensors, a_sums, b_sums = ctx.saved_tensors
    pairs = Pairs(*tensors)
    with torch.no_grad():
        found = torch.ops.flashnce.symmetric_backward.default(*pairs, a_sums, b_sums, upstream, need, *ctx.rest)
    found = [x if wanted else None for x, wanted in zip(found, need)]
    if need[2]:
        found[2] = found[2].reshape(pairs.temperature.shape)
    if torch.is_grad_enabled():
        edges = [x for x in pairs[:3] if x is not None and x.requires_grad]
        found = [None if x is None else _Underivable.apply(x, upstream, *edges) for x in found]
    return *found, *nothing


torch.library.register_autograd(
    "flashnce::symmetric_forward", _gradients, setup_context=_setup_context, lib=library
)


class Symmetric(Function):
    """Calls outside of torch.compile, also under the transforms of torch.func."""

    @staticmethod
    def forward(*arguments):
        return torch.ops.flashnce.symmetric_forward.default(*arguments)

    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_gradients)

    @staticmethod
    def vmap(info, in_dims, *_):
        raise NotImplementedError(
            "flashnce.clip_loss cannot be mapped by torch.vmap: call it in a loop, for each batch of pairs"
        )

    @staticmethod
    def jvp(ctx, *_):
        raise NotImplementedError("flashnce.clip_loss has no forward-mode derivative: use torch.func.grad or vjp")


def symmetric(pairs: Pairs, rest: Rest) -> Tensor:
    """The loss of equation (17), differentiable in a, b and the temperature."""
    if torch.compiler.is_compiling():
        return torch.ops.flashnce.symmetric_forward.default(*pairs, *rest)[0]
    return Symmetric.apply(*pairs, *rest)[0]
