"""The loss in steps: this process's rows against columns that are spread over the processes of a group, those of a
queue and those of a batch.

    agree           sizes, options and the seed                                    a few numbers, all_gather
    fnce_prep       own rows -> anchors                                            all_gather, N (D + 0..2) float32
    fnce_partial    all anchors x own rows of the queue -> a partial of all rows   all_to_all, N (D + 2 ..) float32
    fnce_merge      the partials of the own rows, in the order of the shards
    fnce_finish     loss, gradients and statistics of the own rows

Ids of the rows, where there are any, go with the anchors. Batch columns stay where they are: in the backward pass

    log-sum-exps and upstream gradients of the own rows                             all_gather, 2 N float32
    fnce_columns_backward   the gradient of the own columns from the anchors of all rows

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
from ._ranks import Field, Ranks, float_bits, float_of
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
    "margin_mask": bool,
    "need_dbatch": bool,
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
    "margin_mask": "whether margin is given",
    "need_dbatch": "whether a gradient of the batch is wanted",
}


class NoQueue:
    """What stands in the place of a ShardedQueue where only batch columns are spread over processes."""

    size, sizes, rows, perm_block, check = 0, [], range(0), 0, True

    def __init__(self, group: torch.distributed.ProcessGroup | None, device: torch.device | str) -> None:
        self.ranks, self.queue = Ranks(group), torch.empty(0, 0, device=device)

    @staticmethod
    def shard() -> None:
        """It has no buffers that anything could overwrite."""


def shared_by(negatives: object, gather: object, group: object, q: object) -> ShardedQueue | NoQueue | None:
    """What a call shares with the other processes of a group; None: nothing."""
    if isinstance(negatives, ShardedQueue):
        return negatives
    return _no_queue(group, q.device if isinstance(q, Tensor) else "cpu") if gather is True else None


@torch.compiler.disable
def _no_queue(group: torch.distributed.ProcessGroup | None, device: torch.device | str) -> NoQueue:
    return NoQueue(group, device)


class Call(NamedTuple):
    """A resolved call of info_nce."""

    inputs: Inputs
    structure: Structure
    numbers: Numbers
    draws: bool
    """Whether anything is drawn."""
    seed_given: bool
    numbered: bool
    """Whether ids are row numbers, which count on from rank to rank."""


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
        "whether ids are given": Field(int(inputs.ids is not None), bool),
        "whether ids are row numbers": Field(int(call.numbered), bool),
        "whether bias is given": Field(int(inputs.given().bias), bool),
        "seed, in this call,": Field((1 if call.seed_given else 2) if call.draws else 0, _SEED.get),
        "seed": Field(seed),
    }
    for name, show in _SHOW.items():
        fields[_PUBLIC.get(name, name)] = Field(getattr(structure, name), show)
    for name, value in zip(Numbers._fields[1:], numbers[1:], strict=True):
        fields[_PUBLIC.get(name, name)] = Field(float_bits(value), float_of)
    return fields


@torch.compiler.disable
def fail(queue: ShardedQueue | NoQueue, error: Exception) -> NoReturn:
    """Raises what is wrong with this rank's arguments, on all ranks where the queue checks."""
    if queue.check:
        queue.ranks.agree("info_nce", queue.queue.device, error=error)
    raise error


def _agreed(queue: ShardedQueue | NoQueue, call: Call) -> tuple[list[int], Inputs]:
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


def _own_columns(inputs: Inputs, queue: ShardedQueue | NoQueue, structure: Structure) -> Inputs:
    """What is given for each row of the whole queue, cut to those of this rank; ids may be those of its shard."""
    own = slice(queue.rows.start, queue.rows.stop)
    if inputs.lambda_neg is not None and structure.per_neg in (c.LAMBDA["row"], c.LAMBDA["element"]):
        inputs = inputs._replace(lambda_neg=inputs.lambda_neg[own])
    for name in ("negative_ids", "bias"):
        value = getattr(inputs, name)
        if value is not None and len(value) > len(queue.rows):
            inputs = inputs._replace(**{name: value[own]})
    return inputs


class _Steps:
    """fnce_prep to fnce_finish of one call, with what goes to the other ranks in between."""

    def __init__(self, queue: ShardedQueue | NoQueue, inputs: Inputs, call: Call, sizes: list[int]):
        self.ranks, self.sizes, self.structure = queue.ranks, sizes, call.structure
        self.starts = list(itertools.accumulate(sizes, initial=0))
        inputs = _own_columns(inputs, queue, call.structure)
        if call.numbered:
            ids = inputs.ids + self.starts[self.ranks.rank]
            inputs = inputs._replace(ids=ids, batch_ids=ids)
        self.inputs = inputs = inputs.dense()
        check_inputs(inputs, call.structure)
        first_row = inputs.row_offset + self.starts[self.ranks.rank]
        self.part = Part(queue.size, first_row, queue.rows.start, queue.perm_block)
        self.args = arguments_of(inputs, call.numbers)
        # A shard without rows has no lambda to point at, but a pointer there must be.
        self.spare = inputs.q.new_zeros(1, dtype=torch.float32)
        if inputs.lambda_neg is not None and inputs.lambda_neg.numel() == 0:
            self.args.lambda_neg = self.spare.data_ptr()
        self.stream = stream_of(inputs.q)
        # The library has no problem without rows; such a rank makes its part of the others' scores all the same.
        self.rows = sizes[self.ranks.rank]
        self.own = self.plan(max(self.rows, 1))
        self.everybody: Everybody | None = None

    def plan(self, n: int, row_offset: int | None = None):
        """That of the own rows, whose columns are all in a partial, or, with a row_offset, of others against the own
        columns."""
        if row_offset is None:
            given, part = self.inputs.given()._replace(ids=False, bias=False, batch=0), self.part
        else:
            given, part = self.inputs.given(), self.part._replace(row_offset=row_offset)
        return plan_of(self.inputs.q, self.inputs.negatives, self.structure, given, part, n)

    def run(self, function, plan, *arguments) -> None:
        buffer, workspace = workspace_of(plan.workspace_bytes, self.inputs.q.device)
        c.check(function(plan.handle, *arguments, workspace, plan.workspace_bytes, self.stream))

    def anchors(self) -> Everybody:
        """Those of the rows of all ranks, with the scores of their positives and their ids."""
        q, scores, ids = self.inputs.q, self.structure.scores, self.inputs.ids
        anchor = q.new_empty(q.shape, dtype=torch.float32)
        wanted = scores & c.SCORES_MIXED or self.structure.margin_mask, scores & c.SCORES_UNMIXED
        pos = [anchor.new_empty(len(q)) if one else None for one in wanted]
        if self.rows:
            self.run(c.LIBRARY.fnce_prep, self.own, self.args, _anchors(anchor, *pos))
        columns = [x for x in pos if x is not None]
        packed = torch.cat([anchor, *(x[:, None] for x in columns)], dim=1) if columns else anchor
        packed = self.ranks.gather_rows(packed, self.sizes)
        ids = None if ids is None else self.ranks.gather_rows(ids[:, None], self.sizes)[:, 0].contiguous()
        if not columns:
            return Everybody(packed, None, None, ids)
        # One copy each: the library wants dense arrays.
        after = iter(packed[:, q.shape[1] :].T.contiguous())
        return Everybody(
            packed[:, : q.shape[1]].contiguous(), *(None if x is None else next(after) for x in pos), ids
        )

    def partial(self) -> Tensor:
        """The partial of this rank's rows against the whole queue."""
        q, ranks = self.inputs.q, self.ranks
        self.everybody = rows = self.anchors()
        everybody = self.plan(len(rows.anchor), 0)
        whole, at = workspace_of(everybody.partial_bytes(), q.device)
        if rows.ids is not None:
            self.args.query_ids = rows.ids.data_ptr()
        arguments = (self.args, _anchors(*rows[:3]), at, everybody.partial_bytes())
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
        point_outputs(self.args, outputs, self.structure, self.inputs.given().bias)
        self.run(c.LIBRARY.fnce_finish, self.own, self.args, at, size)


def _columns_gradient(
    everybody: Everybody, log_sum_exp: Tensor, upstream: Tensor, batch: Inputs, call: Call, queue_type: torch.dtype
) -> Tensor:
    """Equation (16) for the own batch columns.

    Args:
        everybody: the anchors of the rows of all ranks.
        log_sum_exp, upstream: theirs, float32 [N]; the second with weights and the number of rows of a mean.
        batch: the own columns, their ids and biases, and the temperature.
    """
    x_c = batch.batch
    if not len(x_c) or not len(everybody.anchor):
        return torch.zeros_like(x_c)
    empty = x_c.new_empty((0, x_c.shape[1]), dtype=queue_type)
    # The anchors stand for the features, which are not read.
    inputs = batch._replace(q=everybody.anchor, k=everybody.anchor, negatives=empty, ids=everybody.ids).dense()
    structure = call.structure._replace(
        per_pos=0, renormalize_pos=0, per_neg=0, renormalize_neg=0, columns=c.COLUMNS["queue"],
        reduction=c.REDUCTION["none"], scores=c.SCORES_NONE,
    )  # fmt: skip
    kind = element_type("batch", x_c)
    plan = plan_of(x_c, empty, structure, inputs.given(), n=len(everybody.anchor), gradient_type=kind)
    args, out = arguments_of(inputs, call.numbers), torch.empty_like(inputs.batch)
    buffer, workspace = workspace_of(plan.workspace_bytes, x_c.device)
    c.check(
        c.LIBRARY.fnce_columns_backward(
            plan.handle, args, _anchors(*everybody[:3]), log_sum_exp.data_ptr(), upstream.data_ptr(), len(upstream),
            out.data_ptr(), workspace, plan.workspace_bytes, stream_of(x_c),
        )
    )  # fmt: skip
    return out


class Everybody(NamedTuple):
    """The rows of all ranks."""

    anchor: Tensor
    """float32 [N,D]"""
    pos: Tensor | None
    unmixed_pos: Tensor | None
    """float32 [N]: scores of the positives."""
    ids: Tensor | None
    """int64 [N]"""


def _anchors(anchor: Tensor, pos: Tensor | None, unmixed_pos: Tensor | None) -> c.Anchors:
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in (anchor, pos, unmixed_pos))
    return c.Anchors(*pointers)


class ShardedInfoNCE(torch.autograd.Function):
    """Gradients are made in the forward pass, so that the backward pass exchanges nothing; but for those of batch
    columns, to which the rows of all ranks send theirs."""

    @staticmethod
    def forward(ctx, queue, call, sizes, inputs, q, k, temperature, batch):
        outputs = outputs_of(inputs.q, call.structure)
        steps = _Steps(queue, inputs, call, sizes)
        steps.finish(outputs)
        ctx.shared = None
        more: tuple[Tensor | None, ...] = ()
        if call.structure.need_dbatch:
            ctx.shared = queue.ranks, sizes, call, inputs.negatives.dtype
            of = steps.inputs
            everybody = steps.everybody or Everybody(inputs.q.new_empty(0, inputs.q.shape[1]), None, None, None)
            more = (outputs[4], of.weight, of.batch, of.temperature, of.batch_ids, of.batch_bias, *everybody)
        own = call.structure._replace(need_dbatch=0)
        return _autograd.kept(ctx, inputs, own, call.numbers, outputs, more)

    @staticmethod
    def backward(ctx, upstream, *_):
        gradients = _autograd.gradients_kept(ctx, upstream, ctx.needs_input_grad[4:])
        if ctx.shared is not None:
            found = ShardedInfoNCE._of_columns(ctx, upstream)
            if torch.is_grad_enabled() and upstream is not None:
                found = _autograd.Underivable.apply(found, upstream, *ctx.edges)
            gradients = gradients._replace(batch=found)
        return None, None, None, None, *gradients

    @staticmethod
    @torch.no_grad()
    def _of_columns(ctx, upstream: Tensor | None) -> Tensor | None:
        ranks, sizes, call, queue_type = ctx.shared
        own, weight, x_c, temperature, batch_ids, batch_bias, *everybody = ctx.saved_tensors[3:][:10]
        rows = sizes[ranks.rank]
        # What comes from above to each row of the reduced loss. A row of weight 0 sends nothing, whatever it is.
        sent = own.new_zeros(rows) if upstream is None else upstream.detach().float().expand(rows)
        if call.structure.reduction == c.REDUCTION["mean"]:
            sent = sent / max(rows, 1)
        if weight is not None:
            sent = torch.where(weight == 0, 0.0, weight * sent)
        both = ranks.gather_rows(torch.stack([own, sent], 1), sizes).T.contiguous()
        batch = Inputs(
            None, None, None, batch=x_c, temperature=temperature, batch_ids=batch_ids, batch_bias=batch_bias
        )
        return _columns_gradient(Everybody(*everybody), both[0], both[1], batch, call, queue_type)


@torch.compiler.disable
def info_nce_forward(queue: ShardedQueue | NoQueue, call: Call) -> tuple[tuple[Tensor, ...], Inputs]:
    """The loss with the packed statistics, and the inputs as used, with the seed of rank 0."""
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError("negatives is a ShardedQueue, which the transforms of torch.func do not take")
    _autograd.refuse_reentrant_checkpoint()
    sizes, inputs = _agreed(queue, call)
    return ShardedInfoNCE.apply(queue, call, sizes, inputs, *_autograd.Gradients.of(inputs)), inputs
