"""ScoreMeter: what it keeps of a step, ranks merged exactly, details against the reference, files that survive."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import torch
from processes import outputs_of
from support import batch, drawn
from torch.nn.functional import normalize

import flashnce
from flashnce import Mix
from flashnce.reference import _mixed
from flashnce.scores import COLUMNS, RunError, RunFolder, ScoreMeter, bin_edges, merge_rows, read_run
from flashnce.scores._row import COUNTS, HIGHEST, LOWEST, WIDTH
from flashnce.torch import FeatureTransform, InfoNCE, Queue, info_nce, scores

# Reductions in float64 of float32 numbers, in another order than the expectation's.
ROUNDING = 1e-12


class Rows(list):
    """A sink that keeps what it gets."""

    def __init__(self):
        super().__init__()
        self.details = []

    write = list.append

    def write_details(self, details):
        self.details.append(details)

    def close(self):
        pass


def call(n=24, k=80, d=12, seed=0, **options):
    q, key, negatives = batch(n, k, d, seed)
    loss, found = info_nce(q, key, negatives, temperature=0.2, seed=seed, return_scores=True, **options)
    return loss, found, (q, key, negatives)


FT = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6)}


def row_of(loss, found, **given):
    rows = Rows()
    with ScoreMeter(sinks=[rows], **{name: given.pop(name) for name in ("details_every",) if name in given}) as meter:
        meter.update(loss, found, **given)
    return rows[0]


def expected_set(name, s):
    pos = s.pos.double()
    return {
        f"{name}_pos_mean": pos.mean(),
        f"{name}_pos_variance": pos.var(),
        f"{name}_neg_mean": s.neg_mean.double().mean(),
        f"{name}_neg_variance": s.neg_variance.double().mean(),
        f"{name}_neg_log_mean_exp": s.neg_log_mean_exp.double().mean(),
        f"{name}_neg_min": s.neg_min.min(),
        f"{name}_neg_max": s.neg_max.max(),
        f"{name}_acc1": (s.n_greater_equal == 0).double().mean(),
        f"{name}_acc5": (s.n_greater_equal < 5).double().mean(),
        f"{name}_neg_count": s.neg_count.sum(),
        f"{name}_neg_rows": (s.neg_count > 0).sum(),
        f"{name}_neg_pairs": (s.neg_count > 1).sum(),
    }


@pytest.mark.parametrize("mixes", [{}, FT])
def test_a_row_is_what_torch_makes_of_the_statistics(mixes):
    loss, found, _ = call(**mixes)
    row = row_of(loss, found, step=7, epoch=2)
    expected = expected_set("mixed", found.mixed) | (expected_set("unmixed", found.unmixed) if mixes else {})
    expected |= {
        "rows": 24,
        "loss": loss.detach().double(),
        "entropy": found.mixed.entropy.double().mean(),
        "effective_negatives": found.mixed.entropy.double().exp().mean(),
        "gradient_norm": found.mixed.dq_norm.double().mean(),
        "step": 7,
        "epoch": 2,
    }
    assert set(row) == {*expected, "seconds"} and set(row) <= set(COLUMNS)
    for name, value in expected.items():
        assert row[name] == pytest.approx(float(value), rel=ROUNDING, abs=ROUNDING), name


def test_a_loss_of_any_shape_is_its_mean():
    per_query, found, _ = call(reduction="none")
    expected = row_of(per_query.mean(), found)
    for shape in ((24,), (4, 6), (24, 1)):
        row = row_of(per_query.reshape(shape), found)
        for name in expected.keys() - {"seconds"}:
            assert row[name] == pytest.approx(expected[name], rel=1e-6), (shape, name)


def test_queries_without_negatives_count_in_no_mean_of_negatives():
    q, key, negatives = batch(6, 3, 5)
    # Query 0 has no negative, query 1 has one, the others have all.
    ids = torch.tensor([0, 1, 5, 5, 5, 5])
    bias = torch.zeros(3)
    column_ids = torch.tensor([0, 0, 0])
    loss, found = info_nce(q, key, negatives, ids=ids, negative_ids=column_ids, bias=bias, return_scores=True)
    row = row_of(loss, found)
    assert (row["mixed_neg_rows"], row["mixed_neg_pairs"], row["mixed_neg_count"]) == (5, 5, 15)
    assert row["mixed_neg_mean"] == pytest.approx(found.mixed.neg_mean[1:].double().mean().item(), rel=ROUNDING)
    assert row["entropy"] != row["entropy"]  # NaN: columns with a bias have none


@pytest.mark.parametrize("sizes", [(24,), (1, 23), (7, 8, 9), (0, 24)])
def test_rows_of_ranks_merge_to_the_row_of_all(sizes):
    loss, found, _ = call(**FT)
    per_row = info_nce(*call()[2], temperature=0.2, seed=0, reduction="none", **FT)
    whole = row_of(per_row, found)
    first, parts = 0, []
    for size in sizes:
        part = slice(first, first + size)
        cut = [type(s)(*(x if x is None else x[part] for x in s)) for s in found[:2]]
        parts.append(row_of(per_row[part], found._replace(mixed=cut[0], unmixed=cut[1])))
        first += size
    merged = merge_rows(parts)
    for name in whole.keys() - {"seconds"}:
        assert merged[name] == pytest.approx(whole[name], rel=ROUNDING, abs=ROUNDING), name


def counts_of(values):
    """Counts of a histogram, one value after the other."""
    counts = [0] * COUNTS
    for value in values.flatten().tolist():
        counts[min(max(int((value - LOWEST) // WIDTH), -1), COUNTS - 2) + 1] += 1
    return counts


@pytest.mark.parametrize("options", [
    FT,
    {},
    {"positive": Mix(2.0, shift=1.0, per="element"), "negative": Mix(1.6, per="row", renormalize=True)},
    FT | {"columns": "union", "anchor": "query"},
    {"positive": Mix(0.5, per="row"), "negative": Mix(0.5, per="dimension")},
])  # fmt: skip
def test_details_are_those_of_the_reference(options):
    loss, found, (q, k, z) = call(**options)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        meter.update(loss, found, q=q, k=k, negatives=z, temperature=0.2, **options)
    given = drawn(options.get("positive"), options.get("negative"), *q.shape[:1], *z.shape, 0)
    unit_q, unit_k = normalize(q.detach().double(), dim=1), normalize(k.double(), dim=1)
    q_mixed = _mixed(unit_q, unit_k, given["lambda_pos"].double(), False, 0) if "positive" in options else unit_q
    a = unit_q if options.get("anchor") == "query" else q_mixed
    z_mixed = z.double()
    if "negative" in options:
        partner = z_mixed[given["permutation"]]
        z_mixed = _mixed(z_mixed, partner, given["lambda_neg"].double(), options["negative"].renormalize, 1e-12)
    after = torch.cat([z_mixed, z.double()]) if options.get("columns") == "union" else z_mixed
    expected = {"neg_before": unit_q @ z.double().T, "neg_after": a @ after.T, "pos_before": found.unmixed.pos,
                "pos_after": found.mixed.pos}  # fmt: skip
    [details] = rows.details
    assert set(details["histograms"]) == set(expected)
    for name, values in expected.items():
        made = details["histograms"][name]
        assert sum(made) == values.numel()
        # A score within float32's rounding of an edge may fall on either side of it.
        near = ((values / WIDTH - (values / WIDTH).round()).abs() < 1e-4).sum().item()
        moved = sum(abs(x - y) for x, y in zip(made, counts_of(values)))
        assert moved <= 2 * near, name
    raw = scores(q, k, z, temperature=0.2)
    for name, value in expected_set("raw", raw).items():
        assert rows[0][name] == pytest.approx(float(value), rel=ROUNDING, abs=ROUNDING), name
    if options is FT:
        assert details["lambda_pos"] == pytest.approx(given["lambda_pos"].item())
        assert details["lambda_neg"] == pytest.approx(given["lambda_neg"].item())
    assert details["pairs"]["after"] == pytest.approx(found.mixed.pos.tolist())


def test_a_micro_batch_has_its_own_draws():
    options = {"positive": Mix(2.0, shift=1.0, per="row"), "row_offset": 24}
    loss, found, (q, k, z) = call(**options)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        meter.update(loss, found, q=q, k=k, negatives=z, temperature=0.2, **options)
    factor = torch.from_numpy(flashnce.sample_lambda("positive", options["positive"], 24, 12, seed=0, first_row=24))
    a = _mixed(normalize(q.detach(), dim=1), normalize(k, dim=1), factor, False, 0)
    counts, expected = rows.details[0]["histograms"]["neg_after"], counts_of(a @ z.T)
    # A score within float32's rounding of an edge may fall on either side of it.
    assert sum(abs(x - y) for x, y in zip(counts, expected)) <= 4
    other = _mixed(normalize(q.detach(), dim=1), normalize(k, dim=1), factor.flip(0), False, 0)
    assert sum(abs(x - y) for x, y in zip(counts, counts_of(other @ z.T))) > 40


def test_bins_are_what_they_are_called():
    edges = bin_edges()
    assert edges[0] == LOWEST and edges[-1] == HIGHEST and len(edges) == COUNTS - 1
    made = flashnce.scores._details.histogram(torch.tensor([LOWEST, -9.0, HIGHEST, 0.0, float("nan"), WIDTH]))
    assert made[0] == 1 and made[1] == 1 and made[-1] == 1
    assert made[1 + edges.index(0.0)] == 1 and made[2 + edges.index(0.0)] == 1 and made.sum() == 5


def test_a_criterion_says_what_it_mixed():
    q, k, z = batch()
    criterion, queue = InfoNCE(0.2, preset="ft"), Queue(80, 12)
    loss, found = criterion(q, k, queue, return_scores=True, seed=3)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=10) as meter:
        for _ in range(11):
            meter.update(loss, found, q=q, k=k, negatives=queue, criterion=criterion)
    assert [details["step"] for details in rows.details] == [0, 10]
    expected = flashnce.sample_lambda("positive", criterion.positive, 1, 12, seed=3).item()
    assert rows.details[0]["lambda_pos"] == pytest.approx(expected)
    assert "raw_pos_mean" in rows[0] and "raw_pos_mean" not in rows[1]


def test_columns_beyond_a_queue_have_no_histogram_of_negatives():
    q, k, z = batch()
    loss, found = info_nce(q, k, z, margin=0.1, return_scores=True)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        meter.update(loss, found, q=q, k=k, negatives=z, margin=0.1)
        meter.update(loss, found)
    assert set(rows.details[0]["histograms"]) == {"pos_before", "pos_after"}
    assert rows[0]["raw_neg_count"] == found.mixed.neg_count.sum() and "raw_neg_count" not in rows[1]


def test_what_is_no_score_is_refused():
    loss, found, _ = call()
    meter = ScoreMeter()
    with pytest.raises(TypeError, match="it must be the Scores that return_scores=True adds"):
        meter.update(loss, found.mixed)
    with pytest.raises(ValueError, match="details_every is -1"):
        ScoreMeter(details_every=-1)


def test_a_closed_meter_takes_no_update(tmp_path):
    loss, found, _ = call()
    meter = ScoreMeter(tmp_path)
    meter.update(loss, found)
    meter.close()
    meter.close()
    with pytest.raises(RuntimeError, match="the meter is closed: it takes no more updates"):
        meter.update(loss, found)


# ---- The folder ------------------------------------------------------------------------------------------------------


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
        with ScoreMeter(sinks=[fails, rows]) as meter:
            meter.update(loss, found)
            meter.update(loss, found)
    assert len(warned) == 1 and len(rows) == 2 and rows.closed and fails.closed


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


def test_a_schedule_s_lambdas_are_those_of_the_details():
    q, k, z = batch()
    transform, criterion = FeatureTransform(start=1, seed=4), InfoNCE(0.2)
    rows = Rows()
    with ScoreMeter(sinks=[rows], details_every=1) as meter:
        for _ in range(2):
            given = transform()
            loss, found = criterion(q, k, z, return_scores=True, **given)
            meter.update(loss, found, q=q, k=k, negatives=z, criterion=criterion, **given)
            transform.step()
    off, on = rows.details
    assert off["lambda_pos"] == off["lambda_neg"] == 1 and on["lambda_pos"] > 1 > on["lambda_neg"]
    assert off["histograms"]["neg_after"] == off["histograms"]["neg_before"]
    mean = sum(count * x for count, x in zip(on["histograms"]["neg_after"][1:], bin_edges())) / (24 * 80)
    assert mean + WIDTH / 2 == pytest.approx(rows[1]["mixed_neg_mean"], abs=WIDTH / 2)


@pytest.mark.parametrize("forgotten", ["lambda_pos", "lambda_neg", "queue"])
def test_details_of_another_call_than_the_loss_are_left_out(forgotten):
    q, k, z = batch()
    transform, criterion, queue = FeatureTransform(seed=4), InfoNCE(0.2), Queue(80, 12)
    queue.push(z)
    rows = Rows()
    given = transform()
    loss, found = criterion(q, k, queue, return_scores=True, **given)
    with ScoreMeter(sinks=[rows], details_every=1) as meter, pytest.warns(RuntimeWarning) as warned:
        meter.update(loss, found, q=q, k=k, negatives=queue, criterion=criterion, **given)
        if forgotten == "queue":
            queue.push(normalize(torch.ones(40, 12), dim=1))
        else:
            del given[forgotten]
        for _ in range(2):
            meter.update(loss, found, q=q, k=k, negatives=queue, criterion=criterion, **given)
    assert len(warned) == 1 and "make other scores than the loss found" in str(warned[0].message)
    assert warned[0].filename == __file__
    assert "neg_after" in rows.details[0]["histograms"] and "lambda_pos" in rows.details[0]
    for details in rows.details[1:]:
        assert set(details["histograms"]) == {"pos_before", "pos_after"} and "lambda_pos" not in details
