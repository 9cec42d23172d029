"""info_nce and InfoNCE: arguments are checked and resolved here, the operator computes.

Everything here can be traced by torch.compile: no data is read, and a seed that is drawn stays on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import torch
from torch import Tensor, nn

from .. import _library as c
from .._options import PRESETS, Mix, choice, flag, key_is_detached, mix_or_none, number, resolve_columns
from . import _autograd, _sharded
from ._arguments import (
    check_shared, mixing_of, negative_rows, of_one_type, offset_of, pair, row_offset_of, seed_of,
    temperature_or_number, weight_or_none,
)  # fmt: skip
from ._call import Inputs, Numbers, Structure
from ._columns import batch_or_none, biases_of, ids_of, margin_of
from ._queue import Queue
from ._sharded_queue import ShardedQueue
from ._statistics import Scores, unpack_scores

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NO_MIX = Mix(1.0)


class Options(TypedDict, total=False):
    """The keyword arguments of info_nce, for whoever passes them on."""

    batch: Tensor | bool | None
    ids: Tensor | None
    negative_ids: Tensor | None
    batch_ids: Tensor | None
    bias: Tensor | None
    batch_bias: Tensor | None
    margin: float | None
    form: str
    temperature: float | Tensor
    normalize: bool
    positive: Mix | None
    negative: Mix | None
    columns: str | None
    anchor: str
    detach_key: bool | None
    reduction: str
    weight: Tensor | None
    lambda_pos: Tensor | float | None
    lambda_neg: Tensor | float | None
    permutation: Tensor | None
    seed: int | Tensor | None
    offset: int
    generator: torch.Generator | None
    rng: str
    row_offset: int
    gather: bool
    group: torch.distributed.ProcessGroup | None


@overload
def info_nce(
    q: Tensor,
    k: Tensor,
    negatives: Queue | ShardedQueue | Tensor | None = ...,
    *,
    return_scores: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def info_nce(
    q: Tensor,
    k: Tensor,
    negatives: Queue | ShardedQueue | Tensor | None = ...,
    *,
    return_scores: Literal[True],
    **options: Unpack[Options],
) -> tuple[Tensor, Scores]: ...
def info_nce(
    q: Tensor,
    k: Tensor,
    negatives: Queue | ShardedQueue | Tensor | None = None,
    *,
    batch: Tensor | bool | None = None,
    ids: Tensor | None = None,
    negative_ids: Tensor | None = None,
    batch_ids: Tensor | None = None,
    bias: Tensor | None = None,
    batch_bias: Tensor | None = None,
    margin: float | None = None,
    form: str = "info_nce",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    positive: Mix | None = None,
    negative: Mix | None = None,
    columns: str | None = None,
    anchor: str = "mixed",
    detach_key: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
    lambda_pos: Tensor | float | None = None,
    lambda_neg: Tensor | float | None = None,
    permutation: Tensor | None = None,
    seed: int | Tensor | None = None,
    offset: int = 0,
    generator: torch.Generator | None = None,
    rng: str = "rank",
    row_offset: int = 0,
    gather: bool = False,
    group: torch.distributed.ProcessGroup | None = None,
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Scores]:
    """The contrastive loss of equation (7) in one fused pass, differentiable in q, k, the batch columns and the
    temperature.

    Columns, which the positives compete with, are a queue's, a batch's or both; docs/negatives.md shows which training
    takes which. Gradients are computed in the forward pass, those of batch columns in the backward pass without the
    queue, so that a push in between does not touch them. There is no second derivative: create_graph=True is no error,
    but differentiating what comes of it is. torch.func.grad, vjp, jacrev and functional_call work (not with a
    ShardedQueue); jvp and vmap are refused.

    Args:
        q, k: [N,D] queries and their keys: float32, float16 or bfloat16, which are read as they are, computed in
            float32 (also under autocast) and get gradients of their own type, rounded once. If q and k have two types,
            float32 copies are made.
        negatives: a Queue, or [K,D], float32, float16 or bfloat16, used as given (never normalised), or None. Has no
            gradient; columns that need one are batch columns.
            With 16-bit ones a GPU multiplies numbers of that type, as do processors that can with bfloat16 ones: q^,
            mixed negatives and the weights of the softmax are rounded to it, and the sums are float32. A ShardedQueue,
            whose rows are spread over processes, makes the call collective: reductions are over this process's rows,
            draws are those of one process with all rows, lambda_neg, negative_ids and bias are of all K and the same on
            all ranks, and rng is of no account: a seed that is drawn is rank 0's. Batch columns are then those of all
            ranks, as with `gather`.
            Rows that do not follow each other in memory are copied by every call: MoCo's buffer [D,K] must not come in
            as `queue.T` but be loaded into a Queue, and a warning says so where the copy is large.
        batch: [C,D] raw features of q's kinds, columns that are normalised like q and never mixed, equation (13), with
            a gradient if they require one. Normalised, they are rounded to the type of the negatives, or of q where
            there are none. True: the keys of this call; ids that are None are then row numbers, so that each row leaves
            its own key out, and k gets both gradients, that of the positives and that of the columns.
        ids: int64 [N], such as indices in the data set or labels: a column whose id is the row's is none of its
            negatives, equation (14). All columns then need ids: a Queue(..., ids=True), negative_ids [K], batch_ids
            [C] (those of the rows, for batch=True). NO_COLUMN as the id of a column makes it nobody's negative, and as
            the id of a row says that it has none.
        bias, batch_bias: float32 [K] and [C], added to the scores of the columns after the division by the
            temperature, equation (15); -inf leaves a column out. Have no gradient.
        margin: leaves columns out that score above the positive by more than this number, before the division by the
            temperature, equation (14).
        form: "info_nce" | "decoupled": whether the positive is in the sum of equation (7).
        temperature: tau > 0, at least 2**-126, a number or a tensor of one element and any floating type, rounded to
            float32, which may require a gradient and gets it in its own type. A wrong number in a GPU's memory gives
            NaN.
        normalize: whether q and k are divided by their norms, equation (1).
        positive, negative: Mix of equations (2) and (3), or None: not mixed.
        columns: "queue" | "mixed" | "union", equation (5). None: "mixed" if the negatives are, else "queue".
        anchor: what scores the negatives, equation (6): "mixed" (the mixed query) | "query".
        detach_key: False: k gets its gradient. True: it gets none, as in MoCo, where k comes from a momentum encoder.
            None: as True where k requires no gradient, an error where it does, and as False with batch=True.
        reduction: "none" | "mean" | "sum".
        weight: float32 [N], weights of the rows' losses; 0 gives exactly 0, whatever the row holds. Has no gradient.
        lambda_pos, lambda_neg: explicit lambda, float32, no shift is added. The shape says how many there are: [] or
            [1], [R,1], [1,D], [R,D] with R = N or K. It may come with a Mix, of which only `renormalize` is then used
            and whose `per` must fit the shape.
        permutation: explicit permutation of 0..K-1, int64 or int32 [K], such as torch.randperm(K). One that is no
            bijection raises on the CPU and gives NaN on a GPU; with a ShardedQueue every one raises.
        seed: what the rest is drawn from: an int in 0 .. 2^64-1 or an int64 tensor of one element, used as it is.
            None: an int64 is drawn from `generator`, else from torch's default one, if anything random is needed: on
            the device of q, so that nobody waits for it and that a CUDA graph draws anew at each replay.
        generator: see seed. torch.compile cannot trace one: with fullgraph=True an error, elsewhere a graph break.
        offset: position in the sequence of draws of this seed, a multiple of 4; a call uses up 4.
        rng: for seed=None under torch.distributed: "rank" folds the rank in, so that equal generators give unequal
            draws; "shared" does not.
        row_offset: the number of row 0 in the batch whose draws are wanted: micro-batches with the seed of the batch,
            each with the row that it starts at, draw what the whole batch would (as Scores.seed reports it, or given).
            With a ShardedQueue the rows of all ranks start there.
        gather: whether the batch columns of all ranks are columns of every rank's rows, in rank order. The call and its
            backward pass are then collective: anchors travel, each rank keeps its own columns, and their gradient is
            that of all ranks' losses. Row numbers as ids count on from rank to rank; ids, where they are given, are of
            all ranks. `negatives` is None or a ShardedQueue.
        group: the processes of `gather`; None: the default group or, without torch.distributed, this process alone.
        return_scores: also return Scores, equation (9). The second matrix product then runs even without gradients.

    Returns:
        the loss, float32 [] or, with reduction "none", [N]; with return_scores (loss, Scores).

    Raises:
        TypeError: an argument of the wrong type; float64 features (flashnce.reference.info_nce takes them).
        ValueError: anything else that is wrong, in one sentence that names the argument.
    """
    shared = _sharded.shared_by(negatives, gather, group, q)
    try:
        _check_options(normalize, return_scores, form, anchor, reduction, rng, positive, negative, gather)
        q, k = pair(q, k)
        rows = negative_rows(negatives, q, batch)
        check_shared(shared, negatives, permutation, group)
        grad, in_batch = torch.is_grad_enabled(), batch is True
        if key_is_detached(detach_key, k.requires_grad and grad, in_batch):
            k = k.detach()
        q, k, batch = of_one_type(q, k, batch_or_none(batch, k, q))
        # Those of the whole queue, where it is sharded.
        size = rows.shape[0] if shared is None else shared.size
        temperature, temperature_value = temperature_or_number(temperature, q)
        mixing = mixing_of(positive, negative, lambda_pos, lambda_neg, permutation, size, q)
        positive, negative = positive or _NO_MIX, negative or _NO_MIX
        seed_given = seed is not None
        seed, seed_value = seed_of(seed, generator, rng if shared is None else "shared", q, mixing.draws)
        inputs = Inputs(
            q, k, rows, temperature=temperature, weight=weight_or_none(weight, q), lambda_pos=mixing.lambda_pos,
            lambda_neg=mixing.lambda_neg, permutation=mixing.permutation, seed=seed, seed_value=seed_value,
            offset=offset_of(offset), row_offset=row_offset_of(row_offset), batch=batch,
            **ids_of(negatives, size, q, batch, in_batch, ids, negative_ids, batch_ids),
            **biases_of(size, q, batch, bias, batch_bias),
        )  # fmt: skip
        margin_mask, margin = margin_of(margin)
        structure = Structure(
            normalize=int(normalize), per_pos=c.LAMBDA[mixing.per_pos], renormalize_pos=int(positive.renormalize),
            per_neg=c.LAMBDA[mixing.per_neg], renormalize_neg=int(negative.renormalize),
            columns=resolve_columns(columns, mixing.per_neg != "none"), anchor=c.ANCHOR[anchor],
            reduction=c.REDUCTION[reduction],
            scores=return_scores * (c.SCORES_MIXED | (c.SCORES_UNMIXED if mixing.mixes else 0)),
            need_dq=int(grad and q.requires_grad), need_dk=int(grad and k.requires_grad),
            need_dtemperature=int(grad and temperature is not None and temperature.requires_grad),
            form=c.FORM[form], margin_mask=margin_mask,
            need_dbatch=int(grad and batch is not None and batch.requires_grad),
        )  # fmt: skip
        numbers = Numbers(temperature_value, positive.alpha, positive.shift, negative.alpha, negative.shift, margin)
    except (TypeError, ValueError) as error:
        if torch.compiler.is_compiling():
            # With fullgraph=True PyTorch would hide the sentence; without, the call runs again outside the graph.
            torch._dynamo.graph_break(msg=str(error))
        if shared is not None:
            _sharded.fail(shared, error)
        raise
    if shared is not None:
        call = _sharded.Call(inputs, structure, numbers, mixing.draws, seed_given, in_batch and ids is None)
        outputs, inputs = _sharded.info_nce_forward(shared, call)
    else:
        outputs = _autograd.info_nce_forward(inputs, structure, numbers)
    if not return_scores:
        return outputs[0]
    used = _reported(inputs, seed_given) if mixing.draws else None
    return outputs[0], unpack_scores(*outputs[-2:], mixing.mixes, used, inputs.offset, inputs.given().bias)


def _reported(inputs: Inputs, seed_given: bool) -> Tensor | int:
    """The seed of a call as Scores has it."""
    if inputs.seed is None:
        return inputs.seed_value % 2**64
    # The owner of a given one may change it for the next step, as a FeatureTransform does.
    return inputs.seed.clone() if seed_given else inputs.seed


def _check_options(normalize, return_scores, form, anchor, reduction, rng, positive, negative, gather=False) -> None:
    flag("gather", gather)
    flag("normalize", normalize)
    flag("return_scores", return_scores)
    choice("form", form, tuple(c.FORM))
    choice("anchor", anchor, ("mixed", "query"))
    choice("reduction", reduction, ("none", "mean", "sum"))
    choice("rng", rng, ("rank", "shared"))
    mix_or_none("positive", positive)
    mix_or_none("negative", negative)


class InfoNCE(nn.Module):
    """The loss as a module: `criterion(q, k, queue)`. See info_nce for arguments, shapes and errors.

    Args:
        temperature: a number; an nn.Parameter of one element to learn it (of shape [1] for FSDP, which refuses
            scalars); or a tensor, kept as a buffer. Either may change its floating type with the model, as by .half().
        preset: "moco" (no mixing) | "ft" (one lambda per call) | "ft-elementwise": PRESETS. `positive` and `negative`,
            where given, win over it.
        batch: True: the keys of each call are batch columns, beside the negatives or, where a call gives none, alone.
        mix_in_eval: whether features are mixed after .eval() as well. By default they are not, so that a validation
            loss is that of plain columns and draws nothing. What one call is given wins over it.
    """

    def __init__(
        self,
        temperature: float | Tensor = 0.07,
        preset: str = "moco",
        *,
        positive: Mix | None = None,
        negative: Mix | None = None,
        normalize: bool = True,
        columns: str | None = None,
        anchor: str = "mixed",
        detach_key: bool | None = None,
        reduction: str = "mean",
        rng: str = "rank",
        mix_in_eval: bool = False,
        batch: bool | None = None,
        margin: float | None = None,
        form: str = "info_nce",
    ) -> None:
        super().__init__()
        choice("preset", preset, tuple(PRESETS))
        _check_options(normalize, False, form, anchor, reduction, rng, positive, negative)
        if batch is not None and batch is not True:
            raise TypeError(f"batch is {batch!r}; it must be None or True: a Tensor is given with each call")
        margin_of(margin)
        if isinstance(temperature, Tensor) and not isinstance(temperature, nn.Parameter):
            self.register_buffer("temperature", temperature)
        else:
            if not isinstance(temperature, nn.Parameter):
                temperature = number("temperature", temperature)
            self.temperature = temperature
        self.positive = positive if positive is not None else PRESETS[preset][0]
        self.negative = negative if negative is not None else PRESETS[preset][1]
        resolve_columns(columns, self.negative is not None)
        flag("mix_in_eval", mix_in_eval)
        if detach_key is not None:
            flag("detach_key", detach_key)
        self.normalize, self.columns, self.anchor = normalize, columns, anchor
        self.detach_key, self.reduction, self.rng, self.mix_in_eval = detach_key, reduction, rng, mix_in_eval
        self.batch, self.margin, self.form = batch, margin, form

    def extra_repr(self) -> str:
        temperature = self.temperature if not isinstance(self.temperature, Tensor) else "tensor"
        beyond = {"batch": self.batch, "margin": self.margin, "form": None if self.form == "info_nce" else self.form}
        others = "".join(f", {name}={value!r}" for name, value in beyond.items() if value is not None)
        return f"temperature={temperature}, positive={self.positive}, negative={self.negative}{others}"

    def forward(
        self, q: Tensor, k: Tensor, negatives: Queue | ShardedQueue | Tensor | None = None, **options
    ) -> Tensor | tuple[Tensor, Scores]:
        """The loss; `options` are keyword arguments of info_nce for this call: ids, weight, seed, ...

        After .eval() of plain columns, unless `mix_in_eval` or this call's own Mix or lambda says otherwise.
        """
        return info_nce(q, k, negatives, **self.call_options(options))

    def call_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments of info_nce that a call with these `options` has: the module's own under them."""
        own = {
            "temperature": self.temperature,
            "normalize": self.normalize,
            "positive": self.positive,
            "negative": self.negative,
            "columns": self.columns,
            "anchor": self.anchor,
            "detach_key": self.detach_key,
            "reduction": self.reduction,
            "rng": self.rng,
            "batch": self.batch,
            "margin": self.margin,
            "form": self.form,
        }
        if not (self.training or self.mix_in_eval):
            if options.get("lambda_pos") is None:
                own["positive"] = None
            if options.get("lambda_neg") is None and options.get("negative") is None:
                own["negative"] = own["columns"] = None
        return own | options
