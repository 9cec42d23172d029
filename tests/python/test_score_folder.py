"""The folder of a run and the other sinks: what is written is read back, by one rank or several, and survives."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch
from processes import outputs_of
from score_cases import FT, Rows, call

from flashnce.scores import RunError, RunFolder, ScoreMeter, read_run
from flashnce.scores._meter import _Waiting


def written(folder, steps=5, **options):
    loss, found, (q, k, z) = call(**FT)
    with ScoreMeter(folder, details_every=2, temperature=0.2, **options) as meter:
        for _ in range(steps):
            meter.update(loss, found, q=q, k=k, negatives=z, temperature=0.2, **FT)
        return list(meter.recent)


def test_a_run_is_read_as_it_was_written(tmp_path):
    rows = written(tmp_path / "a", group="ft")
    run = read_run(tmp_path / "a")
    assert (run.name, run.group, run.about) == ("a", "ft", {"temperature": 0.2})
    assert run.rows == rows and [details["step"] for details in run.details] == [0, 2, 4]
    assert run.curve("raw_pos_mean")[0] == [0, 2, 4] and run.curve("loss")[0] == [0, 1, 2, 3, 4]


def test_a_group_that_is_a_number_is_read_as_text(tmp_path):
    written(tmp_path, 1)
    damage(tmp_path, '"group": null', '"group": 1', "run.json")
    damage(tmp_path, '"name": ', '"name": 2, "was": ', "run.json")
    run = read_run(tmp_path)
    assert (run.name, run.group) == ("2", "1")


def test_a_run_that_goes_on_counts_repeated_steps_once(tmp_path):
    written(tmp_path, 5)
    with open(tmp_path / "scores.csv", "a") as file:
        file.write("5,0,1.0,24")  # A process that died in the middle of a line.
    loss, found, _ = call()
    with pytest.raises(RunError, match="already holds a run; mode='resume'"):
        ScoreMeter(tmp_path)
    meter = ScoreMeter(tmp_path, mode="resume")
    meter.load_state_dict({"next_step": 3})
    meter.update(loss, found)
    meter.close()
    run = read_run(tmp_path)
    assert [row["step"] for row in run.rows] == [0, 1, 2, 3] and "unmixed_pos_mean" not in run.rows[3]
    written(tmp_path, 2, mode="replace", model="resnet50", k=65536, momentum=0.99, lr=0.1, epochs=2, eval_every=5)
    assert len(read_run(tmp_path).rows) == 2


@pytest.mark.parametrize(("options", "sentence"), [
    ({"temperature": torch.tensor(0.2)}, "temperature is a Tensor, which run.json cannot hold"),
    ({"detail_every": 200}, "ScoreMeter has no option detail_every; it has details_every"),
    ({"group": 1}, "group is a int; it must be a str or None"),
])  # fmt: skip
def test_a_description_that_cannot_be_written_leaves_the_old_run(tmp_path, options, sentence):
    rows = written(tmp_path, 3)
    with pytest.raises(TypeError, match=sentence):
        ScoreMeter(tmp_path, mode="replace", **options)
    assert read_run(tmp_path).rows == rows


def test_a_run_that_goes_on_without_a_checkpoint_keeps_its_steps(tmp_path):
    written(tmp_path, 3)
    with open(tmp_path / "scores.csv", "a") as file:
        file.write("7,0,1.0,24")
    loss, found, _ = call()
    with ScoreMeter(tmp_path, mode="resume", details_every=3) as meter:
        assert meter.state_dict() == {"next_step": 3} and meter.wants_details()
        meter.update(loss, found)
    assert [row["step"] for row in read_run(tmp_path).rows] == [0, 1, 2, 3]
    damage(tmp_path, "\n3,", "\nx,")
    with pytest.raises(RunError, match="is damaged in its last line"):
        ScoreMeter(tmp_path, mode="resume")


def test_a_step_that_goes_back_is_said_once():
    loss, found, _ = call()
    with ScoreMeter() as meter, pytest.warns(RuntimeWarning) as warned:
        for _ in range(2):
            for step in range(3):
                meter.update(loss, found, step=step)
        meter.update(loss, found, step=0)
    assert len(warned) == 1 and "step 0 comes after step 2; who reads the run drops" in str(warned[0].message)
    assert warned[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_a_checkpoint_may_go_back():
    loss, found, _ = call()
    with ScoreMeter() as meter:
        for step in (0, 1, 2):
            meter.update(loss, found, step=step)
        meter.load_state_dict({"next_step": 1})
        meter.update(loss, found, step=1)


def test_a_run_goes_on_with_as_many_ranks(tmp_path):
    made = [RunFolder(tmp_path, {"name": "two", "ranks": 2}, rank=rank) for rank in (0, 1)]
    for one in made:
        one.write({"step": 0, "rows": 4, "loss": 1.0})
        one.close()
    loss, found, _ = call()
    with pytest.raises(RunError, match="holds a run of 2 ranks with files of their own, and this one has 1"):
        ScoreMeter(tmp_path, mode="resume").update(loss, found)
    # A rank that is new to it has no file of its own yet.
    with pytest.raises(RunError, match="a run of 2 ranks with files of their own, and this one has 3"):
        RunFolder(tmp_path, {"name": "three", "ranks": 3}, "resume", rank=2)
    assert len(read_run(tmp_path).rows) == 1


DIES = """
import sys, time
import torch
from flashnce.scores import ScoreMeter
from flashnce.torch import info_nce
q = torch.randn(8, 4)
loss, scores = info_nce(q, q, torch.randn(16, 4), return_scores=True)
meter = ScoreMeter(sys.argv[1])
for step in range(10**6):
    meter.update(loss, scores)
    print(step, flush=True)
"""


def test_a_killed_process_loses_the_last_step_at_most(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", DIES, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(50):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.communicate(timeout=60)[0].split("\n")
    printed = 50 + len([line for line in rest[:-1] if line])
    steps = [row["step"] for row in read_run(tmp_path).rows]
    assert steps == list(range(len(steps))) and len(steps) >= printed


WORKER = """
import sys
import torch
from flashnce.scores import ScoreMeter
from flashnce.torch import info_nce

rank, folder = int(sys.argv[1]), sys.argv[2].rsplit("/", 1)[0]
early = [ScoreMeter(folder + "/early-" + name, details_every=2, across_ranks=across)
         for name, across in (("apart", None), ("gathered", True))]
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
g = torch.Generator().manual_seed(0)
q, k, z = torch.randn(12, 6, generator=g), torch.randn(12, 6, generator=g), torch.randn(32, 6, generator=g)
part = slice(0, 5) if rank == 0 else slice(5, 12)
options = {"return_scores": True, "reduction": "none"}
loss, scores = info_nce(q[part], k[part], z, **options)
with ScoreMeter(folder + "/gathered", across_ranks=True, details_every=2) as gathered:
    with ScoreMeter(folder + "/apart", details_every=2, mode="replace") as apart:
        for step in range(3):
            for meter in (gathered, apart, *early):
                meter.update(loss, scores, q=q[part], k=k[part], negatives=z)
for meter in early:
    meter.close()
class Sink(list):
    write = list.append
    write_details = close = lambda self, *_: None
class Wanting(Sink):
    rows_wanted = True
for across in (None, True):
    kept = Sink()
    with ScoreMeter(sinks=[kept], across_ranks=across) as meter:
        meter.update(loss, scores)
    print([row["rows"] for row in kept])
    try:
        ScoreMeter(sinks=[Wanting()], across_ranks=across).update(loss, scores)
    except ValueError as error:
        print(error)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
if rank == 0:
    with ScoreMeter(folder + "/whole", details_every=2) as whole:
        loss, scores = info_nce(q, k, z, **options)
        for step in range(3):
            whole.update(loss, scores, q=q, k=k, negatives=z)
print("done")
"""


@pytest.mark.full
def test_two_ranks_are_one_run(tmp_path):
    refused = "Wanting wants the scores of every query, which are not gathered over the 2 ranks".split()
    # Rank 0 alone writes to its sinks: its own rows, then those of both.
    assert outputs_of(WORKER, tmp_path) == [
        ["[5.0]", *refused, "[12.0]", *refused, "done"],
        ["[]", *refused, "[]", *refused, "done"],
    ]
    # A trainer makes its ranks after its meter.
    names = ("whole", "gathered", "apart", "early-gathered", "early-apart")
    whole, *others = (read_run(tmp_path / name) for name in names)
    for other in others:
        assert len(other.rows) == len(whole.rows) == 3
        for row, expected in zip(other.rows, whole.rows):
            assert row.keys() == expected.keys()
            for name in row.keys() - {"seconds"}:
                assert row[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-6), name
        for details, expected in zip(other.details, whole.details):
            assert details["histograms"] == expected["histograms"]


def test_ranks_that_nobody_initialised_are_refused(tmp_path, monkeypatch):
    loss, found, _ = call()
    with pytest.raises(RuntimeError, match="across_ranks is given, but torch.distributed is not initialised"):
        ScoreMeter(across_ranks=True).update(loss, found)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="WORLD_SIZE is 2, but torch.distributed is not initialised"):
        ScoreMeter(tmp_path).update(loss, found)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_the_log_and_not_the_training(tmp_path):
    loss, found, _ = call()
    rows = Rows()
    meter = ScoreMeter(tmp_path, sinks=[rows])
    meter.update(loss, found)
    meter._sinks[0]._files["scores.csv"] = open("/dev/full", "a")
    with pytest.warns(RuntimeWarning, match="RunFolder gets no more scores: .*No space left on device"):
        meter.update(loss, found)
    meter.update(loss, found)
    meter.close()
    assert len(rows) == 3 and len(read_run(tmp_path).rows) == 1


@pytest.mark.parametrize("where", ["write", "close"])
def test_a_sink_that_fails_ends_neither_the_training_nor_the_others(where):
    class Fails(Rows):
        closed = 0

        def write(self, row):
            self.append(row)
            if where == "write":
                raise KeyError("a name\nof two lines")

        def close(self):
            self.closed += 1
            raise KeyError("at the end")

    class Closed(Rows):
        closed = False

        def close(self):
            self.closed = True

    loss, found, _ = call()
    fails, rows = Fails(), Closed()
    with pytest.warns(RuntimeWarning, match="flashnce: Fails gets no more scores: '") as warned:
        # Both are lists, and equal as long as they are empty or hold the same rows.
        with ScoreMeter(sinks=[rows, fails]) as meter:
            meter.update(loss, found)
            meter.update(loss, found)
    assert len(warned) == 1 and len(rows) == 2 and rows.closed and fails.closed


def test_a_device_that_fails_leaves_no_sink_open():
    class Failed:
        def synchronize(self):
            raise RuntimeError("the device is lost")

        def query(self):
            return False

    class Closed(Rows):
        closed = False

        def close(self):
            self.closed = True

    loss, found, _ = call()
    rows = Closed()
    meter = ScoreMeter(sinks=[rows])
    meter.update(loss, found)
    meter._waiting.append(_Waiting({}, [], loss, None, None, None, Failed()))
    with pytest.raises(RuntimeError, match="the device is lost"):
        meter.close()
    assert rows.closed and len(rows) == 1


def damage(folder, old, new, name="scores.csv"):
    path = folder / name
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(("what", "sentence"), [
    (lambda f: damage(f, '"version": 1', '"version": 9', "run.json"), "has a log of version 9; this FlashNCE reads v"),
    (lambda f: damage(f, "flashnce-scores", "else", "run.json"), "describes no run of FlashNCE"),
    (lambda f: (f / "run.json").write_text("{"), "run.json cannot be read"),
    (lambda f: (f / "run.json").unlink(), "holds no run: run.json is missing"),
    (lambda f: damage(f, "loss", "lost"), "has no column loss"),
    (lambda f: damage(f, "\n1,", "\n1,x,"), "is damaged in line 3"),
    (lambda f: (f / "scores.csv").write_text("step,rows,l"), "has no complete line"),
    (lambda f: (f / "scores.csv").write_text("step,rows,loss\n"), "has no complete step"),
    (lambda f: (f / "scores.csv").write_bytes(b"\xff\xfe\n"), "is no text"),
    (lambda f: (f / "scores.csv").unlink(), "cannot be read: No such file"),
    (lambda f: damage(f, "[", "[1,", "details.jsonl"), "is damaged in line 1"),
    (lambda f: damage(f, '"ranks": 1', '"ranks": "a"', "run.json"), "run.json is damaged: ranks is 'a', not a number"),
    (lambda f: damage(f, '"ranks": 1', '"ranks": null', "run.json"), "run.json is damaged: ranks is None, not"),
    (lambda f: damage(f, '"group": null', '"group": ["ft"]', "run.json"), "run.json is damaged: group is a list"),
    (lambda f: damage(f, '"name": ', '"name": {}, "was": ', "run.json"), "run.json is damaged: name is a dict"),
    (lambda f: damage(f, '"about": ', '"about": [1], "was": ', "run.json"), "run.json is damaged: about is a list"),
    (lambda f: damage(f, '"pairs":', '"pairs":[1],"was":', "details.jsonl"), "is damaged in line 1"),
    (lambda f: damage(f, '"before":[', '"before":["x",', "details.jsonl"), "is damaged in line 1"),
    (lambda f: damage(f, '"lambda_pos":', '"lambda_pos":"x","was":', "details.jsonl"), "is damaged in line 1"),
    (lambda f: damage(f, '"pos_before":[', '"pos_before":["x"],"was":[', "details.jsonl"), "is damaged in line 1"),
])  # fmt: skip
def test_a_log_that_cannot_be_used_is_one_sentence(tmp_path, what, sentence):
    written(tmp_path, 3)
    what(tmp_path)
    with pytest.raises(RunError) as error:
        read_run(tmp_path)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_run_is_read_while_it_is_written(tmp_path):
    loss, found, _ = call()
    meter = ScoreMeter(tmp_path)
    for count in (1, 2, 3):
        meter.update(loss, found)
        assert len(read_run(tmp_path).rows) == count
    meter.close()
    assert time.time() - read_run(tmp_path).rows[0]["seconds"] > 0
