"""One call of the library from tensors: its plan, arguments, outputs and workspace.

Shared by the operators and by the loss in steps.
"""

from __future__ import annotations

import math
import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _library as c
from .._library import FLOAT_SCORES, INT_SCORES, LOSS_SCORES
from .._options import Plan, check_temperature, plan_for

ELEMENT_TYPES = {torch.float32: c.FLOAT32, torch.float16: c.FLOAT16, torch.bfloat16: c.BFLOAT16}


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
    form: int = c.FORM["info_nce"]
    margin_mask: int = 0
    need_dbatch: int = 0


class Numbers(NamedTuple):
    """What it takes as float[]. The temperature counts only where no tensor is given for it."""

    temperature: float
    alpha_pos: float
    shift_pos: float
    alpha_neg: float
    shift_neg: float
    margin: float = 0.0


def device_of(name: str, tensor: Tensor) -> tuple[int, int]:
    """fnce_problem.device and device_index."""
    device = tensor.device
    if device.type == "cpu":
        return c.CPU, 0
    if device.type == "cuda":
        return c.CUDA, device.index
    raise ValueError(f"{name} is on device {str(device)!r}; it must be on 'cpu' or 'cuda'")


def dense(name: str, value: object) -> Tensor:
    """`value`, where it is a tensor whose memory the library can read."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a Tensor")
    if hasattr(value, "to_local"):
        raise TypeError(f"{name} is a {type(value).__name__}; pass {name}.to_local(), this rank's part of it")
    if type(value).__name__ == "MaskedTensor":
        raise TypeError(f"{name} is a MaskedTensor; pass {name}.to_tensor(0), and weight= for rows that do not count")
    if value.is_nested:
        raise TypeError(f"{name} is a nested Tensor; it must be dense: pass its rows, such as {name}.values()")
    if value.layout != torch.strided:
        words = "mkldnn" if value.is_mkldnn else str(value.layout).removeprefix("torch.")
        raise TypeError(f"{name} has layout {words}; it must be dense: pass {name}.to_dense()")
    return value


def stream_of(tensor: Tensor) -> int | None:
    """PyTorch's current stream of the tensor's device. Temporary tensors of a call are allocated on the same one, so
    that they may go as soon as the call is enqueued, in a graph capture too."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.device.type == "cuda" else None


def workspace_of(size: int, device: torch.device) -> tuple[Tensor, int]:
    buffer = torch.empty(size + c.ALIGNMENT, dtype=torch.uint8, device=device)
    return buffer, -(-buffer.data_ptr() // c.ALIGNMENT) * c.ALIGNMENT


def lambda_count(per: int, rows: int, d: int) -> int:
    return (0, 1, rows, d, rows * d)[per]


def outputs_of(q: Tensor, structure: Structure) -> tuple[Tensor | None, ...]:
    """The tensors of a call, unwritten: loss, gradients of q, k and the temperature, log-sum-exps of the rows, packed
    statistics of float32 and of int64; None for what is not needed."""
    n, scores = q.shape[0], structure.scores
    shape = (n,) if structure.reduction == c.REDUCTION["none"] else ()
    blocks = 2 if scores & c.SCORES_UNMIXED else 1
    new = lambda size, dtype=torch.float32: q.new_empty(size, dtype=dtype)  # noqa: E731
    return (
        new(shape),
        new(q.shape) if structure.need_dq else None,
        new(q.shape) if structure.need_dk else None,
        new(shape) if structure.need_dtemperature else None,
        new((n,)) if structure.need_dbatch else None,
        new((blocks * len(FLOAT_SCORES) + len(LOSS_SCORES), n)) if scores else None,
        new((blocks * len(INT_SCORES), n), torch.int64) if scores else None,
    )


def point_scores(buffers: c.ScoreBuffers, float_names: tuple[str, ...], floats: Tensor, integers: Tensor) -> None:
    """Points the buffers at the first rows of two packed tensors."""
    for names, rows in ((float_names, floats), (INT_SCORES, integers)):
        at, stride = rows.data_ptr(), rows.element_size() * rows.shape[1]
        for i, name in enumerate(names):
            setattr(buffers, name, at + i * stride)


class Part(NamedTuple):
    """Where the rows and the negatives of a call lie in a larger whole: fields of fnce_problem."""

    k_global: int = 0
    row_offset: int = 0
    column_offset: int = 0
    perm_block: int = 0


# Copies of negatives from this size on are worth a word.
_LARGE_COPY = 1 << 20


def _warn_of_copy(negatives: Tensor) -> None:
    """A copy could be kept for the next call, but nothing tells for sure whether its source has changed by then: writes
    through .data and broadcasts of buffers leave no trace."""
    size = negatives.numel() * negatives.element_size()
    if size >= _LARGE_COPY:
        warnings.warn(
            f"flashnce: negatives has strides {tuple(negatives.stride())} and is copied, {size >> 20} MiB, by every "
            "call; keep its rows one after another, [K, D], as flashnce.torch.Queue does, whose load_state_dict takes "
            "a queue [D, K] of MoCo",
            stacklevel=2,
        )


class Sizes(NamedTuple):
    """Rows, negatives, batch columns and features of a call."""

    n: int
    k: int
    batch: int
    d: int


class Optional(NamedTuple):
    """A tensor that a call may read besides q, k and the negatives. A line of OPTIONAL is all that the operator, its
    checks and the library's arguments need to know of it."""

    name: str
    pointer: str
    """The field of fnce_args that points at it."""
    dtype: torch.dtype | None
    """None: that of q."""
    count: Callable[[Structure, Sizes], int]
    """How many elements it has."""


OPTIONAL = (
    Optional("temperature", "temperature_pointer", torch.float32, lambda s, of: 1),
    Optional("weight", "weight", torch.float32, lambda s, of: of.n),
    Optional("lambda_pos", "lambda_pos", torch.float32, lambda s, of: lambda_count(s.per_pos, of.n, of.d)),
    Optional("lambda_neg", "lambda_neg", torch.float32, lambda s, of: lambda_count(s.per_neg, of.k, of.d)),
    Optional("permutation", "permutation", torch.int32, lambda s, of: of.k),
    Optional("seed", "seed_pointer", torch.int64, lambda s, of: 1),
    Optional("batch", "x_c", None, lambda s, of: of.batch * of.d),
    Optional("ids", "query_ids", torch.int64, lambda s, of: of.n),
    Optional("negative_ids", "column_ids", torch.int64, lambda s, of: of.k),
    Optional("batch_ids", "batch_ids", torch.int64, lambda s, of: of.batch),
    Optional("bias", "column_bias", torch.float32, lambda s, of: of.k),
    Optional("batch_bias", "batch_bias", torch.float32, lambda s, of: of.batch),
)
_REQUIRED, _INTEGERS = ("q", "k", "negatives"), ("seed_value", "offset", "row_offset")
_NAMES = (*_REQUIRED, *(optional.name for optional in OPTIONAL), *_INTEGERS)
# The operator's inputs as its schema has them; structure and numbers follow.
INPUT_SCHEMA = ", ".join((
    *(f"Tensor {name}" for name in _REQUIRED), *(f"Tensor? {optional.name}" for optional in OPTIONAL),
    *(f"SymInt {name}" for name in _INTEGERS),
))  # fmt: skip


class Given(NamedTuple):
    """What a plan depends on beside sizes, types and Structure: which tensors there are, and the batch columns."""

    lambda_pos: bool = False
    lambda_neg: bool = False
    permutation: bool = False
    ids: bool = False
    bias: bool = False
    batch: int = 0


class Inputs(namedtuple("Inputs", _NAMES, defaults=(*(None,) * len(OPTIONAL), *(0,) * len(_INTEGERS)))):
    """What a call reads, in the order of the operator: q, k, negatives, the tensors of OPTIONAL or None, and integers:
    the seed, where no tensor is given for it, the offset of its draws, and the first row's number in the batch."""

    __slots__ = ()

    def dense(self) -> Inputs:
        """The same with contiguous rows; keep it until the call is over, as it may hold copies."""
        if not self.negatives.is_contiguous():
            _warn_of_copy(self.negatives)
        return Inputs(*(x.contiguous() if isinstance(x, Tensor) else x for x in self))

    def given(self) -> Given:
        """What the plan knows of the tensors that there are."""
        return Given(
            *(x is not None for x in (self.lambda_pos, self.lambda_neg, self.permutation, self.ids)),
            self.bias is not None or self.batch_bias is not None,
            0 if self.batch is None else self.batch.shape[0],
        )

    def integers(self) -> tuple[int, ...]:
        return self[-len(_INTEGERS) :]

    def tensors(self) -> tuple[Tensor | None, ...]:
        return self[: -len(_INTEGERS)]

    def optional(self) -> list[tuple[Optional, Tensor]]:
        """Those of OPTIONAL that there are."""
        return [(optional, x) for optional, x in zip(OPTIONAL, self[len(_REQUIRED) :]) if x is not None]


def check_inputs(inputs: Inputs, structure: Structure) -> None:
    """Everything that the library cannot see, and what would read past the end of an array: types, sizes and devices of
    tensors."""
    q, k, negatives = inputs[: len(_REQUIRED)]
    n, d = q.shape
    element_type("q", q)
    if k.shape != q.shape or negatives.dim() != 2 or negatives.shape[1] != d:
        raise ValueError(
            f"k has shape {list(k.shape)} and negatives {list(negatives.shape)}; with q {list(q.shape)} they must be "
            f"[{n}, {d}] and [K, {d}]"
        )
    if k.dtype != q.dtype:
        raise TypeError(f"k has type {k.dtype}; it must be {q.dtype}")
    for name, tensor in (("k", k), ("negatives", negatives)):
        same_device(name, tensor, q)
    given = inputs.given()
    if given.batch and inputs.batch.shape != (given.batch, d):
        raise ValueError(f"batch has shape {list(inputs.batch.shape)}; it must be [C, {d}]")
    sizes = Sizes(n, negatives.shape[0], given.batch, d)
    for optional, tensor in inputs.optional():
        dtype = q.dtype if optional.dtype is None else optional.dtype
        if tensor.dtype != dtype:
            raise TypeError(f"{optional.name} has type {tensor.dtype}; it must be {dtype}")
        count = optional.count(structure, sizes)
        if tensor.numel() != count:
            raise ValueError(f"{optional.name} has shape {list(tensor.shape)}; it must have {count} elements")
        same_device(optional.name, tensor, q)
    if inputs.temperature is not None and device_of("temperature", inputs.temperature)[0] == c.CPU:
        check_temperature(inputs.temperature.item())


def same_device(name: str, tensor: Tensor, q: Tensor) -> None:
    if tensor.device != q.device:
        raise ValueError(f"{name} is on {tensor.device}; it must be on the device of q, {q.device}")


def plan_of(
    q: Tensor,
    negatives: Tensor,
    structure: Structure,
    given: Given = Given(),
    part: Part = Part(),
    n: int | None = None,
    gradient_type: int = c.FLOAT32,
) -> Plan:
    """The plan of a call with n rows (those of q)."""
    device, device_index = device_of("q", q)
    key = (
        q.shape[0] if n is None else n, negatives.shape[0], q.shape[1], *part, device, device_index,
        element_type("q", q), element_type("negatives", negatives), gradient_type, structure.normalize,
        structure.per_pos, int(given.lambda_pos), structure.renormalize_pos,
        structure.per_neg, int(given.lambda_neg), structure.renormalize_neg, int(given.permutation),
        structure.columns, structure.anchor, structure.reduction, structure.scores,
        torch.get_num_threads() if device == c.CPU else 0,
        structure.form, int(given.ids), int(given.bias), structure.margin_mask, given.batch,
    )  # fmt: skip
    return plan_for(key)


def element_type(name: str, tensor: Tensor) -> int:
    """FNCE_FLOAT32, FNCE_FLOAT16 or FNCE_BFLOAT16."""
    code = ELEMENT_TYPES.get(tensor.dtype)
    if code is None:
        raise TypeError(f"{name} has type {tensor.dtype}; it must be float32, float16 or bfloat16")
    return code


_ARGS_TEMPLATE = bytes(c.new_args())


def arguments_of(inputs: Inputs, numbers: Numbers) -> c.Args:
    """fnce_args that reads `inputs`, which are dense, and writes nothing yet."""
    args = c.Args.from_buffer_copy(_ARGS_TEMPLATE)
    args.x_q, args.x_k = inputs.q.data_ptr(), inputs.k.data_ptr()
    args.queue = inputs.negatives.data_ptr() if inputs.negatives.shape[0] else None
    args.temperature, args.alpha_pos, args.shift_pos, args.alpha_neg, args.shift_neg, args.margin = numbers
    args.seed, args.offset = inputs.seed_value & 0xFFFFFFFFFFFFFFFF, inputs.offset & 0xFFFFFFFFFFFFFFFF
    for optional, tensor in inputs.optional():
        setattr(args, optional.pointer, tensor.data_ptr())
    if inputs.permutation is not None:
        # On a GPU the kernels check it, for nobody waits for them: what they find wrong gives NaN.
        args.checks = c.CHECK_PERMUTATION
    return args


def point_outputs(args: c.Args, outputs: tuple[Tensor, ...], structure: Structure, biased: bool) -> None:
    """Points `args` at the tensors of outputs_of; where columns have a bias, nothing is written into the entropy."""
    loss, dq, dk, dtemperature, log_sum_exp, float_scores, int_scores = outputs
    args.loss = loss.data_ptr()
    if structure.need_dq:
        args.dq = dq.data_ptr()
    if structure.need_dk:
        args.dk = dk.data_ptr()
    if structure.need_dtemperature and structure.reduction == c.REDUCTION["none"]:
        args.dtemperature_rows = dtemperature.data_ptr()
    elif structure.need_dtemperature:
        args.dtemperature = dtemperature.data_ptr()
    if structure.need_dbatch:
        args.log_sum_exp = log_sum_exp.data_ptr()
    if structure.scores:
        point_scores(args.mixed, FLOAT_SCORES + LOSS_SCORES, float_scores, int_scores)
        if biased:
            args.mixed.entropy = None
    if structure.scores & c.SCORES_UNMIXED:
        floats, integers = float_scores[len(FLOAT_SCORES + LOSS_SCORES) :], int_scores[len(INT_SCORES) :]
        point_scores(args.unmixed, FLOAT_SCORES, floats, integers)


def write_no_rows(outputs: tuple[Tensor, ...], structure: Structure) -> None:
    """What a call of no rows writes into the tensors of outputs_of: as PyTorch's losses, 0 for the sum of nothing and
    NaN for its mean. The gradient of the temperature is 0."""
    loss, _, _, dtemperature, *_ = outputs
    loss.fill_(math.nan if structure.reduction == c.REDUCTION["mean"] else 0.0)
    if dtemperature is not None:
        dtemperature.zero_()
