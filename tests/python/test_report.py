"""The report: what it says of runs, that a browser shows it, its figures, and errors in one sentence."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flashnce.report import compare, curves_figure, page, watch, write_figures, write_page
from flashnce.report._compare import PANELS, POINTS
from flashnce.report._distributions import density, expected, series
from flashnce.report._watch import sparkline
from flashnce.scores import RunError, RunFolder, read_run
from flashnce.scores._row import COUNTS, WIDTH

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BY_KEY = {panel.key: panel for panel in PANELS}


def row_of(step, mixes, shift=0.0):
    """A row as a meter writes it; shift moves its curves."""
    row = {"step": step, "epoch": 0, "seconds": float(step), "rows": 4, "loss": 5 + shift, "gradient_norm": 0.1,
           "entropy": 3.0, "effective_negatives": 20.0}  # fmt: skip
    for name in ("mixed", "unmixed") if mixes else ("mixed",):
        low = 0.5 if name == "mixed" and mixes else 0.0
        row |= {f"{name}_pos_mean": 0.9 - low + shift, f"{name}_pos_variance": 0.01, f"{name}_neg_mean": shift,
                f"{name}_neg_variance": 0.1 * (1 - low), f"{name}_acc1": 0.5}  # fmt: skip
    return row


def details_of(step, mixes):
    before = [0] * COUNTS
    before[60], before[61] = 3, 1
    after = [1, *before[1:]] if mixes else before
    histograms = {"pos_before": before, "pos_after": after, "neg_before": before, "neg_after": after}
    score = [0.5, 0.7]
    factor = 1.5 if mixes else None
    changed = [expected(s, factor) for s in score] if mixes else score
    return {"step": step, "epoch": 0, "seconds": 0.0, "histograms": histograms, "lambda_pos": factor,
            "lambda_neg": 0.4 if mixes else None, "pairs": {"before": score, "after": changed}}  # fmt: skip


def nan_details(step):
    """Of a step whose first positive is NaN, and whose lambda is."""
    details = details_of(step, True)
    details["pairs"]["before"][0] = details["lambda_pos"] = math.nan
    return details


def make_run(folder, *, group=None, steps=range(0, 20, 2), mixes_from=math.inf, shift=0.0, **about):
    made = RunFolder(folder, {"name": folder.name, "group": group, "about": about})
    for step in steps:
        made.write(row_of(step, step >= mixes_from, shift))
        if step % 4 == 0:
            made.write_details(details_of(step, step >= mixes_from))
    made.close()
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / "plain-0", group="MoCo", seed=0),
        make_run(tmp_path / "plain-1", group="MoCo", shift=0.02, seed=1),
        make_run(tmp_path / "ft <b>&", mixes_from=8, seed=0),
    ]


def groups_of(runs):
    return compare([read_run(run) for run in runs])


def test_curves_of_a_group_have_a_mean_and_a_spread(runs):
    plain, ft = groups_of(runs)
    assert (plain.name, len(plain.runs), ft.name) == ("MoCo", 2, "ft <b>&")
    curve = plain.curve(BY_KEY["loss"], False)
    assert curve.steps == list(range(0, 20, 2)) and curve.means == pytest.approx([5.01] * 10)
    assert curve.spread == pytest.approx([0.02 / math.sqrt(2)] * 10)
    before, mixed = (ft.curve(BY_KEY["pos_mean"], mixed) for mixed in (False, True))
    assert before.means == pytest.approx([0.9] * 10) and before.spread is None
    assert mixed.steps == [8, 10, 12, 14, 16, 18] and mixed.means == pytest.approx([0.4] * 6)
    assert plain.curve(BY_KEY["pos_mean"], True) is None and ft.curve(BY_KEY["loss"], True) is None


def test_a_run_joins_no_group_of_its_name_and_counts_once(tmp_path):
    alone = make_run(tmp_path / "ft")
    grouped = [make_run(tmp_path / name, group="ft") for name in ("a", "b")]
    groups = groups_of([alone, *grouped, tmp_path / "b" / ".." / "a", alone])
    assert [(group.name, len(group.runs)) for group in groups] == [(str(alone), 1), ("ft", 2)]
    # A name that a run in a group has is free.
    named = make_run(tmp_path / "x" / "a")
    assert [group.name for group in groups_of([named, *grouped])] == ["a", "ft"]


def test_many_steps_are_averaged_to_few_points(tmp_path):
    [group] = groups_of([make_run(tmp_path / "long", steps=range(1000))])
    curve = group.curve(BY_KEY["loss"], False)
    assert curve.width == math.ceil(1000 / POINTS) and 0.9 * POINTS < len(curve.steps) <= POINTS
    assert curve.steps[0] == (curve.width - 1) / 2


def test_runs_that_do_not_go_together_are_one_sentence(tmp_path):
    late = make_run(tmp_path / "late", group="a", steps=range(100, 104))
    early = make_run(tmp_path / "early", group="a", steps=range(4))
    with pytest.raises(RunError, match="are of one group, a, and share no step, so that no band"):
        groups_of([late, early])
    other = tmp_path / "other"
    RunFolder(other, {"name": "other"}).close()
    (other / "scores.csv").write_text("step,rows,loss,mixed_acc1\n0,4,nan,0.5\n")
    losses = RunFolder(tmp_path / "losses", {"name": "losses"})
    losses.write({"step": 0, "rows": 4, "loss": 5.0})
    losses.close()
    with pytest.raises(RunError, match="have no curve in common, so that they cannot be overlaid"):
        groups_of([tmp_path / "losses", other])
    with pytest.raises(RunError, match="there is no folder"):
        groups_of([tmp_path / "nowhere"])


def test_a_pair_that_is_no_number_is_left_out(tmp_path):
    made = RunFolder(tmp_path, {"name": "ft"})
    made.write(row_of(0, True))
    made.write_details(nan_details(0))
    made.close()
    groups = groups_of([tmp_path])
    found = series(groups[0].runs[0])
    assert found["pairs"] == [{"before": [0.7], "after": [round(expected(0.7, 1.5), 4)]}] and found["lambda"] == [None]
    pytest.importorskip("plotly")
    assert '"pairs":[{"before":[0.7]' in page(groups)
    pytest.importorskip("matplotlib")
    assert len(write_figures(groups, tmp_path / "figures")) == 4


def test_a_run_without_a_finite_value_is_one_sentence(tmp_path):
    made = RunFolder(tmp_path / "nan", {"name": "nan"})
    made.write({"step": 0, "rows": 4, "loss": math.nan})
    made.close()
    for runs in ([tmp_path / "nan"], [tmp_path / "nan", make_run(tmp_path / "other")]):
        with pytest.raises(RunError, match="nan has no finite value in any step"):
            groups_of(runs)


def test_densities_are_of_the_whole():
    counts = details_of(0, True)["histograms"]["pos_after"]
    assert sum(density(counts)) * WIDTH == pytest.approx(4 / 5)
    assert density([0] * COUNTS) == [0.0] * (COUNTS - 2)


def test_the_page_holds_everything_and_asks_nobody(runs):
    pytest.importorskip("plotly")
    text = page(groups_of(runs), title="A & B </script>")
    assert "{{" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert "<title>A &amp; B &lt;/script&gt;</title>" in text and "ft &lt;b&gt;&amp;" in text
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])
    assert [panel["key"] for panel in data["panels"]] == [panel.key for panel in PANELS]
    assert [run["steps"] for run in data["distributions"]] == [[0, 4, 8, 12, 16]] * 2
    assert [run["mixes"] for run in data["distributions"]] == [False, True]
    own = re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.S)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", own[: own.index("<script id")])


def browser():
    """A page of headless Chromium, or a reason why there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")
    return api.sync_playwright, program


@pytest.mark.full
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_a_browser_shows_it_and_the_slider_moves(runs, tmp_path, size):
    pytest.importorskip("plotly")
    start, program = browser()
    write_page(groups_of(runs), tmp_path / "report.html")
    with start() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        shown = chromium.new_page(viewport={"width": size[0], "height": size[1]})
        wrong = []
        shown.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("request", lambda ask: wrong.append(ask.url) if not ask.url.startswith(("file:", "data:")) else None)
        shown.goto((tmp_path / "report.html").as_uri())
        shown.wait_for_selector("html[data-ready=yes]")
        assert shown.locator("#curves .main-svg").count() >= len(PANELS)
        # Every curve is drawn, none is wider than its frame, and nothing makes the page wider than the window.
        assert shown.locator("#curves path.js-line").count() >= 2 * len(PANELS)
        assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert shown.evaluate("[...document.querySelectorAll('.plot')].every(p => "
                              "p.querySelector('svg').getBoundingClientRect().width <= p.clientWidth + 1)")  # fmt: skip
        assert shown.locator("#step").inner_text() == "16"
        before = shown.locator("#distributions h3").last.inner_text()
        points = shown.locator("#distributions .scatterlayer path.point")
        assert points.count() == 2
        high = points.first.bounding_box()["y"]
        shown.locator("#slider").focus()
        for _ in range(4):
            shown.keyboard.press("ArrowLeft")
        assert shown.locator("#step").inner_text() == "0"
        assert (before, shown.locator("#distributions h3").last.inner_text()) == (
            "ft <b>& at step 16", "ft <b>& at step 0")  # fmt: skip
        assert points.first.bounding_box()["y"] != high
        assert shown.pdf()[:4] == b"%PDF"
        assert wrong == []
        chromium.close()


def test_figures_for_papers(runs, tmp_path):
    pytest.importorskip("matplotlib")
    written = write_figures(groups_of(runs), tmp_path / "figures")
    assert [path.name for path in written] == ["curves.png", "curves.svg", "distributions.png", "distributions.svg"]
    assert all(path.stat().st_size > 5000 for path in written)
    # Text stays text, so that a paper's font can replace it.
    assert "Negatives: variance" in written[1].read_text()
    again = write_figures(groups_of(runs), tmp_path / "again")
    assert [path.read_bytes() for path in again[1::2]] == [path.read_bytes() for path in written[1::2]]


@pytest.mark.parametrize("left", [3, 5, 7, 8])
def test_the_figure_has_an_axis_for_each_panel(tmp_path, left):
    pytest.importorskip("matplotlib")
    keys = [panel.key for panel in PANELS[:left]]
    made = RunFolder(tmp_path, {"name": "few"})
    for step in range(2):
        row = row_of(step, False) | {"mixed_pos_mean": 0.5}
        made.write({name: x for name, x in row.items()
                    if name in ("step", "rows", "loss") or name.removeprefix("mixed_") in keys})  # fmt: skip
    made.close()
    # A run's loss is always there.
    keys += ["loss"] if "loss" not in keys else []
    shown = [axis for axis in curves_figure(groups_of([tmp_path])).axes if axis.get_visible()]
    assert len(shown) == len(keys) and all(axis.get_lines() for axis in shown)


def test_the_terminal_shows_every_run(runs, tmp_path):
    console = pytest.importorskip("rich.console").Console(width=100, file=open(tmp_path / "out", "w"), record=True)
    watch(runs, once=True, console=console)
    text = console.export_text()
    assert "MoCo at step 18, ft <b>& at step 18" in text and "0.4" in text and "5.01" in text
    with pytest.raises(RunError, match="there is no folder"):
        watch([tmp_path / "nowhere"], once=True, console=console)


def test_a_sparkline_goes_from_least_to_most():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([]) == "" and sparkline([1.0] * 40) == "▁" * 16 and sparkline(list(range(99)))[-1] == "█"


# ---- The command -----------------------------------------------------------------------------------------------------


def command(*arguments, code=None):
    program = ["-m", "flashnce"] if code is None else ["-c", code]
    return subprocess.run([sys.executable, *program, *map(str, arguments)], capture_output=True, text=True, timeout=120)


# In this program an import of these packages fails.
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(("torch", "numpy", *sys.argv.pop(1).split(","))))
runpy.run_module("flashnce", run_name="__main__", alter_sys=True)
"""


def test_the_command_writes_the_page_without_torch_and_numpy(runs, tmp_path):
    pytest.importorskip("plotly")
    done = command("pandas", "report", *runs, "-o", tmp_path / "new" / "report.html", code=WITHOUT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"written: {tmp_path / 'new' / 'report.html'}\n"
    assert (tmp_path / "new" / "report.html").stat().st_size > 10**6


def test_the_command_writes_what_is_asked_for(runs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("plotly")
    pytest.importorskip("matplotlib")
    from flashnce.__main__ import main

    monkeypatch.chdir(tmp_path)
    page_there = {(): True, ("--figures", "figures"): False, ("--figures", "figures", "-o", "report.html"): True}
    for options, there in page_there.items():
        main(["report", str(runs[0]), *options])
        printed = capsys.readouterr().out
        assert Path("report.html").exists() is ("report.html" in printed) is there, options
        assert Path("figures/curves.svg").exists() is ("curves.svg" in printed) is ("--figures" in options), options
        Path("report.html").unlink(missing_ok=True)
        shutil.rmtree("figures", ignore_errors=True)


@pytest.mark.parametrize(("damage", "sentence"), [
    (lambda run: (run / "run.json").unlink(), "holds no run: run.json is missing"),
    (lambda run: (run / "scores.csv").write_text("step\n"), "has no column rows"),
    (lambda run: shutil.rmtree(run), "there is no folder"),
])  # fmt: skip
def test_errors_of_the_command_are_one_sentence(runs, tmp_path, damage, sentence):
    damage(runs[0])
    for name in ("report", "watch"):
        done = command(name, runs[0], *(["-o", tmp_path / "r.html"] if name == "report" else ["--once"]))
        assert done.returncode == 1 and sentence in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"flashnce {name}: error: ")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(("package", "arguments"), [
    ("plotly.offline", ["report"]), ("rich.table", ["watch", "--once"]),
])  # fmt: skip
def test_a_package_that_is_not_there_is_one_sentence(runs, package, arguments):
    done = command(package, *arguments, runs[0], code=WITHOUT)
    assert done.returncode == 1 and done.stderr.endswith(f"pip install {package.split('.')[0]}\n"), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_leaves_the_old_page_and_is_one_sentence(runs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("plotly")
    from flashnce.__main__ import main

    target = tmp_path / "report.html"
    target.write_text("old")

    def full(self, *_, **__):
        open(self, "w").close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SystemExit) as end:
        main(["report", str(runs[0]), "-o", str(target)])
    assert "No space left on device" in str(end.value) and "\n" not in str(end.value)
    assert target.read_text() == "old" and not list(tmp_path.glob("*.tmp"))
