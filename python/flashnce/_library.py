"""The C library through ctypes: its structs and functions, field by field as in include/flashnce/flashnce.h.

Nothing here computes. It needs neither NumPy nor torch. A call that does not return FNCE_OK becomes a Python exception
that carries the library's own sentence, with the names that its fields have in Python.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

from ._names import in_python

CPU, CUDA = 1, 2
DEVICES = {"cpu": CPU, "cuda": CUDA}
FLOAT32, FLOAT16, BFLOAT16 = 1, 2, 3
TYPES = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}
LAMBDA = {"none": 0, "call": 1, "row": 2, "dimension": 3, "element": 4}
SAMPLED, GIVEN = 0, 1
COLUMNS = {"queue": 0, "mixed": 1, "union": 2}
ANCHOR = {"mixed": 0, "query": 1}
REDUCTION = {"none": 0, "mean": 1, "sum": 2}
FORM = {"info_nce": 0, "decoupled": 1}
FORM_SYMMETRIC = 2
NO_COLUMN = -(2**63)
PRESET = {"moco": 0, "ft": 1, "ft-elementwise": 2}
SCORES_NONE, SCORES_MIXED, SCORES_UNMIXED = 0, 1, 2
CHECK_PERMUTATION, CHECK_POINTERS = 1, 2
# The codes of fnce_plan_info.
FAMILY = {"cpu": 10, "plain": 20, "sm80": 80}
CPU_ISA = {"none": 0, "baseline": 1, "avx2": 10, "avx512": 20, "avx512_bf16": 21, "amx": 22, "neon": 40}
PRODUCTS = {"float32": 1, "float16": 2, "bfloat16": 3, "float16x3": 10, "float16_fast": 11}
MIXING = {"none": 0, "scores": 1, "while_packed": 2, "before_pass": 3}
REASON = {
    "none": 0, "renormalized": 10, "permutation_given": 11, "lambda_granularity": 12,
    "forced": 20, "compute_capability": 21, "features": 22, "shared_memory": 23, "masks": 24,
}  # fmt: skip
ALIGNMENT = 256

OK, INVALID_ARGUMENT, UNSUPPORTED, NO_DEVICE, DEVICE_MISMATCH = 0, 10, 20, 30, 31
WORKSPACE_TOO_SMALL, OUT_OF_MEMORY, DEVICE_ERROR, INTERNAL_ERROR = 40, 50, 60, 90


class Problem(ctypes.Structure):
    """fnce_problem"""

    _fields_ = [
        ("struct_size", c_uint64),
        ("n", c_int64),
        ("k", c_int64),
        ("d", c_int64),
        ("k_global", c_int64),
        ("row_offset", c_int64),
        ("column_offset", c_int64),
        ("perm_block", c_int64),
        ("device", c_int32),
        ("device_index", c_int32),
        ("feature_type", c_int32),
        ("queue_type", c_int32),
        ("gradient_type", c_int32),
        ("precision", c_int32),
        ("normalize", c_int32),
        ("lambda_pos", c_int32),
        ("lambda_pos_source", c_int32),
        ("renormalize_pos", c_int32),
        ("lambda_neg", c_int32),
        ("lambda_neg_source", c_int32),
        ("renormalize_neg", c_int32),
        ("permutation_source", c_int32),
        ("columns", c_int32),
        ("anchor", c_int32),
        ("reduction", c_int32),
        ("scores", c_int32),
        ("threads", c_int32),
        ("form", c_int32),
        ("id_mask", c_int32),
        ("column_bias", c_int32),
        ("margin_mask", c_int32),
        ("reserved", c_int32),
        ("batch_columns", c_int64),
    ]


# The fields of fnce_score_buffers: float32 ones, those that belong to a loss, and int64 ones. Front ends that pack
# statistics into arrays have their rows in this order.
FLOAT_SCORES = ("pos", "neg_mean", "neg_variance", "neg_min", "neg_max", "neg_log_mean_exp")
LOSS_SCORES = ("entropy", "dq_norm")
INT_SCORES = ("neg_count", "n_greater", "n_greater_equal")


class ScoreBuffers(ctypes.Structure):
    """fnce_score_buffers"""

    _fields_ = [
        ("pos", c_void_p),
        ("neg_count", c_void_p),
        ("neg_mean", c_void_p),
        ("neg_variance", c_void_p),
        ("neg_min", c_void_p),
        ("neg_max", c_void_p),
        ("neg_log_mean_exp", c_void_p),
        ("n_greater", c_void_p),
        ("n_greater_equal", c_void_p),
        ("entropy", c_void_p),
        ("dq_norm", c_void_p),
        ("reserved", c_void_p * 5),
    ]


class Args(ctypes.Structure):
    """fnce_args"""

    _fields_ = [
        ("struct_size", c_uint64),
        ("x_q", c_void_p),
        ("x_k", c_void_p),
        ("queue", c_void_p),
        ("weight", c_void_p),
        ("lambda_pos", c_void_p),
        ("lambda_neg", c_void_p),
        ("permutation", c_void_p),
        ("temperature", c_float),
        ("alpha_pos", c_float),
        ("shift_pos", c_float),
        ("alpha_neg", c_float),
        ("shift_neg", c_float),
        ("epsilon", c_float),
        ("seed", c_uint64),
        ("offset", c_uint64),
        ("offset_increment", c_uint64),
        ("temperature_pointer", c_void_p),
        ("alpha_pos_pointer", c_void_p),
        ("shift_pos_pointer", c_void_p),
        ("alpha_neg_pointer", c_void_p),
        ("shift_neg_pointer", c_void_p),
        ("seed_pointer", c_void_p),
        ("offset_pointer", c_void_p),
        ("loss", c_void_p),
        ("dq", c_void_p),
        ("dk", c_void_p),
        ("dtemperature_rows", c_void_p),
        ("dtemperature", c_void_p),
        ("mixed", ScoreBuffers),
        ("unmixed", ScoreBuffers),
        ("checks", c_int32),
        ("reserved", c_int32),
        ("x_c", c_void_p),
        ("query_ids", c_void_p),
        ("column_ids", c_void_p),
        ("batch_ids", c_void_p),
        ("column_bias", c_void_p),
        ("batch_bias", c_void_p),
        ("margin", c_float),
        ("reserved2", c_int32),
        ("log_sum_exp", c_void_p),
    ]


class Anchors(ctypes.Structure):
    """fnce_anchors"""

    _fields_ = [("anchor", c_void_p), ("pos", c_void_p), ("unmixed_pos", c_void_p), ("reserved", c_void_p * 2)]


class Layout(ctypes.Structure):
    """fnce_layout"""

    _fields_ = [
        ("struct_size", c_uint64),
        ("bytes", c_uint64),
        ("m", c_uint64),
        ("l", c_uint64),
        ("o", c_uint64),
        ("count", c_uint64 * 2),
        ("mean", c_uint64 * 2),
        ("m2", c_uint64 * 2),
        ("min", c_uint64 * 2),
        ("max", c_uint64 * 2),
        ("n_greater", c_uint64 * 2),
        ("n_greater_equal", c_uint64 * 2),
        ("unmixed_m", c_uint64),
        ("unmixed_l", c_uint64),
    ]


class PlanInfo(ctypes.Structure):
    """fnce_plan_info"""

    _fields_ = [
        ("struct_size", c_uint64),
        ("workspace_bytes", c_uint64),
        ("n", c_int64),
        ("k", c_int64),
        ("d", c_int64),
        ("row_blocks", c_int64),
        ("block_rows", c_int64),
        ("column_tiles", c_int64),
        ("tile_columns", c_int64),
        ("tile_features", c_int64),
        ("splits", c_int64),
        ("tasks", c_int64),
        ("shared_memory_bytes", c_int64),
        ("family_limit", c_int64),
        ("device", c_int32),
        ("device_index", c_int32),
        ("family", c_int32),
        ("better_family", c_int32),
        ("family_reason", c_int32),
        ("fallback_family", c_int32),
        ("products", c_int32),
        ("mixing", c_int32),
        ("mixing_reason", c_int32),
        ("columns", c_int32),
        ("feature_type", c_int32),
        ("queue_type", c_int32),
        ("gradient_type", c_int32),
        ("cpu_isa", c_int32),
        ("lanes", c_int32),
        ("threads", c_int32),
        ("compute_capability", c_int32),
        ("multiprocessors", c_int32),
        ("planned_multiprocessors", c_int32),
        ("reserved", c_int32),
        ("device_name", c_char * 64),
    ]


class Push(ctypes.Structure):
    """fnce_push"""

    _fields_ = [
        ("struct_size", c_uint64),
        ("n", c_int64),
        ("k", c_int64),
        ("d", c_int64),
        ("device", c_int32),
        ("device_index", c_int32),
        ("key_type", c_int32),
        ("queue_type", c_int32),
        ("normalize", c_int32),
        ("epsilon", c_float),
        ("keys", c_void_p),
        ("queue", c_void_p),
        ("position_in", c_void_p),
        ("position_out", c_void_p),
        ("checks", c_int32),
        ("reserved", c_int32),
    ]


class Pairs(ctypes.Structure):
    """fnce_pairs"""

    _fields_ = [
        ("struct_size", c_uint64),
        ("x_a", c_void_p),
        ("x_b", c_void_p),
        ("weight", c_void_p),
        ("a_ids", c_void_p),
        ("b_ids", c_void_p),
        ("a_bias", c_void_p),
        ("b_bias", c_void_p),
        ("temperature", c_float),
        ("epsilon", c_float),
        ("temperature_pointer", c_void_p),
        *((name, c_void_p) for name in ("loss", "a_log_sum_exp", "b_log_sum_exp", "da", "db", "dtemperature")),
        ("checks", c_int32),
        ("reserved", c_int32),
    ]


# name: (result, arguments)
_PROTOTYPES = {
    "fnce_version": (c_int32, []),
    "fnce_version_string": (c_char_p, []),
    "fnce_status_string": (c_char_p, [c_int32]),
    "fnce_last_error": (c_char_p, []),
    "fnce_build_info": (c_char_p, []),
    "fnce_problem_init": (c_int32, [POINTER(Problem), c_size_t, c_int32]),
    "fnce_args_init": (c_int32, [POINTER(Args), c_size_t]),
    "fnce_push_init": (c_int32, [POINTER(Push), c_size_t]),
    "fnce_plan_create": (c_int32, [POINTER(Problem), POINTER(c_void_p)]),
    "fnce_plan_destroy": (None, [c_void_p]),
    "fnce_plan_workspace": (c_int32, [c_void_p, POINTER(c_size_t)]),
    "fnce_plan_describe": (c_char_p, [c_void_p]),
    "fnce_plan_get_info": (c_int32, [c_void_p, POINTER(PlanInfo), c_size_t]),
    "fnce_loss": (c_int32, [c_void_p, POINTER(Args), c_void_p, c_size_t, c_void_p]),
    "fnce_scale": (
        c_int32,
        [c_int32, c_int32, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int32, c_void_p, c_void_p],
    ),
    "fnce_queue_push": (c_int32, [POINTER(Push), c_void_p]),
    "fnce_scores": (c_int32, [c_void_p, POINTER(Args), POINTER(ScoreBuffers), c_void_p, c_size_t, c_void_p]),
    "fnce_prep": (c_int32, [c_void_p, POINTER(Args), POINTER(Anchors), c_void_p, c_size_t, c_void_p]),
    "fnce_partial_layout": (c_int32, [c_void_p, POINTER(Layout), c_size_t]),
    "fnce_partial": (
        c_int32,
        [c_void_p, POINTER(Args), POINTER(Anchors), c_void_p, c_size_t, c_void_p, c_size_t, c_void_p],
    ),
    "fnce_merge": (c_int32, [c_void_p, POINTER(c_void_p), c_int32, c_void_p, c_size_t, c_void_p]),
    "fnce_partial_rows": (c_int32, [c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_size_t, c_void_p]),
    "fnce_finish": (c_int32, [c_void_p, POINTER(Args), c_void_p, c_size_t, c_void_p, c_size_t, c_void_p]),
    "fnce_columns_backward": (
        c_int32,
        [
            c_void_p, POINTER(Args), POINTER(Anchors), c_void_p, c_void_p, c_int64, c_void_p, c_void_p, c_size_t,
            c_void_p,
        ],
    ),  # fmt: skip
    "fnce_pairs_init": (c_int32, [POINTER(Pairs), c_size_t]),
    "fnce_symmetric": (c_int32, [c_void_p, POINTER(Pairs), c_void_p, c_size_t, c_void_p]),
    "fnce_symmetric_backward": (
        c_int32, [c_void_p, POINTER(Pairs), c_void_p, c_int64, c_void_p, c_size_t, c_void_p],
    ),  # fmt: skip
    "fnce_sample_lambda_pos": (c_int32, [POINTER(Problem), POINTER(Args), c_void_p, c_int64]),
    "fnce_sample_lambda_neg": (c_int32, [POINTER(Problem), POINTER(Args), c_void_p, c_int64]),
    "fnce_permutation": (c_int32, [POINTER(Problem), POINTER(Args), c_void_p, c_int64]),
    "fnce_device_count": (c_int32, [c_int32, POINTER(c_int32)]),
    "fnce_set_threads": (c_int32, [c_int32]),
    "fnce_get_threads": (c_int32, []),
}

# The first library version whose functions are the ones above.
_FIRST_VERSION = 100


def _library_path() -> Path:
    """FLASHNCE_LIBRARY where it is set, else the library that the wheel put next to this file."""
    named = os.environ.get("FLASHNCE_LIBRARY")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ImportError(f"FLASHNCE_LIBRARY is {named!r}, which is no file; it must name libflashnce.so")
        return path
    folder = Path(__file__).resolve().parent / "lib"
    found = sorted(folder.glob("libflashnce.so*"))
    if not found:
        raise ImportError(
            f"libflashnce.so is not in {folder}: install the flashnce wheel, or set FLASHNCE_LIBRARY to the path of a "
            "libflashnce.so that you built"
        )
    return found[0]


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"{path} cannot be loaded: {error}") from error
    for name, (result, arguments) in _PROTOTYPES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ImportError(f"{path} is no libflashnce of this version: it has no {name}") from None
        function.restype, function.argtypes = result, arguments
    if library.fnce_version() < _FIRST_VERSION:
        version = library.fnce_version_string().decode()
        raise ImportError(f"{path} is flashnce {version}; this package needs 0.1.0 or newer")
    return library


PATH = _library_path()
LIBRARY = _load(PATH)
VERSION: str = LIBRARY.fnce_version_string().decode()


def error(status: int, names: dict[str, str] | None = None) -> Exception:
    """The exception of a status other than OK, with the sentence of this thread's last failing call in Python's names:
    `names` are those of this call."""
    sentence = in_python(LIBRARY.fnce_last_error().decode(), names)
    name = LIBRARY.fnce_status_string(status).decode()
    message = sentence or name
    if status in (INVALID_ARGUMENT, UNSUPPORTED, NO_DEVICE, DEVICE_MISMATCH):
        return ValueError(message)
    if status == OUT_OF_MEMORY:
        return MemoryError(message)
    return RuntimeError(f"{name}: {message}")


def check(status: int, names: dict[str, str] | None = None) -> None:
    """Raises unless `status` is OK; `names` as for error."""
    if status != OK:
        raise error(status, names)


def new_problem(preset: str = "moco") -> Problem:
    problem = Problem()
    check(LIBRARY.fnce_problem_init(problem, ctypes.sizeof(Problem), PRESET[preset]))
    return problem


def new_args() -> Args:
    args = Args()
    check(LIBRARY.fnce_args_init(args, ctypes.sizeof(Args)))
    return args


def new_push() -> Push:
    push = Push()
    check(LIBRARY.fnce_push_init(push, ctypes.sizeof(Push)))
    return push


def new_pairs() -> Pairs:
    pairs = Pairs()
    check(LIBRARY.fnce_pairs_init(pairs, ctypes.sizeof(Pairs)))
    return pairs


def plan_info(plan: c_void_p) -> PlanInfo:
    """What an fnce_plan tells of itself."""
    info = PlanInfo()
    check(LIBRARY.fnce_plan_get_info(plan, info, ctypes.sizeof(PlanInfo)))
    return info


def device_count(device: int) -> int:
    """Number of usable devices of a kind, CPU or CUDA."""
    count = c_int32()
    check(LIBRARY.fnce_device_count(device, ctypes.byref(count)))
    return count.value
