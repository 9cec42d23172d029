"""The operators of the flashnce namespace: torch.library definitions over the C library.

    info_nce_forward   equations (1) to (9): the loss, its gradients and statistics, all from one pass
    scale              a saved gradient times the upstream gradient: the backward pass
    scores             equation (9) before any mixing, with the first matrix product only
    queue_push         equation (10), in place

Forward saves the gradients that it computed, so that backward needs neither the queue nor any random number, and a
push in between changes nothing. The operators take resolved options; flashnce.torch.info_nce is the function to call.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _library as c
from .._options import Plan, plan_for

_FEATURE_TYPES = {torch.float32: c.FLOAT32, torch.float16: c.FLOAT16, torch.bfloat16: c.BFLOAT16}

# Rows of the packed statistics: the float32 ones and the int64 ones of the mixed scores, then those of the unmixed.
FLOAT_SCORES = ("pos", "neg_mean", "neg_variance", "neg_min", "neg_max", "neg_log_mean_exp")
LOSS_SCORES = ("entropy", "dq_norm")
INT_SCORES = ("neg_count", "n_greater", "n_greater_equal")


class Structure(NamedTuple):
    """What the forward operator takes as int[]: dispatching a list costs far less than as many arguments."""

    normalize: int
    per_pos: int
    renormalize_pos: int
    per_neg: int
    renormalize_neg: int
    columns: int
    anchor: int
    reduction: int
    scores: int
    need_dq: int
    need_dk: int
    need_dtemperature: int


class Numbers(NamedTuple):
    """What it takes as float[]. The temperature counts only where no tensor is given for it."""

    temperature: float
    alpha_pos: float
    shift_pos: float
    alpha_neg: float
    shift_neg: float


_library = torch.library.Library("flashnce", "DEF")
_library.define(
    "info_nce_forward(Tensor q, Tensor k, Tensor negatives, Tensor? temperature, Tensor? weight, Tensor? lambda_pos, "
    "Tensor? lambda_neg, Tensor? permutation, Tensor? seed, SymInt seed_value, SymInt offset, int[] structure, "
    "float[] numbers) "
    "-> (Tensor loss, Tensor dq, Tensor dk, Tensor dtemperature, Tensor float_scores, Tensor int_scores)"
)
_library.define("scale(Tensor gradient, Tensor upstream) -> Tensor")
_library.define(
    "scores(Tensor q, Tensor k, Tensor negatives, Tensor? temperature, float temperature_value, bool normalize) "
    "-> (Tensor float_scores, Tensor int_scores)"
)
_library.define("queue_push(Tensor(a!) queue, Tensor(b!) position, Tensor keys, *, bool normalize) -> ()")


def _device(name: str, tensor: Tensor) -> tuple[int, int, int | None]:
    """fnce_problem.device, device_index and the stream."""
    device = tensor.device
    if device.type == "cpu":
        return c.CPU, 0, None
    if device.type == "cuda":
        return c.CUDA, device.index, torch.cuda.current_stream(device).cuda_stream
    raise ValueError(f"{name} is on device {str(device)!r}; it must be on 'cpu' or 'cuda'")


def _workspace(size: int, device: torch.device) -> tuple[Tensor, int]:
    buffer = torch.empty(size + c.ALIGNMENT, dtype=torch.uint8, device=device)
    return buffer, -(-buffer.data_ptr() // c.ALIGNMENT) * c.ALIGNMENT


def _sizes_or_raise(q: Tensor, k: Tensor, negatives: Tensor, rows: tuple) -> None:
    """What would read past the end of an array if it did not hold."""
    n, d = q.shape
    if k.shape != q.shape or negatives.dim() != 2 or negatives.shape[1] != d:
        raise ValueError(
            f"k has shape {list(k.shape)} and negatives {list(negatives.shape)}; with q {list(q.shape)} they must be "
            f"[{n}, {d}] and [K, {d}]"
        )
    for name, tensor, dtype, count in rows:
        if tensor is None:
            continue
        if tensor.dtype != dtype:
            raise TypeError(f"{name} has type {tensor.dtype}; it must be {dtype}")
        if count is not None and tensor.numel() != count:
            raise ValueError(f"{name} has shape {list(tensor.shape)}; it must have {count} elements")
        if tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}; it must be on the device of q, {q.device}")


def _lambda_count(per: int, rows: int, d: int) -> int:
    return (0, 1, rows, d, rows * d)[per]


def _outputs(q: Tensor, structure: Structure) -> tuple[Tensor, ...]:
    """The tensors that forward returns, unwritten; what is not needed has no elements."""
    n, scores = q.shape[0], structure.scores
    shape = (n,) if structure.reduction == c.REDUCTION["none"] else ()
    unmixed = bool(scores & c.SCORES_UNMIXED)
    floats = (2 if unmixed else 1) * len(FLOAT_SCORES) + len(LOSS_SCORES) if scores else 0
    integers = (2 if unmixed else 1) * len(INT_SCORES) if scores else 0
    new = lambda size, dtype=torch.float32: q.new_empty(size, dtype=dtype)  # noqa: E731
    return (
        new(shape),
        new(q.shape if structure.need_dq else (0,)),
        new(q.shape if structure.need_dk else (0,)),
        new(shape if structure.need_dtemperature else (0,)),
        new((floats, n) if scores else (0, 0)),
        new((integers, n) if scores else (0, 0), torch.int64),
    )


def _point_scores(buffers: c.ScoreBuffers, float_names: tuple[str, ...], floats: Tensor, integers: Tensor) -> None:
    """Points the buffers at the first rows of two packed tensors."""
    for names, rows in ((float_names, floats), (INT_SCORES, integers)):
        at, stride = rows.data_ptr(), rows.element_size() * rows.shape[1]
        for i, name in enumerate(names):
            setattr(buffers, name, at + i * stride)


def _plan(q: Tensor, negatives: Tensor, structure: Structure, given: tuple[bool, bool, bool] = (False,) * 3) -> Plan:
    """The plan of a call; `given` says whether lambda_pos, lambda_neg and the permutation are tensors."""
    device, device_index, _ = _device("q", q)
    key = (
        q.shape[0], negatives.shape[0], q.shape[1], device, device_index, c.FLOAT32,
        _FEATURE_TYPES.get(negatives.dtype, 0), structure.normalize,
        structure.per_pos, int(given[0]), structure.renormalize_pos,
        structure.per_neg, int(given[1]), structure.renormalize_neg, int(given[2]),
        structure.columns, structure.anchor, structure.reduction, structure.scores,
        torch.get_num_threads() if device == c.CPU else 0,
    )  # fmt: skip
    try:
        return plan_for(key)
    except ValueError as error:
        if negatives.dtype != torch.float32:
            raise TypeError(f"negatives has type {negatives.dtype}: {error}") from None
        raise


_args_template = bytes(c.new_args())


def _info_nce_forward(
    q, k, negatives, temperature, weight, lambda_pos, lambda_neg, permutation, seed, seed_value, offset, structure,
    numbers,
):  # fmt: skip
    structure, numbers = Structure(*structure), Numbers(*numbers)
    device, _, stream = _device("q", q)
    n, d = q.shape
    rows = negatives.shape[0]
    f32 = torch.float32
    _sizes_or_raise(
        q, k, negatives,
        (("q", q, f32, None), ("k", k, f32, None), ("negatives", negatives, negatives.dtype, None),
         ("temperature", temperature, f32, 1), ("weight", weight, f32, n),
         ("lambda_pos", lambda_pos, f32, _lambda_count(structure.per_pos, n, d)),
         ("lambda_neg", lambda_neg, f32, _lambda_count(structure.per_neg, rows, d)),
         ("permutation", permutation, torch.int32, rows), ("seed", seed, torch.int64, 1)),
    )  # fmt: skip
    # The rows must be dense; these names keep a copy alive until the call is over.
    q, k, negatives = q.contiguous(), k.contiguous(), negatives.contiguous()
    weight, lambda_pos, lambda_neg, permutation = (
        None if tensor is None else tensor.contiguous() for tensor in (weight, lambda_pos, lambda_neg, permutation)
    )
    given = (lambda_pos is not None, lambda_neg is not None, permutation is not None)
    plan = _plan(q, negatives, structure, given)
    outputs = _outputs(q, structure)
    loss, dq, dk, dtemperature, float_scores, int_scores = outputs

    args = c.Args.from_buffer_copy(_args_template)
    args.x_q, args.x_k = q.data_ptr(), k.data_ptr()
    args.queue = negatives.data_ptr() if rows else None
    args.temperature, args.alpha_pos, args.shift_pos, args.alpha_neg, args.shift_neg = numbers
    args.seed, args.offset = seed_value & 0xFFFFFFFFFFFFFFFF, offset & 0xFFFFFFFFFFFFFFFF
    args.loss = loss.data_ptr()
    if temperature is not None:
        args.temperature_pointer = temperature.data_ptr()
    if seed is not None:
        args.seed_pointer = seed.data_ptr()
    if weight is not None:
        args.weight = weight.data_ptr()
    if lambda_pos is not None:
        args.lambda_pos = lambda_pos.data_ptr()
    if lambda_neg is not None:
        args.lambda_neg = lambda_neg.data_ptr()
    if permutation is not None:
        args.permutation = permutation.data_ptr()
        args.checks = c.CHECK_PERMUTATION if device == c.CPU else 0
    if structure.need_dq:
        args.dq = dq.data_ptr()
    if structure.need_dk:
        args.dk = dk.data_ptr()
    if structure.need_dtemperature and structure.reduction == c.REDUCTION["none"]:
        args.dtemperature_rows = dtemperature.data_ptr()
    elif structure.need_dtemperature:
        args.dtemperature = dtemperature.data_ptr()
    if structure.scores:
        _point_scores(args.mixed, FLOAT_SCORES + LOSS_SCORES, float_scores, int_scores)
    if structure.scores & c.SCORES_UNMIXED:
        floats, integers = float_scores[len(FLOAT_SCORES + LOSS_SCORES) :], int_scores[len(INT_SCORES) :]
        _point_scores(args.unmixed, FLOAT_SCORES, floats, integers)
    buffer, workspace = _workspace(plan.workspace_bytes, q.device)
    c.check(c.LIBRARY.fnce_loss(plan.handle, args, workspace, plan.workspace_bytes, stream))
    return outputs


def _info_nce_forward_fake(
    q, k, negatives, temperature, weight, lambda_pos, lambda_neg, permutation, seed, seed_value, offset, structure,
    numbers,
):  # fmt: skip
    return _outputs(q, Structure(*structure))


def _setup_context(ctx, inputs, output) -> None:
    _, dq, dk, dtemperature, float_scores, int_scores = output
    ctx.save_for_backward(dq, dk, dtemperature)
    ctx.mark_non_differentiable(dq, dk, dtemperature, float_scores, int_scores)
    ctx.set_materialize_grads(False)
    temperature = inputs[3]
    ctx.temperature_shape = None if temperature is None else temperature.shape


_INPUTS = 13


def _backward(ctx, upstream, *_):
    if torch.is_grad_enabled():
        raise NotImplementedError(
            "flashnce.info_nce has no second derivative: call backward or grad without create_graph=True, or use "
            "flashnce.reference.info_nce"
        )
    if upstream is None:
        return (None,) * _INPUTS
    dq, dk, dtemperature = ctx.saved_tensors
    need = ctx.needs_input_grad
    grad_q = torch.ops.flashnce.scale.default(dq, upstream) if need[0] and dq.numel() else None
    grad_k = torch.ops.flashnce.scale.default(dk, upstream) if need[1] and dk.numel() else None
    grad_temperature = None
    if need[3] and dtemperature.numel():
        grad_temperature = (dtemperature * upstream).sum().reshape(ctx.temperature_shape)
    return grad_q, grad_k, None, grad_temperature, *(None,) * (_INPUTS - 4)


class _Eager(torch.autograd.Function):
    """The operator's autograd formula without the kernel that register_autograd makes.

    That kernel rebuilds the operator's schema on each call, which is more work than a small loss.
    """

    @staticmethod
    def forward(ctx, *inputs):
        output = torch.ops.flashnce.info_nce_forward.default(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)


def info_nce_forward(*inputs) -> tuple[Tensor, ...]:
    """The operator, by the shortest way: q, k, negatives, ... as in its schema."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return torch.ops.flashnce.info_nce_forward.default(*inputs)
    return _Eager.apply(*inputs)


def _follow_torch_threads() -> None:
    """Calls without a plan take the process's number of threads: PyTorch's."""
    c.LIBRARY.fnce_set_threads(min(torch.get_num_threads(), 1024))


def _scale(gradient: Tensor, upstream: Tensor) -> Tensor:
    device, device_index, stream = _device("gradient", gradient)
    rows, columns = gradient.shape
    count = upstream.numel()
    if gradient.dtype != torch.float32 or upstream.dtype != torch.float32 or count not in (1, rows):
        raise ValueError(
            f"upstream is {upstream.dtype} {list(upstream.shape)}, gradient {gradient.dtype} {list(gradient.shape)}; "
            f"they must be float32, upstream of 1 or {rows} elements"
        )
    gradient, upstream = gradient.contiguous(), upstream.contiguous()
    out = torch.empty_like(gradient)
    _follow_torch_threads()
    c.check(
        c.LIBRARY.fnce_scale(
            device, device_index, gradient.data_ptr(), rows, columns, upstream.data_ptr(), count, c.FLOAT32,
            out.data_ptr(), stream,
        )
    )  # fmt: skip
    return out


def _scale_fake(gradient: Tensor, upstream: Tensor) -> Tensor:
    return torch.empty_like(gradient, memory_format=torch.contiguous_format)


# The structure of equation (7) without mixing. Any plan serves fnce_scores, and this one MoCo's loss may have made.
_PLAIN = Structure(1, 0, 0, 0, 0, c.COLUMNS["queue"], c.ANCHOR["mixed"], c.REDUCTION["mean"], c.SCORES_NONE, 0, 0, 0)


def _scores_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    n = q.shape[0]
    return q.new_empty((len(FLOAT_SCORES), n)), q.new_empty((len(INT_SCORES), n), dtype=torch.int64)


def _scores(q, k, negatives, temperature, temperature_value, normalize):
    _, _, stream = _device("q", q)
    f32 = torch.float32
    _sizes_or_raise(
        q, k, negatives,
        (("q", q, f32, None), ("k", k, f32, None), ("negatives", negatives, negatives.dtype, None),
         ("temperature", temperature, f32, 1)),
    )  # fmt: skip
    q, k, negatives = q.contiguous(), k.contiguous(), negatives.contiguous()
    plan = _plan(q, negatives, _PLAIN._replace(normalize=int(normalize)))
    floats, integers = _scores_outputs(q)
    args, out = c.Args.from_buffer_copy(_args_template), c.ScoreBuffers()
    args.x_q, args.x_k = q.data_ptr(), k.data_ptr()
    args.queue = negatives.data_ptr() if negatives.shape[0] else None
    args.temperature = temperature_value
    if temperature is not None:
        args.temperature_pointer = temperature.data_ptr()
    _point_scores(out, FLOAT_SCORES, floats, integers)
    buffer, workspace = _workspace(plan.workspace_bytes, q.device)
    c.check(c.LIBRARY.fnce_scores(plan.handle, args, out, workspace, plan.workspace_bytes, stream))
    return floats, integers


def _scores_fake(q, k, negatives, temperature, temperature_value, normalize):
    return _scores_outputs(q)


_push_template = bytes(c.new_push())


def _queue_push(queue: Tensor, position: Tensor, keys: Tensor, *, normalize: bool) -> None:
    device, device_index, stream = _device("queue", queue)
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
    # On a GPU many blocks read the position while one advances it, so what they read must be another tensor.
    read = position if device == c.CPU else position.clone()
    push = c.Push.from_buffer_copy(_push_template)
    push.n, push.k, push.d = keys.shape[0], queue.shape[0], queue.shape[1]
    push.device, push.device_index, push.normalize = device, device_index, int(normalize)
    push.key_type, push.queue_type = _FEATURE_TYPES.get(keys.dtype, 0), _FEATURE_TYPES.get(queue.dtype, 0)
    push.keys, push.queue = keys.data_ptr(), queue.data_ptr()
    push.position_in, push.position_out = read.data_ptr(), position.data_ptr()
    _follow_torch_threads()
    c.check(c.LIBRARY.fnce_queue_push(push, stream))
    for changed in (queue, position):
        if not changed.is_inference():
            torch.autograd.graph.increment_version(changed)


def _queue_push_fake(queue: Tensor, position: Tensor, keys: Tensor, *, normalize: bool) -> None:
    return None


for _name, _implementation, _fake in (
    ("info_nce_forward", _info_nce_forward, _info_nce_forward_fake),
    ("scale", _scale, _scale_fake),
    ("scores", _scores, _scores_fake),
    ("queue_push", _queue_push, _queue_push_fake),
):
    _library.impl(_name, _implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"flashnce::{_name}", _fake, lib=_library)
torch.library.register_autograd("flashnce::info_nce_forward", _backward, setup_context=_setup_context, lib=_library)

queue_push = torch.ops.flashnce.queue_push.default
scores = torch.ops.flashnce.scores.default
