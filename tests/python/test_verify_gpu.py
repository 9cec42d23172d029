"""`./dev verify-gpu` without a GPU: stages that resume, end in time and are refused; the record and its page; the
command. Nothing here runs on a device, and nothing says that it did."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time

import pytest
from verify_gpu_cases import (  # noqa: F401
    DEVICE, RATES, ROOT, benches, build, context, gpu_floors, machine, program, record, render, runner, stages,
)  # fmt: skip

from verify_gpu.runner import Context, Result, Stage, State, run_stages, verdict


def state_of(context: Context, **key) -> State:
    return State(context.out / "state.json", {"sources": "a", **key})


def fake(name: str, ran: list[str], status: str = runner.PASSED, **options) -> Stage:
    def run(_: Context) -> Result:
        ran.append(name)
        return Result(status, "" if status == runner.PASSED else f"{name} said so")

    return Stage(name, "a stage", run, **options)


def test_stages_resume(context, capsys):
    ran: list[str] = []
    first = [fake("one", ran), fake("two", ran, runner.FAILED), fake("three", ran, runner.REFUSED, required=False)]
    assert run_stages(first, context, state_of(context))
    assert ran == ["one", "two", "three"]
    # Another process later: what has a result is left alone, whatever it was.
    again = state_of(context)
    assert not again.fresh and again.results["two"].detail == "two said so"
    assert run_stages([*first, fake("four", ran)], context, again)
    assert ran[3:] == ["four"]
    assert "passed before" in capsys.readouterr().out
    run_stages(first, context, again, again=(runner.FAILED, runner.TIMEOUT))
    assert ran[4:] == ["two"]
    run_stages(first, context, again, again=runner.STATUSES)
    assert ran[5:] == ["one", "two", "three"]


def test_a_state_of_other_sources_or_another_device_is_not_gone_on_with(context):
    ran: list[str] = []
    run_stages([fake("one", ran)], context, state_of(context))
    assert state_of(context, device="another").fresh
    run_stages([fake("one", ran)], context, state_of(context, device="another"))
    assert ran == ["one", "one"]


def test_a_stage_that_raises_has_failed_and_the_next_one_runs(context):
    def broken(_: Context) -> Result:
        raise RuntimeError("out of luck")

    ran: list[str] = []
    state = state_of(context)
    run_stages([Stage("broken", "", broken), fake("next", ran)], context, state)
    assert state.results["broken"].status == runner.FAILED
    assert state.results["broken"].detail == "RuntimeError: out of luck"
    assert ran == ["next"]


@pytest.mark.parametrize("status, goes_on", [(runner.FAILED, False), (runner.SKIPPED, True), (runner.PASSED, True)])
def test_nothing_runs_behind_a_gate_that_failed(context, status, goes_on):
    ran: list[str] = []
    gate = fake("gate", ran, status, gate=True)
    state = state_of(context)
    assert run_stages([gate, fake("next", ran)], context, state) == goes_on
    assert ran == (["gate", "next"] if goes_on else ["gate"])
    # Neither another time.
    assert run_stages([gate, fake("third", ran)], context, state_of(context)) == goes_on
    assert ("third" in ran) == goes_on
    assert stages.STAGES[0].gate and stages.STAGES[0].name == "build"


def test_time_is_up(context, tmp_path):
    """The program and what it started are gone, and what it said until then is kept."""
    child = tmp_path / "child"
    slow = program(tmp_path / "slow", f"echo started\n(sleep 2; echo alive >{child}) &\nsleep 30\n")
    stage = Stage("slow", "", lambda c: runner.judged(c.run(slow)), limit=0.5)
    start = time.monotonic()
    state = state_of(context)
    assert run_stages([stage], context, state)
    assert time.monotonic() - start < 10
    assert state.results["slow"].status == runner.TIMEOUT
    assert "started" in state.results["slow"].detail
    assert "started" in (context.out / "logs" / "slow.log").read_text()
    time.sleep(2.5)
    assert not child.exists()


def test_no_stage_has_more_than_eight_minutes():
    assert runner.LIMIT == 480
    assert all(stage.limit <= runner.LIMIT for stage in stages.STAGES)
    assert stages.SOAK_SECONDS < next(stage.limit for stage in stages.STAGES if stage.name == "soak")
    assert all(0 < stage.least < stage.limit for stage in stages.STAGES)


def test_the_budget_ends_before_a_stage_not_in_it(context, tmp_path, capsys):
    ran: list[str] = []
    # What does not fit is passed over, what does is run.
    assert not run_stages([fake("one", ran), fake("two", ran, least=5)], context, state_of(context), budget=10)
    assert ran == ["two"] and "not started" in capsys.readouterr().out
    # Behind a gate that has not been passed nothing is.
    behind = [fake("gate", ran, gate=True), fake("three", ran, least=5)]
    assert not run_stages(behind, context, state_of(context), budget=10)
    assert ran == ["two"]
    # Cut off by the budget and not by its own time, a stage has no result, and starts anew next time.
    sleeper = program(tmp_path / "sleeper", "sleep 30\n")
    state = state_of(context)
    slow = Stage("slow", "", lambda c: runner.judged(c.run(sleeper)), limit=20, least=0.1)
    assert not run_stages([slow], context, state, budget=0.5)
    assert "slow" not in state.results and "cut off by the budget" in capsys.readouterr().out


@pytest.mark.parametrize(
    "code, status", [(0, runner.PASSED), (1, runner.FAILED), (77, runner.SKIPPED), (-11, runner.FAILED)]
)
def test_exit_codes(code, status):
    result = runner.judged(runner.Done(code, "first\nlast\n"))
    assert result.status == status
    if status != runner.PASSED:
        assert "last" in result.detail
    if code < 0:
        assert "signal 11" in result.detail


@pytest.mark.parametrize(
    "code, output, status",
    [
        (0, "========= ERROR SUMMARY: 0 errors\n", runner.PASSED),
        (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", runner.PASSED),
        (9, "========= Invalid __global__ read\n========= ERROR SUMMARY: 3 errors\n", runner.FAILED),
        (9, "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n", runner.FAILED),
        (1, "========= Error: Insufficient privileges to attach\n", runner.REFUSED),
        (1, "========= Device not supported. Please refer to the documentation\n", runner.REFUSED),
        (0, "nothing of the kind\n", runner.FAILED),
        (None, "========= COMPUTE-SANITIZER\n", runner.TIMEOUT),
        (-6, "terminate called\n", runner.FAILED),
    ],
)
def test_what_a_sanitizer_says(code, output, status):
    assert stages.sanitized(runner.Done(code, output)).status == status


def test_a_machine_without_tools(context, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "programs_of", lambda _: build.Programs(calls=tmp_path / "x"))
    assert stages.sanitizer("memcheck")(context).status == runner.REFUSED
    assert build.build_stage(context).status == runner.SKIPPED


def test_missing_programs_are_skipped_and_never_passed(context, monkeypatch):
    monkeypatch.setattr(build, "programs_of", lambda _: build.Programs())
    proving = (stages.conformance, stages.curand, stages.api, stages.calls("graphs"))
    for run in (*proving, benches.rates, lambda c: benches.cells(0, c)):
        result = run(context)
        assert result.status == runner.SKIPPED and "not built" in result.detail


def test_reports_of_programs(context, monkeypatch, tmp_path):
    report = {"device": "x", "checks": [{"name": "a", "status": "PASS", "detail": ""}], "numbers": {"b": 1.5}}
    text = f"while [ $# -gt 1 ]; do shift; done\ncat >\"$1\" <<'END'\n{json.dumps(report)}\nEND\n"
    good = program(tmp_path / "good", text)
    monkeypatch.setattr(build, "programs_of", lambda _: build.Programs(conformance=good, models=good))
    result = stages.conformance(context)
    assert result.status == runner.PASSED
    assert result.data == {"counts": {"PASS": 1}, "failed": [], "numbers": {"b": 1.5}}
    report["checks"][0]["status"] = "SKIP"
    program(good, text.replace("PASS", "SKIP"))
    assert stages.conformance(context).status == runner.FAILED, "a run that checked nothing is no pass"
    program(good, "echo no device\nexit 77\n")
    assert stages.conformance(context).status == runner.SKIPPED


def test_counts_of_a_junit_file(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b">'
        '<failure message="1 is not 2">\n at line 3</failure></testcase>'
        '<testcase name="c"><skipped/></testcase></testsuite></testsuites>'
    )
    assert stages.junit_counts(path) == {"tests": 3, "skipped": 1, "failed": ["b"], "first": "b: 1 is not 2 at line 3"}
    # Catch2 opens the file at the beginning and writes it at the end.
    path.write_text("")
    assert stages.junit_counts(path) == {}


def test_the_tests_of_the_interface_run_in_processes_of_their_own(context, monkeypatch, tmp_path):
    """Each test belongs to one of the groups; what one process does not survive is no loss to the others."""
    fail = '<testsuite><testcase name="cuda: x"><failure>broken</failure></testcase></testsuite>'
    good = '<testsuite><testcase name="y"/><testcase name="z"><skipped/></testcase></testsuite>'
    said = tmp_path / "said"
    text = (
        f'echo "$5" >>{said}\n'
        f"case $5 in cuda:*) echo '{fail}' >$4; exit 1;; types:*) kill -11 $$;; *) echo '{good}' >$4;; esac\n"
    )
    found = program(tmp_path / "api_tests", text)
    monkeypatch.setattr(build, "programs_of", lambda _: build.Programs(api=found))
    result = stages.whole_api(context)
    assert result.status == runner.FAILED and result.detail == "cuda: x: broken"
    assert result.data["failed"] == ["cuda: x"] and (result.data["tests"], result.data["skipped"]) == (7, 3)
    assert said.read_text().split("\n") == [
        '~"cuda:*"~"types:*"~"scores:*"~"errors:*"', "cuda:*", "types:*", "scores:*", "errors:*", ""
    ]  # fmt: skip


def results_of(status: str = runner.PASSED) -> dict[str, Result]:
    found = {stage.name: Result(status, "", {}, 1.0) for stage in stages.STAGES}
    spread = {"median": 10.0, "min": 9.0, "max": 12.0}
    us = {f"{part}_graph_{state}": spread for part in ("step", "partial") for state in ("cold", "hot")}
    cell = {"shape": [256, 65536, 128], "type": "float16", "preset": "ft", "us": us, "plan": "cuda"}
    found["rates"].data = {"rates": {name: {"value": value, "unit": "1/s"} for name, value in RATES.items()}}
    found["cells-1"].data = {"cells": [gpu_floors.with_floors(cell, RATES)]}
    cut_off = gpu_floors.with_floors({**cell, "shape": [1024, 4096, 64], "us": {"step_graph_cold": spread}}, RATES)
    found["cells-2"].data = {"cells": [{**cell, "shape": [32, 4096, 64], "error": "a | b"}, cut_off]}
    found["conformance"].data = {"counts": {"PASS": 3}, "failed": [], "numbers": {"ex2, largest error": 1.25}}
    found["gemms"].data = {
        "gemms": [{"shape": [256, 65536, 128], "type": "float16", "us": {"graph_cold": {**spread, "median": 77.0}}}]
    }
    found["kernels"].data = {
        "kernels": [{"shape": [32, 65536, 128], "type": "float16", "preset": "ft",
                     "kernels": {"main": {"us": spread, "per_step": 1.0}}}]
    }  # fmt: skip
    peer = {"us": {"graph_cold": spread}, "loss_error": 1e-7, "dq_error": 2e-6, "peak_mib": 3.0}
    found["peers-32x65536x128"].data = {
        "peers": [{"shape": [32, 65536, 128], "type": "float16", "peers": {"eager-ft": peer},
                   "skipped": {"cudnn-ft": "no"}}]
    }  # fmt: skip
    return found


def made(results: dict[str, Result]) -> dict:
    facts = {"command": "./dev verify-gpu", "commit": {"id": "0" * 40, "dirty": False}, "sources": "f" * 16}
    host = {"cpu": "Example", "cores": 16, "memory_gib": 128.0, "system": "Linux x86_64", "python": "3.11"}
    return record.assemble(stages.STAGES, results, {**facts, "device": DEVICE, "host": host})


def test_a_made_up_record_and_its_page(tmp_path):
    written = made(results_of())
    record.validate(written)
    assert written["verdict"] == "passed" and written["finished"]
    path = record.path_of(written, tmp_path)
    assert path.name == f"{written['date']}-nvidia-example-100.json"
    render.write(written, path)
    assert record.load(path) == written
    lines = path.read_text().splitlines()
    cells = [cell for stage in written["stages"] for cell in stage["data"].get("cells", [])]
    assert cells and all(any(json.loads(line.strip(" ,")) == cell for line in lines if line.lstrip().startswith('{"'))
                         for cell in cells)  # fmt: skip
    page = path.with_suffix(".md").read_text()
    for words in ("NVIDIA Example 100", "| conformance | passed", "256×65536×128", "1024×4096×64", "77",
                  "ex2, largest error", "a \\| b", "FT, eager", "Not run: cudnn-ft (no)", "`main`"):  # fmt: skip
        assert words in page, words
    done = subprocess.run(
        [sys.executable, "-m", "verify_gpu.render", str(path)], env={**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    )
    assert done.returncode == 0 and path.with_suffix(".md").read_text() == page


def test_the_verdict():
    assert verdict(stages.STAGES, results_of()) == "passed"
    refused = results_of()
    refused["sanitizer-racecheck"] = Result(runner.REFUSED, "not permitted")
    assert verdict(stages.STAGES, refused) == "passed"
    for status in (runner.SKIPPED, runner.REFUSED):
        missing = results_of()
        missing["graphs"] = Result(status)
        assert verdict(stages.STAGES, missing) == "incomplete"
    for status in (runner.FAILED, runner.TIMEOUT):
        failed = results_of()
        failed["gemms"] = Result(status)
        assert verdict(stages.STAGES, failed) == "failed"
    begun = {"build": Result(runner.PASSED)}
    assert verdict(stages.STAGES, begun) == "incomplete"
    page = render.render(made(begun))
    assert "nothing is verified" in page and "| graphs | not run" in page


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda r: r.update(verdict="failed"), "as the stages say"),
        (lambda r: r["stages"][1].update(status="skipped"), "as the stages say"),
        (lambda r: r["stages"][0].update(status="fine"), "status"),
        (lambda r: r.pop("device"), "fields of the schema"),
        (lambda r: r["commit"].update(id="abc"), "40 hex digits"),
        (lambda r: r["stages"][0].update(detail="/" + "home/someone/x"), "free of paths"),
    ],
)
def test_a_record_that_is_not_of_the_schema(change, words):
    wrong = copy.deepcopy(made(results_of()))
    change(wrong)
    with pytest.raises(record.RecordError, match=words):
        record.validate(wrong)


def test_paths_stay_out_of_records():
    results = results_of()
    results["build"] = Result(runner.PASSED, "see /" + "root/somewhere/log", {"at": ["/" + "tmp/x and more"]})
    text = json.dumps(made(results))
    assert "somewhere" not in text and "and more" in text


def test_committed_gpu_records():
    for path in sorted((ROOT / "bench" / "records" / "gpu").glob("*.json")):
        loaded = record.load(path)
        assert path.with_suffix(".md").read_text() == render.render(loaded)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "verify_gpu", *arguments], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), **environment},
    )  # fmt: skip


def test_the_command_without_a_device(tmp_path):
    if machine.find_device()[0] is not None:
        pytest.skip("there is a device here")
    done = command("--out", str(tmp_path / "out"), "--records", str(tmp_path / "records"))
    assert done.returncode == 77 and "SKIP" in done.stdout and "nothing was verified" in done.stdout
    assert not list(tmp_path.iterdir()), "without a device there is nothing to record"
    assert command(FLASHNCE_REQUIRE_GPU="1").returncode == 1
    assert command("--stage", "nope").returncode == 1
    listed = command("--list")
    assert listed.returncode == 0 and all(stage.name in listed.stdout for stage in stages.STAGES)


def test_the_whole_command_with_a_made_up_device(tmp_path, monkeypatch, capsys):
    """Everything but the device: stages, record and page, exit codes, going on."""
    from verify_gpu import __main__ as main

    ran: list[str] = []
    fakes = [fake("build", ran), fake("conformance", ran, runner.FAILED), fake("rates", ran, required=False)]
    monkeypatch.setattr(stages, "STAGES", fakes)
    monkeypatch.setattr(main, "STAGES", fakes)
    monkeypatch.setattr(machine, "find_device", lambda: (DEVICE, ""))
    places = ["--out", str(tmp_path / "out"), "--records", str(tmp_path / "records")]
    assert main.main([*places, "--budget", "10"]) == main.UNFINISHED
    assert ran == []
    assert main.main(places) == 1
    (path,) = (tmp_path / "records").glob("*.json")
    assert record.load(path)["verdict"] == "failed" and path.with_suffix(".md").is_file()
    fakes[1] = fake("conformance", ran)
    assert main.main([*places, "--failed"]) == 0
    assert ran == ["build", "conformance", "rates", "conformance"]
    assert record.load(path)["verdict"] == "passed"
    assert main.main([*places, "--stage", "rates", "--again"]) == 0
    assert ran[4:] == ["rates"]
    assert "PASSED" in capsys.readouterr().out
