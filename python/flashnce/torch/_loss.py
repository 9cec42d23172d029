"""info_nce and InfoNCE: arguments are checked and resolved here, the operator computes.

Everything here can be traced by torch.compile: no data is read, and a seed that is drawn stays on the device.
"""

from __future__ import annotations

import numbers

import torch
from torch import Tensor, nn

from .. import _library as c
from .._options import (
    PRESETS, Mix, choice, flag, integer, key_is_detached, lambda_granularity, mix_or_none, number, resolve_columns,
)  # fmt: skip
from . import _ops, _sharded
from ._arguments import beside, float_tensor, negative_rows, pair, temperature_or_number
from ._call import Inputs, Numbers, Structure, dense
from ._queue import Queue
from ._sharded import Call
from ._sharded_queue import ShardedQueue
from ._statistics import Scores, unpack_scores

# Spreads the rank over the bits of a seed; odd, so that no two ranks meet.
_RANK_FACTOR = 0x9E3779B97F4A7C15
_SEED_MASK = 2**63 - 1
_NO_MIX = Mix(1.0)


def _mixing(name: str, value: object, mix: Mix | None, rows: int, q: Tensor) -> tuple[str, Tensor | None]:
    """The granularity of a mixing and its explicit lambda."""
    if value is None:
        return ("none" if mix is None else mix.per), None
    if not isinstance(value, (Tensor, bool)) and isinstance(value, numbers.Real):
        # Not torch.full, by which torch.compile makes a graph for each number.
        value = q.new_ones(1, dtype=torch.float32) * value
    value = float_tensor(name, value, q)
    return lambda_granularity(name, tuple(value.shape), rows, q.shape[1], None if mix is None else mix.per), value


def _permutation(value: object, rows: int, negatives_mixed: bool, q: Tensor) -> Tensor | None:
    if value is None:
        return None
    value = dense("permutation", value)
    if value.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"permutation has type {value.dtype}; it must be int64 or int32")
    if not negatives_mixed:
        raise ValueError("permutation is given but the negatives are not mixed; give negative= or lambda_neg= too")
    if tuple(value.shape) != (rows,):
        raise ValueError(f"permutation has shape {list(value.shape)}; it must be [{rows}]")
    beside("permutation", value, q)
    # Clamped first: an index of 2^32 must not become the 0 that is missing.
    return value if value.dtype == torch.int32 else value.clamp(-1, rows).int()


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _seed(seed: object, generator: torch.Generator | None, rng: str, q: Tensor) -> tuple[Tensor | None, int]:
    """The seed as a tensor or, where that is None, as an int64."""
    if seed is None:
        drawn = torch.randint(0, _SEED_MASK, (1,), dtype=torch.int64, device=q.device, generator=generator)
        rank = _rank() if rng == "rank" else 0
        return (drawn ^ ((rank * _RANK_FACTOR) & _SEED_MASK) if rank else drawn), 0
    if isinstance(seed, Tensor):
        seed = dense("seed", seed)
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise ValueError(f"seed is {seed.dtype} {list(seed.shape)}; it must be an int or int64 of one element")
        beside("seed", seed, q)
        return seed, 0
    if isinstance(seed, bool) or not isinstance(seed, (int, numbers.Integral)):
        raise TypeError(f"seed is a {type(seed).__name__}; it must be an int, an int64 Tensor of one element or None")
    seed = integer("seed", seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must be in 0 .. 2^64-1")
    return None, seed if seed < 2**63 else seed - 2**64


def info_nce(
    q: Tensor,
    k: Tensor,
    negatives: Queue | ShardedQueue | Tensor,
    *,
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
    return_scores: bool = False,
) -> Tensor | tuple[Tensor, Scores]:
    """The contrastive loss of equation (7) in one fused pass, differentiable in q, k and the temperature.

    Gradients are computed in the forward pass, so that a push between forward and backward does not touch them. There
    is no second derivative.

    Args:
        q, k: [N,D] queries and their keys: float32, float16 or bfloat16, which are read as they are, computed in
            float32 (also under autocast) and get gradients of their own type, rounded once. If q and k have two types,
            float32 copies are made.
        negatives: a Queue, or [K,D], float32, float16 or bfloat16, used as given (never normalised). Has no gradient,
            so that an in-batch loss such as CLIP's is not to be had, and k's own row must not be among them: it would
            count twice. MoCo v3's loss, whose keys have no gradient, is log(expm1(info_nce(q, k, normalize(k),
            reduction="none"))).mean(): that takes the second count out again.
            With 16-bit ones a GPU multiplies numbers of that type, as do processors that can with bfloat16 ones: q^,
            mixed negatives and the weights of the softmax are rounded to it, and the sums are float32. A ShardedQueue,
            whose rows are spread over processes, makes the call collective: reductions are over this process's rows,
            draws are those of one process with all rows, lambda_neg is of all K, and rng is of no account: a seed that
            is drawn is rank 0's.
        temperature: tau > 0, a number or a tensor of one element and any floating type, rounded to float32, which may
            require a gradient and gets it in its own type. A wrong number in a GPU's memory gives NaN.
        normalize: whether q and k are divided by their norms, equation (1).
        positive, negative: Mix of equations (2) and (3), or None: not mixed.
        columns: "queue" | "mixed" | "union", equation (5). None: "mixed" if the negatives are, else "queue".
        anchor: what scores the negatives, equation (6): "mixed" (the mixed query) | "query".
        detach_key: False: k gets its gradient. True: it gets none, as in MoCo, where k comes from a momentum encoder.
            None: as True where k requires no gradient, an error where it does.
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
        offset: position in the sequence of draws of this seed, a multiple of 4; a call uses up 4.
        rng: for seed=None under torch.distributed: "rank" folds the rank in, so that equal generators give unequal
            draws; "shared" does not.
        return_scores: also return Scores, equation (9). The second matrix product then runs even without gradients.

    Returns:
        the loss, float32 [] or, with reduction "none", [N]; with return_scores (loss, Scores).

    Raises:
        TypeError: an argument of the wrong type; float64 features (flashnce.reference.info_nce takes them).
        ValueError: anything else that is wrong, in one sentence that names the argument.
    """
    arguments = (
        q, k, negatives, temperature, normalize, positive, negative, columns, anchor, detach_key, reduction, weight,
        lambda_pos, lambda_neg, permutation, seed, offset, generator, rng, return_scores,
    )  # fmt: skip
    if isinstance(negatives, ShardedQueue):
        call = error = None
        try:
            call = _resolve(*arguments)
        except (TypeError, ValueError) as wrong:
            error = wrong
        outputs, inputs = _sharded.info_nce_forward(negatives, call, error)
    else:
        call = _resolve(*arguments)
        inputs = call.inputs
        outputs = _ops.info_nce_forward(*inputs, list(call.structure), list(map(float, call.numbers)))
    if not return_scores:
        return outputs[0]
    used = (inputs.seed if inputs.seed is not None else inputs.seed_value % 2**64) if call.draws else None
    return outputs[0], unpack_scores(*outputs[-2:], call.mixes, used, offset)


def _resolve(
    q, k, negatives, temperature, normalize, positive, negative, columns, anchor, detach_key, reduction, weight,
    lambda_pos, lambda_neg, permutation, seed, offset, generator, rng, return_scores,
) -> Call:  # fmt: skip
    """The arguments of info_nce, checked, as the operator takes them."""
    flag("normalize", normalize)
    flag("return_scores", return_scores)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a {type(generator).__name__}; it must be a torch.Generator or None")
    q, k = pair(q, k)
    if key_is_detached(detach_key, k.requires_grad and torch.is_grad_enabled()):
        k = k.detach()
    sharded, given = isinstance(negatives, ShardedQueue), negatives
    negatives = negative_rows(given, q)
    rows = given.size if sharded else negatives.shape[0]
    if sharded and not q.numel():
        raise ValueError(f"q has shape {list(q.shape)}; with a ShardedQueue every rank needs at least one row")
    if sharded and permutation is not None:
        raise ValueError("permutation is given; with a ShardedQueue it must be None: a shard can only draw its own")
    temperature, temperature_value = temperature_or_number(temperature, q)
    mix_or_none("positive", positive)
    mix_or_none("negative", negative)
    choice("anchor", anchor, ("mixed", "query"))
    choice("reduction", reduction, ("none", "mean", "sum"))
    choice("rng", rng, ("rank", "shared"))
    if weight is not None:
        weight = float_tensor("weight", weight, q)
        if tuple(weight.shape) != (q.shape[0],):
            raise ValueError(f"weight has shape {list(weight.shape)}; it must be [{q.shape[0]}]")
    offset = integer("offset", offset)
    if not 0 <= offset < 2**63:
        raise ValueError(f"offset is {offset}; it must be in 0 .. 2^63-1, a multiple of 4")
    per_pos, lambda_pos = _mixing("lambda_pos", lambda_pos, positive, q.shape[0], q)
    per_neg, lambda_neg = _mixing("lambda_neg", lambda_neg, negative, rows, q)
    permutation = _permutation(permutation, rows, per_neg != "none", q)
    draws = (per_pos != "none" and lambda_pos is None) or (
        per_neg != "none" and (lambda_neg is None or permutation is None)
    )
    seed_given = seed is not None
    seed, seed_value = _seed(seed, generator, "shared" if sharded else rng, q) if draws else (None, 0)
    mixes = per_pos != "none" or per_neg != "none"
    positive, negative = positive or _NO_MIX, negative or _NO_MIX
    grad = torch.is_grad_enabled()
    structure = Structure(
        normalize=int(normalize),
        per_pos=c.LAMBDA[per_pos],
        renormalize_pos=int(positive.renormalize),
        per_neg=c.LAMBDA[per_neg],
        renormalize_neg=int(negative.renormalize),
        columns=resolve_columns(columns, per_neg != "none"),
        anchor=c.ANCHOR[anchor],
        reduction=c.REDUCTION[reduction],
        scores=(c.SCORES_MIXED | c.SCORES_UNMIXED if mixes else c.SCORES_MIXED) if return_scores else c.SCORES_NONE,
        need_dq=int(grad and q.requires_grad),
        need_dk=int(grad and k.requires_grad),
        need_dtemperature=int(grad and temperature is not None and temperature.requires_grad),
    )
    numbers = Numbers(temperature_value, positive.alpha, positive.shift, negative.alpha, negative.shift)
    inputs = Inputs(
        q, k, negatives, temperature, weight, lambda_pos, lambda_neg, permutation, seed, seed_value, offset
    )
    return Call(inputs, structure, numbers, draws, seed_given, mixes)


class InfoNCE(nn.Module):
    """The loss as a module: `criterion(q, k, queue)`. See info_nce for arguments, shapes and errors.

    Args:
        temperature: a number; an nn.Parameter of one element to learn it (of shape [1] for FSDP, which refuses
            scalars); or a tensor, kept as a buffer. Either may change its floating type with the model, as by .half().
        preset: "moco" (no mixing) | "ft" (one lambda per call) | "ft-elementwise": PRESETS. `positive` and `negative`,
            where given, win over it.
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
    ) -> None:
        super().__init__()
        choice("preset", preset, tuple(PRESETS))
        mix_or_none("positive", positive)
        mix_or_none("negative", negative)
        choice("anchor", anchor, ("mixed", "query"))
        choice("reduction", reduction, ("none", "mean", "sum"))
        choice("rng", rng, ("rank", "shared"))
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
        flag("normalize", normalize)
        if detach_key is not None:
            flag("detach_key", detach_key)
        self.normalize, self.columns, self.anchor = normalize, columns, anchor
        self.detach_key, self.reduction, self.rng, self.mix_in_eval = detach_key, reduction, rng, mix_in_eval

    def extra_repr(self) -> str:
        temperature = self.temperature if not isinstance(self.temperature, Tensor) else "tensor"
        return f"temperature={temperature}, positive={self.positive}, negative={self.negative}"

    def forward(
        self, q: Tensor, k: Tensor, negatives: Queue | ShardedQueue | Tensor, **options
    ) -> Tensor | tuple[Tensor, Scores]:
        """The loss; `options` are keyword arguments of info_nce for this call: weight, seed, return_scores, ...

        After .eval() of plain columns, unless `mix_in_eval` or this call's own Mix or lambda says otherwise.
        """
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
        }
        if not (self.training or self.mix_in_eval):
            if options.get("lambda_pos") is None:
                own["positive"] = None
            if options.get("lambda_neg") is None and options.get("negative") is None:
                own["negative"] = own["columns"] = None
        return info_nce(q, k, negatives, **(own | options))
