"""The ctypes structs and constants are those of the header, as the C compiler sees it."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flashnce import _library as c
from flashnce._options import PRESETS

INCLUDE = Path(__file__).resolve().parents[2] / "include"
HEADER = (INCLUDE / "flashnce" / "flashnce.h").read_text()
STRUCTS = {
    "fnce_problem": c.Problem,
    "fnce_score_buffers": c.ScoreBuffers,
    "fnce_args": c.Args,
    "fnce_push": c.Push,
    "fnce_pairs": c.Pairs,
    "fnce_anchors": c.Anchors,
    "fnce_layout": c.Layout,
    "fnce_plan_info": c.PlanInfo,
}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def header_fields(name: str) -> list[str]:
    body = re.search(rf"typedef struct {name} \{{(.*?)\}} {name};", without_comments(HEADER), re.S).group(1)
    return re.findall(r"(\w+)(?:\[\d+\])?;", body)


def header_constants() -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"\b(FNCE_\w+) = (\d+)", without_comments(HEADER))}


def compile_and_run(tmp_path: Path, body: str) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "a C compiler is needed: the library is built with one"
    source = tmp_path / "layout.c"
    source.write_text(f"#include <flashnce/flashnce.h>\n#include <stdio.h>\nint main(void) {{\n{body}return 0;\n}}\n")
    subprocess.run([compiler, f"-I{INCLUDE}", str(source), "-o", str(tmp_path / "layout")], check=True)
    return subprocess.run([str(tmp_path / "layout")], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_have_the_fields_of_the_header(name):
    assert header_fields(name) == [field for field, *_ in STRUCTS[name]._fields_]


def test_structs_have_the_layout_that_the_compiler_gives(tmp_path):
    body, expected = "", []
    for name, struct in STRUCTS.items():
        body += f'printf("%zu\\n", sizeof({name}));\n'
        expected.append(ctypes.sizeof(struct))
        for field, *_ in struct._fields_:
            body += f'printf("%zu %zu\\n", offsetof({name}, {field}), sizeof((({name}*)0)->{field}));\n'
            expected += [getattr(struct, field).offset, getattr(struct, field).size]
    assert [int(number) for number in compile_and_run(tmp_path, body).split()] == expected


def test_constants_are_those_of_the_header():
    header = header_constants()
    mine = {f"FNCE_LAMBDA_{name.upper()}": value for name, value in c.LAMBDA.items()}
    mine |= {f"FNCE_COLUMNS_{name.upper()}": value for name, value in c.COLUMNS.items()}
    mine |= {f"FNCE_ANCHOR_{name.upper()}": value for name, value in c.ANCHOR.items()}
    mine |= {f"FNCE_REDUCTION_{name.upper()}": value for name, value in c.REDUCTION.items()}
    mine |= {f"FNCE_FORM_{name.upper()}": value for name, value in c.FORM.items()}
    mine |= {f"FNCE_PRESET_{name.upper().replace('-', '_')}": value for name, value in c.PRESET.items()}
    for kind in ("FAMILY", "CPU_ISA", "PRODUCTS", "MIXING", "REASON"):
        mine |= {f"FNCE_{kind}_{name.upper()}": value for name, value in getattr(c, kind).items()}
    for name in (
        "OK INVALID_ARGUMENT UNSUPPORTED NO_DEVICE DEVICE_MISMATCH WORKSPACE_TOO_SMALL OUT_OF_MEMORY DEVICE_ERROR "
        "INTERNAL_ERROR CPU CUDA FLOAT32 FLOAT16 BFLOAT16 SAMPLED GIVEN SCORES_NONE SCORES_MIXED SCORES_UNMIXED "
        "CHECK_PERMUTATION CHECK_POINTERS FORM_SYMMETRIC"
    ).split():
        mine[f"FNCE_{name}"] = getattr(c, name)
    unused = {name for name in header if name.startswith("FNCE_PRECISION_")}
    assert mine == {name: value for name, value in header.items() if name not in unused}
    assert re.search(r"#define FNCE_NO_COLUMN INT64_MIN\b", HEADER) and c.NO_COLUMN == -(2**63)
    assert int(re.search(r"#define FNCE_ALIGNMENT (\d+)", HEADER).group(1)) == c.ALIGNMENT


def test_functions_take_as_many_arguments_as_in_the_header():
    declared = dict(re.findall(r"FNCE_API [^;]*?\b(fnce_\w+)\(([^)]*)\);", without_comments(HEADER)))
    for name, (_, arguments) in c._PROTOTYPES.items():
        parameters = declared[name].strip()
        assert len(arguments) == (0 if parameters == "void" else parameters.count(",") + 1), name


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_those_of_the_library(preset):
    problem, args = c.new_problem(preset), c.new_args()
    positive, negative = PRESETS[preset]
    assert problem.lambda_pos == c.LAMBDA[positive.per if positive else "none"]
    assert problem.lambda_neg == c.LAMBDA[negative.per if negative else "none"]
    assert problem.columns == c.COLUMNS["mixed" if negative else "queue"]
    assert problem.anchor == c.ANCHOR["mixed"]
    assert (problem.renormalize_pos, problem.renormalize_neg) == (0, 0)
    if positive:
        assert (positive.alpha, positive.shift) == (args.alpha_pos, args.shift_pos)
        assert (ctypes.c_float(negative.alpha).value, negative.shift) == (args.alpha_neg, args.shift_neg)


def test_the_version_is_that_of_the_header():
    import flashnce

    parts = [re.search(rf"#define FNCE_VERSION_{part} (\d+)", HEADER).group(1) for part in ("MAJOR", "MINOR", "PATCH")]
    assert flashnce.__version__ == ".".join(parts)
