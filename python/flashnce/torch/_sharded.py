"""The loss in steps: this process's rows against a queue whose rows are spread over the processes of a group.

    agree           sizes, options and the seed                                    a few numbers, all_gather
    fnce_prep       own rows -> anchors                                            all_gather, N (D + 0..2) float32
    fnce_partial    all anchors x own rows of the queue -> a partial of all rows   all_to_all, N (D + 2 ..) float32
    fnce_merge      the partials of the own rows, in the order of the shards
    fnce_finish     loss, gradients and statistics of the own rows

Each process needs the merged partial of its own rows alone, so an all_to_all of rows moves as little as a
reduce_scatter would, once, with the statistics, and without asking for the maximum first. docs/sharding.md has the
sums.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from .. import _library as c
from . import _autograd
from ._call import (
    ELEMENT_TYPES, Inputs, Numbers, Part, Structure, arguments_of, check_inputs, element_type, outputs_of, plan_of,
    point_outputs, stream_of, workspace_of, write_no_rows,
)  # fmt: skip
from ._ranks import Field, float_bits, float_of
from ._sharded_queue import ShardedQueue

_TYPE_NAMES = {code: str(dtype) for dtype, code in ELEMENT_TYPES.items()}
_SEED = {0: "not needed", 1: "given", 2: "drawn"}


def _name_of(names: dict[str, int]):
    return {code: name for name, code in names.items()}.get


_SHOW = {
    "normalize": bool,
    "per_pos": _name_of(c.LAMBDA),
    "renormalize_pos": bool,
    "per_neg": _name_of(c.LAMBDA),
    "renormalize_neg": bool,
    "columns": _name_of(c.COLUMNS),
    "anchor": _name_of(c.ANCHOR),
    "reduction": _name_of(c.REDUCTION),
    "scores": bool,
    "form": _name_of(c.FORM),
}
# How an error calls the fields of Structure and Numbers.
_PUBLIC = {
    "per_pos": "positive.per",
    "renormalize_pos": "positive.renormalize",
    "per_neg": "negative.per",
    "renormalize_neg": "negative.renormalize",
    "scores": "return_scores",
    "alpha_pos": "positive.alpha",
    "shift_pos": "positive.shift",
    "alpha_neg": "negative.alpha",
    "shift_neg": "negative.shift",
}


class Call(NamedTuple):
    """A resolved call of info_nce."""

    inputs: Inputs
    structure: Structure
    numbers: Numbers
    draws: bool
    """Whether anything is drawn."""
    seed_given: bool


def _fields(call: Call) -> dict[str, Field]:
    """What the ranks must agree on."""
    inputs, structure, numbers = call.inputs, call.structure, call.numbers
    seed = 0
    if call.draws and call.seed_given:
        seed = inputs.seed_value if inputs.seed is None else inputs.seed
    temperature = numbers.temperature if inputs.temperature is None else inputs.temperature
    fields = {
        "type of q": Field(element_type("q", inputs.q), _TYPE_NAMES.get),
        "temperature": Field(float_bits(temperature), float_of),
        "offset": Field(inputs.offset),
        "row_offset": Field(inputs.row_offset),
        "whether lambda_neg is given": Field(int(inputs.lambda_neg is not None), bool),
        "seed, in this call,": Field((1 if call.seed_given else 2) if call.draws else 0, _SEED.get),
        "seed": Field(seed),
    }
    for name, show in _SHOW.items():
        fields[_PUBLIC.get(name, name)] = Field(getattr(structure, name), show)
    for name, value in zip(Numbers._fields[1:], numbers[1:], strict=True):
        fields[_PUBLIC.get(name, name)] = Field(float_bits(value), float_of)
    return fields


@torch.compiler.disable
def fail(queue: ShardedQueue, error: Exception) -> NoReturn:
    """Raises what is wrong with this rank's arguments, on all ranks where the queue checks."""
    if queue.check:
        queue.ranks.agree("info_nce", queue.queue.device, error=error)
    raise error


def _agreed(queue: ShardedQueue, call: Call) -> tuple[list[int], Inputs]:
    """The rows of every rank, and the inputs with the seed that all ranks use: that of rank 0."""
    ranks, inputs = queue.ranks, call.inputs
    if not queue.check:
        queue.check_shard()
        sizes = ranks.equal_rows("q", inputs.q.shape[0], inputs.q)
        return sizes, inputs if inputs.seed is None else inputs._replace(seed=ranks.gather(inputs.seed.reshape(1))[0])
    seed = 0 if inputs.seed is None else inputs.seed
    numbers, seen = ranks.agree(
        "info_nce", inputs.q.device, (inputs.q.shape[0], seed), _fields(call), first_row=queue.shard()
    )
    sizes = [row[0] for row in numbers]
    return sizes, inputs if inputs.seed is None else inputs._replace(seed=seen[0, 1:].contiguous())


def _own_lambda(inputs: Inputs, queue: ShardedQueue, structure: Structure) -> Inputs:
    """An explicit lambda of the whole queue's rows, cut to those of this rank."""
    if inputs.lambda_neg is None or structure.per_neg not in (c.LAMBDA["row"], c.LAMBDA["element"]):
        return inputs
    return inputs._replace(lambda_neg=inputs.lambda_neg[queue.rows.start : queue.rows.stop])


class _Steps:
    """fnce_prep to fnce_finish of one call, with what goes to the other ranks in between."""

    def __init__(self, queue: ShardedQueue, inputs: Inputs, structure: Structure, numbers: Numbers, sizes: list[int]):
        self.ranks, self.sizes, self.structure = queue.ranks, sizes, structure
        self.inputs = inputs = _own_lambda(inputs, queue, structure).dense()
        check_inputs(inputs, structure)
        self.starts = list(itertools.accumulate(sizes, initial=0))
        first_row = inputs.row_offset + self.starts[self.ranks.rank]
        self.part = Part(queue.size, first_row, queue.rows.start, queue.perm_block)
        self.args = arguments_of(inputs, numbers)
        # A shard without rows has no lambda to point at, but a pointer there must be.
        self.spare = inputs.q.new_zeros(1, dtype=torch.float32)
        if inputs.lambda_neg is not None and inputs.lambda_neg.numel() == 0:
            self.args.lambda_neg = self.spare.data_ptr()
        self.stream = stream_of(inputs.q)
        # The library has no problem without rows; such a rank makes its part of the others' scores all the same.
        self.rows = sizes[self.ranks.rank]
        self.own = self.plan(max(self.rows, 1))

    def plan(self, n: int, row_offset: int | None = None):
        part = self.part if row_offset is None else self.part._replace(row_offset=row_offset)
        return plan_of(self.inputs.q, self.inputs.negatives, self.structure, self.inputs.given(), part, n)

    def run(self, function, plan, *arguments) -> None:
        buffer, workspace = workspace_of(plan.workspace_bytes, self.inputs.q.device)
        c.check(function(plan.handle, *arguments, workspace, plan.workspace_bytes, self.stream))

    def anchors(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Those of the rows of all ranks, with the scores of their positives."""
        q, scores = self.inputs.q, self.structure.scores
        anchor = q.new_empty(q.shape, dtype=torch.float32)
        pos = [anchor.new_empty(len(q)) if scores & bit else None for bit in (c.SCORES_MIXED, c.SCORES_UNMIXED)]
        if self.rows:
            self.run(c.LIBRARY.fnce_prep, self.own, self.args, _anchors(anchor, *pos))
        columns = [x for x in pos if x is not None]
        packed = torch.cat([anchor, *(x[:, None] for x in columns)], dim=1) if columns else anchor
        packed = self.ranks.gather_rows(packed, self.sizes)
        if not columns:
            return packed, None, None
        # One copy each: the library wants dense arrays.
        after = iter(packed[:, q.shape[1] :].T.contiguous())
        return packed[:, : q.shape[1]].contiguous(), *(None if x is None else next(after) for x in pos)

    def partial(self) -> Tensor:
        """The partial of this rank's rows against the whole queue."""
        q, ranks = self.inputs.q, self.ranks
        anchor, pos, unmixed_pos = self.anchors()
        everybody = self.plan(len(anchor), 0)
        whole, at = workspace_of(everybody.partial_bytes(), q.device)
        arguments = (self.args, _anchors(anchor, pos, unmixed_pos), at, everybody.partial_bytes())
        self.run(c.LIBRARY.fnce_partial, everybody, *arguments)
        # The rows of each rank become a partial of their own, and the partials travel.
        plans = [self.plan(n, 0) if n else None for n in self.sizes]
        bytes_of = [plan.partial_bytes() if plan else 0 for plan in plans]
        blocks, to = workspace_of(sum(bytes_of), q.device)
        offsets = list(itertools.accumulate(bytes_of, initial=0))
        for plan, first, offset, size in zip(plans, self.starts, offsets, bytes_of):
            if plan:
                to_rank = plan.handle, to + offset, size, self.stream
                c.check(c.LIBRARY.fnce_partial_rows(everybody.handle, at, first, *to_rank))
        start = to - blocks.data_ptr()
        return ranks.exchange(blocks[start : start + sum(bytes_of)], bytes_of)

    def finish(self, outputs: tuple[Tensor, ...]) -> None:
        # All ranks see the same sizes.
        parts, size = self.partial() if sum(self.sizes) else None, self.own.partial_bytes()
        if not self.rows:
            write_no_rows(outputs, self.structure)
            return
        if parts.data_ptr() % c.ALIGNMENT:
            aligned, _ = workspace_of(parts.numel(), parts.device)
            start = -aligned.data_ptr() % c.ALIGNMENT
            parts = aligned[start : start + parts.numel()].copy_(parts)
        at = parts.data_ptr()
        pointers = (ctypes.c_void_p * self.ranks.count)(*(at + i * size for i in range(self.ranks.count)))
        c.check(c.LIBRARY.fnce_merge(self.own.handle, pointers, self.ranks.count, at, size, self.stream))
        point_outputs(self.args, outputs, self.structure, False)
        self.run(c.LIBRARY.fnce_finish, self.own, self.args, at, size)


def _anchors(anchor: Tensor, pos: Tensor | None, unmixed_pos: Tensor | None) -> c.Anchors:
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in (anchor, pos, unmixed_pos))
    return c.Anchors(*pointers)


class ShardedInfoNCE(torch.autograd.Function):
    """Gradients are made in the forward pass, so that the backward pass exchanges nothing."""

    @staticmethod
    def forward(ctx, queue, call, sizes, inputs, q, k, temperature, batch):
        structure = call.structure
        outputs = outputs_of(inputs.q, structure)
        _Steps(queue, inputs, structure, call.numbers, sizes).finish(outputs)
        return _autograd.kept(ctx, inputs, structure, call.numbers, outputs)

    @staticmethod
    def backward(ctx, upstream, *_):
        return None, None, None, None, *_autograd.gradients_kept(ctx, upstream, ctx.needs_input_grad[4:])


@torch.compiler.disable
def info_nce_forward(queue: ShardedQueue, call: Call) -> tuple[tuple[Tensor, ...], Inputs]:
    """The loss with the packed statistics, and the inputs as used, with the seed of rank 0."""
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError("negatives is a ShardedQueue, which the transforms of torch.func do not take")
    _autograd.refuse_reentrant_checkpoint()
    sizes, inputs = _agreed(queue, call)
    return ShardedInfoNCE.apply(queue, call, sizes, inputs, *_autograd.Gradients.of(inputs)), inputs
