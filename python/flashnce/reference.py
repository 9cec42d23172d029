"""The loss in plain PyTorch and float64, written to be read: the twin that the fast path is tested against.

Equations are those of docs/maths.md. Everything random is an input (flashnce.sample_lambda and flashnce.permutation
give what a seed draws), gradients come from autograd, and nothing is clever. Memory and time are those of the [N,K]
logits, and of [N,K,D] where columns are left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from ._library import NO_COLUMN
from ._options import choice, key_is_detached, resolve_columns, resolve_ids

_SHAPES = "q and k must be [N,D], negatives [K,D], batch [C,D]"


def info_nce(
    q: Tensor,
    k: Tensor,
    negatives: Tensor | None = None,
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
    epsilon: float = 1e-12,
    lambda_pos: Tensor | None = None,
    lambda_neg: Tensor | None = None,
    permutation: Tensor | None = None,
    renormalize_pos: bool = False,
    renormalize_neg: bool = False,
    columns: str | None = None,
    anchor: str = "mixed",
    detach_key: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
    return_scores: bool = False,
):
    """InfoNCE of queries against their keys and columns: a queue of negatives, a batch, or both.

    Args:
        q, k: [N,D] raw features, any floating type. Computed in float64.
        negatives: [K,D], used as it is; None: no queue.
        batch: [C,D] raw batch columns with a gradient, equation (13). True: k itself, and ids that are None become row
            numbers.
        ids: int64 [N], of the queries; negative_ids [K] and batch_ids [C] of the columns, equation (14), or None.
            Where the queries have ids, all columns need them.
        bias, batch_bias: [K] and [C], equation (15); None: 0.
        margin: of scores before the division by the temperature, equation (14); None: nothing is left out for it.
        form: "info_nce" | "decoupled", equation (7).
        temperature: tau, a number or a tensor of one element; has a gradient.
        lambda_pos: broadcastable to [N,D]: [], [N,1], [1,D] or [N,D]; None: no mixing, equation (2).
        lambda_neg: broadcastable to [K,D]; None: no mixing, equation (3). Needs `permutation`, int64 [K].
        columns: "queue" | "mixed" | "union", equation (5); None: "mixed" where lambda_neg is given, else "queue".
        anchor: "mixed" | "query", equation (6).
        detach_key: whether k gets no gradient; None: an error where it requires one, or, with batch=True, its gradient.
        reduction: "none" | "mean" | "sum", equation (7), with `weight` [N]; a weight of 0 selects an exact 0.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or value; the sentence names it.

    Returns:
        the loss, float64, [] or [N]; with return_scores (loss, mixed, unmixed): two dicts of equation (9).
    """
    in_batch = batch is True
    _check_features({"q": q, "k": k, "negatives": negatives, "batch": k if in_batch else batch}, _SHAPES)
    _check_of_rows("weight", weight, len(q))
    _check_options(form, anchor, reduction, columns, lambda_neg is not None, permutation is not None)
    if key_is_detached(detach_key, k.requires_grad and torch.is_grad_enabled(), in_batch):
        k = k.detach()
    batch = k if in_batch else batch
    ids, negative_ids, batch_ids = _all_ids(q, negatives, batch, in_batch, ids, negative_ids, batch_ids)
    q, k = q.double(), k.double()
    negatives = q.new_empty(0, q.shape[1]) if negatives is None else negatives.double()
    batch = q.new_empty(0, q.shape[1]) if batch is None else batch.double()
    biased, n = bias is not None or batch_bias is not None, len(q)
    bias, batch_bias = _bias("bias", bias, negatives), _bias("batch_bias", batch_bias, batch)
    to_unit = lambda x: unit(x, dim=1, eps=epsilon) if normalize else x  # noqa: E731
    lambda_pos, lambda_neg = (None if x is None else torch.as_tensor(x).double() for x in (lambda_pos, lambda_neg))
    if weight is not None:
        # A row of weight 0 is replaced before anything is computed, so that not even a NaN of it comes through.
        active = (weight != 0)[:, None]
        q, k = torch.where(active, q, 1.0), torch.where(active, k, 1.0)
    q, k = to_unit(q), to_unit(k)  # (1)
    q_mixed, k_mixed, negatives_mixed = q, k, negatives
    if lambda_pos is not None:
        q_mixed, k_mixed = (_mixed(*pair, lambda_pos, renormalize_pos, epsilon) for pair in ((q, k), (k, q)))  # (2)
    if lambda_neg is not None:
        negatives_mixed = _mixed(negatives, negatives[permutation.long()], lambda_neg, renormalize_neg, epsilon)  # (3)
    a = {"mixed": q_mixed, "query": q}[anchor]  # (6)
    columns = columns or ("queue" if lambda_neg is None else "mixed")
    names = {"queue": ("raw",), "mixed": ("mixed",), "union": ("mixed", "raw")}[columns]  # (5)
    own = _left_out(ids, negative_ids, n, negatives)
    of_either = own if permutation is None else own | own[:, permutation.long()]
    sets = {"raw": (negatives, own), "mixed": (negatives_mixed, of_either)}
    of_batch = _left_out(ids, batch_ids, n, batch)

    def side(names: tuple[str, ...], positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [N,C] of the named columns and the batch, their bias [C], and whether they count [N,C]."""
        beta = torch.cat([*[bias] * len(names), batch_bias])  # (15)
        left_out = torch.cat([*(sets[name][1] for name in names), of_batch], 1) | (beta == -math.inf)
        rows = torch.cat([sets[name][0] for name in names])
        if margin is not None:
            scores = (a @ torch.cat([rows, to_unit(batch)]).T).detach()
            left_out = left_out | (scores > positive.detach()[:, None] + margin)  # (14)
        # A batch column that counts for no row is replaced, so that not even a NaN of it comes through.
        x_c = to_unit(torch.where(left_out[:, len(rows) :].all(0)[:, None], 1.0, batch))  # (13)
        return _products(a, torch.cat([rows, x_c]), ~left_out), beta, ~left_out

    positive = (q_mixed * k_mixed).sum(1)
    scores = side(names, positive)
    x = _log_sum_exp(*scores, temperature) - positive / temperature  # (7)
    loss = torch.logaddexp(x, torch.zeros_like(x)) if form == "info_nce" else x
    loss = torch.where(scores[2].any(1), loss, 0.0)
    if weight is not None:
        loss = torch.where(weight != 0, weight.double() * loss, 0.0)
    # The mean of no rows is NaN, as PyTorch has it.
    loss = {"none": loss, "mean": loss.sum() / n if n else loss.mean(), "sum": loss.sum()}[reduction]
    if not return_scores:
        return loss
    raw_positive = (q * k).sum(1)
    mixed = statistics(positive, *scores, temperature)
    unmixed = statistics(raw_positive, *side(("raw",), raw_positive), temperature)
    if biased:
        del mixed["entropy"], unmixed["entropy"]
    return loss, mixed, unmixed


def clip_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    ids: Tensor | None = None,
    b_ids: Tensor | None = None,
    a_bias: Tensor | None = None,
    b_bias: Tensor | None = None,
    weight: Tensor | None = None,
    normalize: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """The symmetric loss of equation (17): half of either direction, whose columns are the rows of the other side.

    Args:
        a, b: [N,D] raw features, any floating type, row i of each side a pair. Computed in float64.
        temperature: tau, a number or a tensor of one element; has a gradient.
        ids: integers [N], of the pairs, equation (14); b_ids [N], those of the rows of b, where they are not those of
            a. None: each pair has its own.
        a_bias, b_bias: [N], of the rows of a, or of b, as columns, equation (15); None: 0.
        weight: [N], of the pairs' losses; a weight of 0 selects an exact 0.
        normalize: whether a and b are divided by their norms, equation (1).
        reduction: "none" | "mean" | "sum" over the N pairs.

    Returns:
        the loss, float64, [] or, with reduction "none", [N].

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or value; the sentence names it.
    """
    _check_features({"a": a, "b": b}, "a and b must be [N,D]")
    if b_ids is not None and ids is None:
        raise ValueError("b_ids is given but ids is None; the rows of a need ids where those of b have them")
    for name, value in {"ids": ids, "b_ids": b_ids, "a_bias": a_bias, "b_bias": b_bias, "weight": weight}.items():
        _check_of_rows(name, value, len(a), integers=name.endswith("ids"))
    ids = torch.arange(len(a), device=a.device) if ids is None else ids
    b_ids = ids if b_ids is None else b_ids
    options = {
        "temperature": temperature, "weight": weight, "normalize": normalize, "reduction": reduction,
        "detach_key": False,
    }  # fmt: skip
    return 0.5 * (
        info_nce(a, b, batch=b, ids=ids, batch_ids=b_ids, batch_bias=b_bias, **options)
        + info_nce(b, a, batch=a, ids=b_ids, batch_ids=ids, batch_bias=a_bias, **options)
    )


def _check_options(
    form: object, anchor: object, reduction: object, columns: str | None, mixes: bool, permutes: bool
) -> None:
    choice("form", form, ("info_nce", "decoupled"))
    choice("anchor", anchor, ("mixed", "query"))
    choice("reduction", reduction, ("none", "mean", "sum"))
    if mixes != permutes:
        raise ValueError("lambda_neg and permutation belong together; give both or neither")
    resolve_columns(columns, mixes)


def _check_features(features: dict[str, object], shapes: str) -> None:
    """Features by name: the first two of one shape, the others with as many columns or None; `shapes` says so."""
    (_, first), (second, _), *_ = features.items()
    for place, (name, value) in enumerate(features.items()):
        if value is None and place > 1:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; it must be a Tensor")
        if value.dim() != 2 or value.shape[1] != first.shape[1] or (name == second and value.shape != first.shape):
            raise ValueError(f"{name} has shape {list(value.shape)}; {shapes}")
        if not value.is_floating_point():
            raise TypeError(f"{name} has type {value.dtype}; it must be a floating type")


def _check_of_rows(name: str, value: object, rows: int, *, integers: bool = False) -> None:
    """What there is one of for each row or column; None passes."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a Tensor")
    if tuple(value.shape) != (rows,):
        raise ValueError(f"{name} has shape {list(value.shape)}; it must be [{rows}]")
    if integers and (value.is_floating_point() or value.is_complex()):
        raise TypeError(f"{name} has type {value.dtype}; it must be an integer type")


def _bias(name: str, value: Tensor | None, columns: Tensor) -> Tensor:
    """That of each of the columns, float64."""
    _check_of_rows(name, value, len(columns))
    return columns.new_zeros(len(columns)) if value is None else value.double()


def _all_ids(
    q: Tensor, negatives: Tensor | None, batch: Tensor | None, in_batch: bool, ids, negative_ids, batch_ids
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The ids of queries, negatives and batch columns: those of all, or none at all."""
    sizes = {
        "ids": len(q),
        "negative_ids": 0 if negatives is None else len(negatives),
        "batch_ids": None if batch is None else len(batch),
    }
    given = {"ids": ids, "negative_ids": negative_ids, "batch_ids": batch_ids}
    for name, value in given.items():
        if sizes[name] is not None:
            _check_of_rows(name, value, sizes[name], integers=True)
    found = resolve_ids(
        **given, sizes=sizes, in_batch=in_batch, arange=lambda size: torch.arange(size, device=q.device),
        full=lambda size, value: torch.full((size,), value, dtype=torch.int64, device=q.device),
    )  # fmt: skip
    return found.get("ids"), found.get("negative_ids"), found.get("batch_ids")


def _mixed(x: Tensor, partner: Tensor, factor: Tensor, renormalize: bool, epsilon: float) -> Tensor:
    """Equations (2) and (3), and (4)."""
    mixed = factor * x + (1 - factor) * partner
    return unit(mixed, dim=1, eps=epsilon) if renormalize else mixed


def _left_out(ids: Tensor | None, column_ids: Tensor | None, n: int, columns: Tensor) -> Tensor:
    """[N,C]: the columns that an id leaves out, equation (14)."""
    if ids is None or column_ids is None:
        return torch.zeros(n, len(columns), dtype=torch.bool, device=columns.device)
    return (column_ids == NO_COLUMN) | (ids[:, None] == column_ids) & (ids != NO_COLUMN)[:, None]


def _products(a: Tensor, z: Tensor, counts: Tensor) -> Tensor:
    """[N,C]: a z^T. A column that does not count for a row is replaced there, in the product and in its gradient."""
    if counts.all():
        return a @ z.T
    counts = counts[:, :, None]
    return (torch.where(counts, a[:, None], 0.0) * torch.where(counts, z, 0.0)).sum(2)


def _log_sum_exp(negative: Tensor, beta: Tensor, counts: Tensor, temperature: float | Tensor) -> Tensor:
    """LSE of equations (7) and (15) over the columns that count; of a row without any, what has no gradient."""
    scores = torch.where(counts, negative / temperature + torch.where(beta == -math.inf, 0.0, beta), -math.inf)
    return torch.logsumexp(torch.where(counts.any(1)[:, None], scores, 0.0), dim=1)


@torch.no_grad()
def statistics(
    positive: Tensor, negative: Tensor, beta: Tensor, counts: Tensor, temperature: float | Tensor
) -> dict[str, Tensor]:
    """Equation (9) of positive scores [N], negative scores [N,C], their bias [C] and whether they count [N,C], without
    the ties of float32. The entropy is that without a bias."""
    count = counts.sum(1)
    where = lambda other: torch.where(counts, negative, other)  # noqa: E731
    mean = where(0.0).sum(1) / count.clamp(min=1)
    squares = torch.where(counts, (negative - mean[:, None]) ** 2, 0.0).sum(1)
    pad = torch.full((len(negative), 1), math.inf, dtype=negative.dtype, device=negative.device)
    log_p = torch.log_softmax(torch.cat([positive[:, None], where(-math.inf)], 1) / temperature, dim=1)
    log_mean = _log_sum_exp(negative, beta, counts, temperature) - count.log()
    return {
        "pos": positive,
        "neg_count": count,
        "neg_mean": mean,
        "neg_variance": torch.where(count > 1, squares / (count - 1).clamp(min=1), math.nan),
        "neg_min": torch.cat([pad, where(math.inf)], 1).amin(1),
        "neg_max": torch.cat([-pad, where(-math.inf)], 1).amax(1),
        "neg_log_mean_exp": torch.where(count > 0, log_mean, -math.inf),
        "n_greater": (counts & (negative > positive[:, None])).sum(1),
        "n_greater_equal": (counts & (negative >= positive[:, None])).sum(1),
        "entropy": -(log_p.exp() * log_p).nan_to_num(nan=0.0).sum(1),
    }
