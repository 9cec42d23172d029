"""The operators of the flashnce namespace: torch.library definitions over the C library.

    info_nce_forward   equations (1) to (9): the loss, its gradients and statistics, all from one pass
    scale              a saved gradient times the upstream gradient, rounded to 16-bit features: the backward pass
    columns_backward   equation (16): the gradient of batch columns, which mixes the upstream gradients of all rows
    scores             equation (9) before any mixing, with the first matrix product only
    queue_push         equation (10), in place

The operators take resolved options; flashnce.torch.info_nce is the function to call.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.flop_counter import register_flop_formula

from .. import _library as c
from .._library import FLOAT_SCORES, INT_SCORES
from ._call import (
    INPUT_SCHEMA, Inputs, Numbers, Part, Structure, arguments_of, check_inputs, device_of,
    element_type, outputs_of, plan_of, point_outputs, point_scores, same_device, stream_of, workspace_of,
    write_no_rows,
)  # fmt: skip

library = torch.library.Library("flashnce", "DEF")
library.define(
    f"info_nce_forward({INPUT_SCHEMA}, int[] structure, float[] numbers) "
    "-> (Tensor loss, Tensor dq, Tensor dk, Tensor dtemperature, Tensor log_sum_exp, Tensor float_scores, "
    "Tensor int_scores)"
)
library.define("scale(Tensor gradient, Tensor upstream, ScalarType dtype) -> Tensor")
library.define(
    f"columns_backward({INPUT_SCHEMA}, Tensor log_sum_exp, Tensor upstream, int[] structure, float[] numbers) -> Tensor"
)
library.define(
    f"scores({INPUT_SCHEMA}, int[] structure, float[] numbers) -> (Tensor float_scores, Tensor int_scores)"
)
library.define("queue_push(Tensor(a!) queue, Tensor(b!) position, Tensor keys, *, bool normalize) -> ()")


def _compute(inputs: Inputs, structure: Structure, numbers: Numbers) -> tuple[Tensor | None, ...]:
    """What outputs_of names, written; None for what nobody wants."""
    inputs = inputs.dense()
    check_inputs(inputs, structure)
    # The library has no problem without rows; that of one row is wrong where this one is.
    n, given = inputs.q.shape[0], inputs.given()
    plan = plan_of(inputs.q, inputs.negatives, structure, given, Part(row_offset=inputs.row_offset), max(n, 1))
    outputs = outputs_of(inputs.q, structure)
    if not n:
        write_no_rows(outputs, structure)
        return outputs
    args = arguments_of(inputs, numbers)
    point_outputs(args, outputs, structure, given.bias)
    buffer, workspace = workspace_of(plan.workspace_bytes, inputs.q.device)
    c.check(c.LIBRARY.fnce_loss(plan.handle, args, workspace, plan.workspace_bytes, stream_of(inputs.q)))
    return outputs


def _filled(q: Tensor, outputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """An operator returns tensors: those of nobody have no elements."""
    types = (*(torch.float32,) * (len(outputs) - 1), torch.int64)
    return tuple(q.new_empty(0, dtype=dtype) if x is None else x for x, dtype in zip(outputs, types))


def _info_nce_forward(*arguments):
    *inputs, structure, numbers = arguments
    return _filled(inputs[0], _compute(Inputs(*inputs), Structure(*structure), Numbers(*numbers)))


def _info_nce_forward_fake(*arguments):
    return _filled(arguments[0], outputs_of(arguments[0], Structure(*arguments[-2])))


def _unseen(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether nobody but the library is to see a call: no mode, transform, subclass, tracer or profiler. Then the way
    through PyTorch's dispatcher, which takes longer than a small loss, is left out."""
    return (
        torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._autograd._profiler_enabled()
        and torch._C._get_tracing_state() is None
        and all(x is None or type(x) in (Tensor, Parameter) for x in tensors)
    )


def run(inputs: Inputs, structure: Structure, numbers: Numbers) -> tuple[Tensor | None, ...]:
    """What the operator returns, below autograd; None in place of tensors without elements, perhaps."""
    if _unseen(inputs.tensors()):
        return _compute(inputs, structure, numbers)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.flashnce.info_nce_forward.default(*inputs, list(structure), list(map(float, numbers)))


def _columns_backward(*arguments):
    *inputs, log_sum_exp, upstream, structure, numbers = arguments
    inputs, structure, numbers = Inputs(*inputs).dense(), Structure(*structure), Numbers(*numbers)
    check_inputs(inputs, structure)
    q, batch, n = inputs.q, inputs.batch, inputs.q.shape[0]
    for name, tensor, counts in (("log_sum_exp", log_sum_exp, (n,)), ("upstream", upstream, (1, n))):
        if tensor.dtype != torch.float32 or tensor.numel() not in counts:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}; it must be float32 of {counts} elements")
        same_device(name, tensor, q)
    if not n or not batch.shape[0]:
        return torch.zeros_like(batch)
    part, gradient_type = Part(row_offset=inputs.row_offset), element_type("batch", batch)
    plan = plan_of(q, inputs.negatives, structure, inputs.given(), part, gradient_type=gradient_type)
    args, gradient = arguments_of(inputs, numbers), torch.empty_like(batch)
    log_sum_exp, upstream = log_sum_exp.contiguous(), upstream.contiguous()
    buffer, workspace = workspace_of(plan.workspace_bytes, q.device)
    c.check(
        c.LIBRARY.fnce_columns_backward(
            plan.handle, args, None, log_sum_exp.data_ptr(), upstream.data_ptr(), upstream.numel(),
            gradient.data_ptr(), workspace, plan.workspace_bytes, stream_of(q),
        )
    )  # fmt: skip
    return gradient


def _columns_backward_fake(*arguments):
    return torch.empty_like(Inputs(*arguments[:-4]).batch, memory_format=torch.contiguous_format)


def _follow_torch_threads(device: int) -> None:
    """Calls without a plan take the process's number of threads: PyTorch's."""
    if device == c.CPU:
        c.LIBRARY.fnce_set_threads(min(torch.get_num_threads(), 1024))


def _scale(gradient: Tensor, upstream: Tensor, dtype: torch.dtype) -> Tensor:
    device, device_index = device_of("gradient", gradient)
    rows, columns = gradient.shape
    count = upstream.numel()
    if gradient.dtype != torch.float32 or upstream.dtype != torch.float32 or count not in (1, rows):
        raise ValueError(
            f"upstream is {upstream.dtype} {list(upstream.shape)}, gradient {gradient.dtype} {list(gradient.shape)}; "
            f"they must be float32, upstream of 1 or {rows} elements"
        )
    if upstream.device != gradient.device:
        raise ValueError(f"upstream is on {upstream.device}; it must be on the device of gradient, {gradient.device}")
    gradient, upstream = gradient.contiguous(), upstream.contiguous()
    out = torch.empty_like(gradient, dtype=dtype)
    if not rows:
        return out
    _follow_torch_threads(device)
    c.check(
        c.LIBRARY.fnce_scale(
            device, device_index, gradient.data_ptr(), rows, columns, upstream.data_ptr(), count,
            element_type("out", out), out.data_ptr(), stream_of(gradient),
        )
    )  # fmt: skip
    return out


def _scale_fake(gradient: Tensor, upstream: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(gradient, dtype=dtype, memory_format=torch.contiguous_format)


# The structure of equation (7) without mixing. Any plan serves fnce_scores, and this one MoCo's loss may have made.
PLAIN = Structure(1, 0, 0, 0, 0, c.COLUMNS["queue"], c.ANCHOR["mixed"], c.REDUCTION["mean"], c.SCORES_NONE, 0, 0, 0)


def _scores_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    n = q.shape[0]
    floats = q.new_empty((len(FLOAT_SCORES), n), dtype=torch.float32)
    return floats, q.new_empty((len(INT_SCORES), n), dtype=torch.int64)


def _scores(*arguments):
    *inputs, structure, numbers = arguments
    inputs, structure, numbers = Inputs(*inputs).dense(), Structure(*structure), Numbers(*numbers)
    check_inputs(inputs, structure)
    q = inputs.q
    plan = plan_of(q, inputs.negatives, structure, inputs.given(), n=max(q.shape[0], 1))
    floats, integers = _scores_outputs(q)
    if not q.shape[0]:
        return floats, integers
    args, out = arguments_of(inputs, numbers), c.ScoreBuffers()
    point_scores(out, FLOAT_SCORES, floats, integers)
    buffer, workspace = workspace_of(plan.workspace_bytes, q.device)
    c.check(c.LIBRARY.fnce_scores(plan.handle, args, out, workspace, plan.workspace_bytes, stream_of(q)))
    return floats, integers


def _scores_fake(*arguments):
    return _scores_outputs(arguments[0])


_push_template = bytes(c.new_push())


def _queue_push(queue: Tensor, position: Tensor, keys: Tensor, *, normalize: bool) -> None:
    device, device_index = device_of("queue", queue)
    if queue.dim() != 2 or keys.dim() != 2 or keys.shape[1] != queue.shape[1]:
        raise ValueError(
            f"keys has shape {list(keys.shape)}; with a queue {list(queue.shape)} it must be [N, {queue.shape[-1]}]"
        )
    if position.dtype != torch.int64 or position.numel() != 1:
        raise ValueError(f"position is {position.dtype} {list(position.shape)}; it must be int64 [1]")
    if not queue.is_contiguous():
        raise ValueError(f"queue has strides {queue.stride()}; it must be contiguous, as it is written in place")
    if not queue.device == position.device == keys.device:
        raise ValueError(
            f"queue is on {queue.device}, position on {position.device}, keys on {keys.device}; they must be on one"
        )
    keys = keys.contiguous()
    if keys.untyped_storage().data_ptr() == queue.untyped_storage().data_ptr():
        # Rows of the queue itself would change while they are read.
        keys = keys.clone()
    # On a GPU many blocks read the position while one advances it, so what they read must be another tensor.
    read = position if device == c.CPU else position.clone()
    push = c.Push.from_buffer_copy(_push_template)
    push.n, push.k, push.d = keys.shape[0], queue.shape[0], queue.shape[1]
    push.device, push.device_index, push.normalize = device, device_index, int(normalize)
    push.key_type, push.queue_type = element_type("keys", keys), element_type("queue", queue)
    push.keys, push.queue = keys.data_ptr(), queue.data_ptr()
    push.position_in, push.position_out = read.data_ptr(), position.data_ptr()
    _follow_torch_threads(device)
    c.check(c.LIBRARY.fnce_queue_push(push, stream_of(queue)))
    for changed in (queue, position):
        if not changed.is_inference():
            torch.autograd.graph.increment_version(changed)


def _queue_push_fake(queue: Tensor, position: Tensor, keys: Tensor, *, normalize: bool) -> None:
    return None


for _name, _implementation, _fake in (
    ("info_nce_forward", _info_nce_forward, _info_nce_forward_fake),
    ("scale", _scale, _scale_fake),
    ("columns_backward", _columns_backward, _columns_backward_fake),
    ("scores", _scores, _scores_fake),
    ("queue_push", _queue_push, _queue_push_fake),
):
    library.impl(_name, _implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"flashnce::{_name}", _fake, lib=library)


def _columns_backward_vmap(info, in_dims, *arguments):
    """Under jacrev, which puts many upstream gradients of one call into one: each is a pass of its own."""
    *before, upstream, structure, numbers = arguments
    *others, dim, _, _ = in_dims
    if any(x is not None for x in others):
        raise NotImplementedError("flashnce::columns_backward is mapped over its upstream gradients alone")
    one = torch.ops.flashnce.columns_backward.default
    return torch.stack([one(*before, x.contiguous(), structure, numbers) for x in upstream.unbind(dim)]), 0


torch.library.register_vmap("flashnce::columns_backward", _columns_backward_vmap, lib=library)


def _products(inputs: Inputs) -> int:
    """The flops of all scores, from the shapes of a call's inputs."""
    columns = inputs.negatives[0] + (0 if inputs.batch is None else inputs.batch[0])
    return 2 * inputs.q[0] * columns * inputs.q[1]


@register_flop_formula(torch.ops.flashnce.info_nce_forward)
def _info_nce_flops(*arguments, **_) -> int:
    """Those of the matrix products: the scores and, for gradients or statistics of the loss, the sums."""
    *inputs, structure, _ = arguments
    structure = Structure(*structure)
    sums = structure.need_dq or structure.need_dk or structure.need_dtemperature or structure.scores
    return _products(Inputs(*inputs)) * (2 if sums else 1)


@register_flop_formula(torch.ops.flashnce.columns_backward)
def _columns_flops(*arguments, **_) -> int:
    return 2 * _products(Inputs(*arguments[:-4]))


@register_flop_formula(torch.ops.flashnce.scores)
def _scores_flops(*arguments, **_) -> int:
    return _products(Inputs(*arguments[:-2]))


queue_push = torch.ops.flashnce.queue_push.default
scores = torch.ops.flashnce.scores.default
