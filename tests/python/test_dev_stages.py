"""The stages of `./dev test`: the first failure ends it; with --keep-going all run and all failures are reported."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

# cmd_test with stages of its own, in a folder of its own.
SCRIPT = f"""
set -euo pipefail
ROOT=$PWD
source {TOOLS}/dev_common.sh
source {TOOLS}/dev_test.sh
setup_system() {{ :; }}
setup_python() {{ :; }}
setup_scores() {{ :; }}
print_results() {{ echo "the results"; }}
says() {{ echo "$1" >>"$ROOT/ran"; }}
fails() {{ says "$1"; echo "the reason of $1"; false; echo "behind it" >>"$ROOT/ran"; }}
named() {{ local name=$1; shift; stage "$name" "$@"; }}
test_quick() {{
  stage "format" "$FORMAT" format
  stage "build release" "$BUILD" build
  after "build release" named "tests release" says tests
  after "tests release" stage "what needs the tests" says more
  stage "wheel" says wheel
}}
test_full() {{ stage "fuzzing" "$FUZZING" fuzzing; }}
cmd_test "$@"
"""


def run(folder: Path, *arguments: str, fails: tuple[str, ...] = ()) -> tuple[int, list[str], list[str]]:
    """The exit status, the lines that were printed, and the stages that ran."""
    functions = {name: "fails" if name in fails else "says" for name in ("FORMAT", "BUILD", "FUZZING")}
    result = subprocess.run(["bash", "-c", SCRIPT, "dev", *arguments], cwd=folder, capture_output=True, text=True,
                            env={"PATH": "/usr/bin:/bin", **functions})  # fmt: skip
    assert result.stderr == ""
    ran = folder / "ran"
    return result.returncode, result.stdout.splitlines(), ran.read_text().split() if ran.exists() else []


@pytest.mark.parametrize("arguments", [("--quick",), ("--quick", "--keep-going"), ("--keep-going", "--quick")])
def test_without_a_failure_all_stages_run(tmp_path, arguments):
    status, lines, ran = run(tmp_path, *arguments)
    assert status == 0 and ran == ["format", "build", "tests", "more", "wheel"]
    assert [line.split("  ")[0] for line in lines[:5]] == [
        "format", "build release", "tests release", "what needs the tests", "wheel"
    ]  # fmt: skip
    assert lines[5].startswith("all of it") and " ok " in lines[5] and lines[6:] == ["the results"]


def test_the_first_failure_ends_it(tmp_path):
    status, lines, ran = run(tmp_path, "--quick", fails=("FORMAT", "BUILD"))
    assert status == 1 and ran == ["format"]
    assert lines[0].startswith("format") and "FAILED" in lines[0]
    assert lines[1:] == ["---- the end of build/logs/format.log ----", "the reason of format", "the results"]


def test_keep_going_runs_the_rest_and_reports_all(tmp_path):
    status, lines, ran = run(tmp_path, "--keep-going", fails=("FORMAT", "FUZZING"))
    assert status == 1 and ran == ["format", "build", "tests", "more", "wheel", "fuzzing"]
    assert "the reason of format" in lines and "the reason of fuzzing" in lines
    end = next(number for number, line in enumerate(lines) if line.startswith("all of it"))
    assert "FAILED" in lines[end]
    assert lines[end + 1 :] == [
        "failed: format (build/logs/format.log)", "failed: fuzzing (build/logs/fuzzing.log)", "the results"
    ]  # fmt: skip


def test_what_needs_a_failed_build_is_left_out_in_words(tmp_path):
    status, lines, ran = run(tmp_path, "--quick", "--keep-going", fails=("BUILD",))
    assert status == 1 and ran == ["format", "build", "wheel"]
    left_out = [line.split("left out: needs") for line in lines if "left out: needs" in line]
    assert [(name.strip(), needed.strip()) for name, needed in left_out] == [
        ("tests release", '"build release"'), ("what needs the tests", '"tests release"')
    ]  # fmt: skip
    assert lines[-4:] == [
        "failed: build release (build/logs/build-release.log)", "left out: tests release",
        "left out: what needs the tests", "the results",
    ]  # fmt: skip


def test_an_unknown_option_is_refused(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "FORMAT": "says", "BUILD": "says", "FUZZING": "says"}
    command = ["bash", "-c", SCRIPT, "dev", "--keep-on"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and "not '--keep-on'" in result.stderr and not (tmp_path / "ran").exists()
