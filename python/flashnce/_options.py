"""The front ends share this: the options of equations (2) to (7) by name, checked, and the plans made from them.

It needs neither NumPy nor torch.
"""

from __future__ import annotations

import ctypes
import math
import numbers
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import _library as c
from ._names import PAIR_NAMES

# The least normal number of float32.
SMALLEST_TEMPERATURE = 2.0**-126
PER = ("call", "row", "dimension", "element")


def number(name: str, value: object) -> float:
    """A real number of any kind, NumPy's among them. Python's own pass as they are: torch.compile traces those."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a number")
    return float(value)


def check_temperature(value: float) -> None:
    """Raises for what float32 holds with fewer digits than 24; what is no temperature at all, the library refuses."""
    if 0 < value < SMALLEST_TEMPERATURE:
        raise ValueError(f"temperature is {value}; it must be at least 2**-126, about 1.18e-38")


def integer(name: str, value: object) -> int:
    """An integer of any kind, as number()."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be an int")
    return int(value)


def flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be True or False")


def key_is_detached(detach_key: object, requires_grad: bool, in_batch: bool = False) -> bool:
    """Whether k is to get no gradient. None leaves it open, which is safe only where k wants none, or where it is a
    batch of columns: those have gradients."""
    if detach_key is None and in_batch:
        return False
    if detach_key is None:
        if requires_grad:
            raise ValueError(
                "k requires a gradient and detach_key is None; say detach_key=False to compute it, or detach_key=True "
                "to leave it out, as MoCo does"
            )
        return True
    flag("detach_key", detach_key)
    return detach_key


def choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")


@dataclass(frozen=True)
class Mix:
    """How features are mixed: lambda ~ Beta(alpha, alpha) + shift, equations (2) and (3).

    Args:
        alpha: > 0; 1 is uniform.
        shift: 0 interpolates, 1 extrapolates (the feature transformation's positives).
        per: one lambda is drawn per "call" | "row" | "dimension" | "element".
        renormalize: whether the mixed vectors are divided by their norms, equation (4).

    Raises:
        TypeError: alpha or shift is no number.
        ValueError: alpha, shift or per is outside its range.
    """

    alpha: float
    shift: float = 0.0
    per: str = "call"
    renormalize: bool = False

    def __post_init__(self) -> None:
        # The class is frozen for its users.
        object.__setattr__(self, "alpha", number("alpha", self.alpha))
        object.__setattr__(self, "shift", number("shift", self.shift))
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is {self.alpha}; it must be a finite number above 0")
        if not math.isfinite(self.shift):
            raise ValueError(f"shift is {self.shift}; it must be finite")
        choice("per", self.per, PER)
        flag("renormalize", self.renormalize)


# Positives and negatives of each preset, the same as fnce_problem_init and fnce_args_init give.
PRESETS: dict[str, tuple[Mix | None, Mix | None]] = {
    "moco": (None, None),
    "ft": (Mix(2.0, shift=1.0), Mix(1.6)),
    "ft-elementwise": (Mix(2.0, shift=1.0, per="element"), Mix(1.6, per="element")),
}


def mix_or_none(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Mix):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a Mix or None")


def resolve_columns(columns: str | None, negatives_mixed: bool) -> int:
    """FNCE_COLUMNS_* of equation (5): None follows the mixing, and "mixed" of an unmixed queue is the queue."""
    if columns is None or columns == "mixed":
        return c.COLUMNS["mixed" if negatives_mixed else "queue"]
    if columns == "queue" and negatives_mixed:
        raise ValueError("columns is 'queue' but the negatives are mixed; it must be None, 'mixed' or 'union'")
    if columns == "union" and not negatives_mixed:
        raise ValueError("columns is 'union' but the negatives are not mixed; it must be None, 'queue' or 'mixed'")
    choice("columns", columns, ("queue", "mixed", "union"))
    return c.COLUMNS[columns]


# The id of a column that has none of its own, next to NO_COLUMN: both are taken out of the ids that there are.
UNNAMED = c.NO_COLUMN + 1


def resolve_ids(
    *, ids: Any, negative_ids: Any, batch_ids: Any, sizes: dict[str, int | None], in_batch: bool, full: Callable,
    arange: Callable, unnamed: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """The ids of a call, equation (14): those of all rows and columns, or none at all.

    Columns whose ids nobody gave are left out by nothing, and so are all columns of rows without ids, but for those
    that are nobody's.

    Args:
        ids, negative_ids, batch_ids: what was given, checked, or None.
        sizes: how many there are by these names; None for batch_ids where there is no batch.
        in_batch: whether the batch columns are the keys of this call.
        full, arange: make ids: full(size, value), arange(size).
        unnamed: of negatives without ids, those that say which are nobody's.
    """
    named, every = negative_ids is not None, "every column needs one where the rows have them"
    if batch_ids is not None and sizes["batch_ids"] is None:
        raise ValueError("batch_ids is given but batch is None")
    if ids is not None:
        if in_batch and batch_ids is None:
            batch_ids = ids
        if sizes["negative_ids"] and not named:
            raise ValueError(
                f"ids is given but the negatives have none, and {every}: give negative_ids= or a Queue(..., ids=True)"
            )
        if sizes["batch_ids"] and batch_ids is None:
            raise ValueError(f"ids is given but batch_ids is None, and {every}")
    elif in_batch:
        if named or batch_ids is not None:
            raise ValueError(
                f"ids is None but {'the negatives have ids' if named else 'batch_ids is given'}; with batch=True the "
                "rows need ids, so that each leaves its own key out"
            )
        ids = batch_ids = arange(sizes["ids"])
    negative_ids = negative_ids if named else unnamed
    given = {"ids": ids, "negative_ids": negative_ids, "batch_ids": batch_ids}
    if all(value is None for value in given.values()):
        return {}
    for name, value in given.items():
        if value is None and sizes[name] is not None:
            given[name] = full(sizes[name], c.NO_COLUMN if name == "ids" else UNNAMED)
    return given


def anything_drawn(per_pos: str, lambda_pos: Any, per_neg: str, lambda_neg: Any, permutation: Any) -> bool:
    """Whether a call needs a seed: something is mixed by a lambda or a permutation that is not given."""
    return (per_pos != "none" and lambda_pos is None) or (
        per_neg != "none" and (lambda_neg is None or permutation is None)
    )


def lambda_granularity(name: str, shape: tuple[int, ...], rows: int, d: int, per: str | None) -> str:
    """The granularity of an explicit lambda, which its shape decides: [] or [1], [R,1], [1,D] or [R,D]."""
    if per is not None:
        one = {"row": (rows, 1), "dimension": (1, d), "element": (rows, d)}
        allowed = ((), (1, 1), (1,)) if per == "call" else (one[per],)
        if shape not in allowed:
            raise ValueError(f"{name} has shape {list(shape)}; with Mix(per={per!r}) it must be {list(allowed[-1])}")
        return per
    if shape in ((), (1,), (1, 1)):
        return "call"
    if shape == (rows, 1):
        return "row"
    if shape == (1, d):
        return "dimension"
    if shape == (rows, d):
        return "element"
    raise ValueError(f"{name} has shape {list(shape)}; it must be [], [1], [{rows}, 1], [1, {d}] or [{rows}, {d}]")


class Plan:
    """An fnce_plan and the workspace that it asks for. Any number of threads may use it."""

    __slots__ = ("handle", "workspace_bytes")

    def __init__(self, key: tuple[int, ...], names: dict[str, str] | None = None) -> None:
        """`names`: what fields are called in errors, as for _library.error."""
        self.handle = None
        problem = c.new_problem()
        for field, value in zip(PLAN_FIELDS, key, strict=True):
            setattr(problem, field, value)
        handle, size = ctypes.c_void_p(), ctypes.c_size_t()
        c.check(c.LIBRARY.fnce_plan_create(problem, ctypes.byref(handle)), names)
        self.handle = handle
        c.check(c.LIBRARY.fnce_plan_workspace(handle, ctypes.byref(size)))
        self.workspace_bytes = size.value

    def partial_bytes(self) -> int:
        """Bytes of a partial of this plan's rows."""
        layout = c.Layout()
        c.check(c.LIBRARY.fnce_partial_layout(self.handle, layout, ctypes.sizeof(c.Layout)))
        return layout.bytes

    def info(self) -> c.PlanInfo:
        return c.plan_info(self.handle)

    def describe(self) -> str:
        return c.LIBRARY.fnce_plan_describe(self.handle).decode()

    def __del__(self) -> None:
        # At interpreter shutdown the module may be gone before its plans.
        if self.handle is not None and c is not None and c.LIBRARY is not None:
            c.LIBRARY.fnce_plan_destroy(self.handle)


# The fields of fnce_problem that the front ends set, in the order of a plan's key.
PLAN_FIELDS = (
    "n", "k", "d", "k_global", "row_offset", "column_offset", "perm_block", "device", "device_index", "feature_type",
    "queue_type", "gradient_type", "normalize",
    "lambda_pos", "lambda_pos_source", "renormalize_pos", "lambda_neg", "lambda_neg_source", "renormalize_neg",
    "permutation_source", "columns", "anchor", "reduction", "scores", "threads",
    "form", "id_mask", "column_bias", "margin_mask", "batch_columns",
)  # fmt: skip

_MOST_PLANS = 128
_plans: dict[tuple[int, ...], Plan] = {}
_plans_lock = threading.Lock()


def plan_for(key: tuple[int, ...], names: dict[str, str] | None = None) -> Plan:
    """The plan of these values of PLAN_FIELDS, kept for the next call. The oldest goes when there are too many.
    `names` are those of Plan."""
    plan = _plans.get(key)
    if plan is None:
        plan = Plan(key, names)
        with _plans_lock:
            while len(_plans) >= _MOST_PLANS:
                del _plans[next(iter(_plans))]
            _plans[key] = plan
    return plan


def pairs_plan(
    n: int, d: int, device: int, device_index: int, feature_type: int, normalize: int, reduction: int, threads: int,
    ids: bool, bias: bool,
) -> Plan:  # fmt: skip
    """The plan of a batch of pairs, equation (17). bfloat16 features allow products of that type."""
    fields = dict.fromkeys(PLAN_FIELDS, 0)
    fields |= {
        "n": n, "d": d, "device": device, "device_index": device_index, "feature_type": feature_type,
        "queue_type": c.BFLOAT16 if feature_type == c.BFLOAT16 else c.FLOAT32, "gradient_type": feature_type,
        "normalize": normalize, "reduction": reduction, "threads": threads, "form": c.FORM_SYMMETRIC,
        "id_mask": int(ids), "column_bias": int(bias),
    }  # fmt: skip
    return plan_for(tuple(fields.values()), PAIR_NAMES)
