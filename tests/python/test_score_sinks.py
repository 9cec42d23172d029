"""Where a ScoreMeter's rows go beside its folder: each sink's files are read with the package that reads them."""

from __future__ import annotations

import sys

import pytest
import torch
from other_trainers import peer
from support import batch, cpu_only

from flashnce import Mix
from flashnce.scores import (
    COLUMNS, AuthorsNpy, Dictionary, Parquet, RunFolder, ScoreMeter, Sink, TensorBoard, bin_edges, read_run,
)  # fmt: skip
from flashnce.torch import InfoNCE, info_nce

FT = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6), "temperature": 0.2}


def feed(sinks, steps=5, details_every=2, folder=None):
    q, k, z = batch()
    kept = []
    with ScoreMeter(folder, sinks=sinks, details_every=details_every) as meter:
        for step in range(steps):
            loss, found = info_nce(q, k, z, seed=step, return_scores=True, **FT)
            meter.update(loss, found, epoch=1 + step // 2, q=q, k=k, negatives=z, **FT)
            kept.append(found)
        return list(meter.recent), kept


def test_tensorboard_reads_curves_and_histograms(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows, _ = feed([TensorBoard(tmp_path / "board")], folder=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"histograms": 0, "scalars": 0}).Reload()
    scalars = events.Scalars("scores/mixed_pos_mean")
    assert [event.step for event in scalars] == [0, 1, 2, 3, 4]
    assert [event.value for event in scalars] == pytest.approx([row["mixed_pos_mean"] for row in rows], rel=1e-6)
    histograms = events.Histograms("scores/neg_after")
    assert [event.step for event in histograms] == [0, 2, 4]
    counts = read_run(tmp_path / "run").details[0]["histograms"]["neg_after"]
    made = histograms[0].histogram_value
    assert made.num == sum(counts) == 24 * 80
    # TensorBoard leaves out empty bins at the ends, and its own first and last bins are open.
    assert [count for count in made.bucket if count] == [count for count in counts if count]
    mean = made.sum / made.num
    assert mean == pytest.approx(rows[0]["mixed_neg_mean"], abs=bin_edges()[1] - bin_edges()[0])


def test_parquet_reads_the_rows(tmp_path):
    arrow = pytest.importorskip("pyarrow.parquet")
    rows, _ = feed([Parquet(tmp_path, rows=2)])
    table = arrow.read_table(tmp_path)
    assert table.column_names == list(COLUMNS) and len(list(tmp_path.glob("part-*.parquet"))) == 3
    assert table.to_pylist() == [{name: row.get(name) for name in COLUMNS} for row in rows]
    # A run that goes on adds files.
    feed([Parquet(tmp_path)])
    assert arrow.read_table(tmp_path).num_rows == 10
    # A file that somebody removed makes no other one be replaced.
    (tmp_path / "part-000000.parquet").unlink()
    feed([Parquet(tmp_path)])
    assert arrow.read_table(tmp_path).num_rows == 13


def test_a_dictionary_has_the_shape_of_wandb_s():
    logged, made = [], []
    sink = Dictionary(lambda values, step: logged.append((values, step)), histogram=lambda c, e: made.append((c, e)))
    rows, _ = feed([sink])
    curves = [values for values, _ in logged if "scores/loss" in values]
    assert curves == [
        {f"scores/{name}": row[name] for name in row if name not in ("step", "epoch", "seconds")} for row in rows
    ]
    assert [step for values, step in logged if "scores/neg_before" in values] == [0, 2, 4]
    assert all(len(edges) == len(counts) + 1 for counts, edges in made) and len(made) == 12


def test_the_authors_layout(tmp_path):
    numpy = pytest.importorskip("numpy")
    _, kept = feed([AuthorsNpy(tmp_path, temperature=0.2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["score_001.npy", "score_002.npy", "score_003.npy"]
    first = numpy.load(tmp_path / "score_001.npy")
    assert first.shape == (2, 24, 5) and first.dtype == numpy.float16
    mixed = kept[1].mixed
    expected = [mixed.neg_mean, mixed.neg_variance, mixed.pos, mixed.neg_log_mean_exp.exp(), (mixed.pos / 0.2).exp()]
    assert numpy.array_equal(first[1], torch.stack(expected, 1).half().numpy())
    # A run that goes on replaces no epoch that was begun.
    feed([AuthorsNpy(tmp_path, temperature=0.2)], steps=1)
    assert numpy.load(tmp_path / "score_001.npy").shape == (2, 24, 5)
    assert numpy.load(tmp_path / "score_001-part2.npy").shape == (1, 24, 5)


def test_the_authors_layout_leaves_out_a_smaller_last_batch(tmp_path):
    numpy = pytest.importorskip("numpy")
    with ScoreMeter(sinks=[AuthorsNpy(tmp_path, 0.2)]) as meter, pytest.warns(RuntimeWarning) as warned:
        for epoch in (1, 2):
            for n in (8, 8, 4):
                q, k, z = batch(n)
                meter.update(*info_nce(q, k, z, return_scores=True), epoch=epoch)
    assert [str(one.message) for one in warned] == [
        "flashnce: AuthorsNpy leaves out a step of 4 queries in epoch 1, whose first has 8, and all others like it"
    ]
    assert [numpy.load(tmp_path / f"score_00{epoch}.npy").shape for epoch in (1, 2)] == [(2, 8, 5)] * 2


@pytest.mark.parametrize("kind", [AuthorsNpy, Dictionary, Parquet, RunFolder, TensorBoard])
def test_every_sink_has_the_methods_of_the_protocol_and_says_what_they_do(kind):
    names = [name for name, value in vars(Sink).items() if callable(value) and not name.startswith("_")]
    assert sorted(names) == ["close", "write", "write_details"]
    assert all(getattr(kind, name).__doc__ for name in names)


@pytest.mark.parametrize(("module", "make", "package"), [
    ("tensorboard", lambda folder: TensorBoard(folder), "tensorboard"),
    ("pyarrow", lambda folder: Parquet(folder), "pyarrow"),
    ("numpy", lambda folder: AuthorsNpy(folder, 0.2), "numpy"),
])  # fmt: skip
def test_a_package_that_is_not_there_is_one_sentence(monkeypatch, tmp_path, module, make, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"which is not installed: pip install {package}$"):
        make(tmp_path)


@pytest.mark.full
@cpu_only
@pytest.mark.parametrize(("returned", "accumulated"), [(True, 1), (True, 2), (False, 2)])
def test_lightning_feeds_a_meter(tmp_path, returned, accumulated):
    lightning = peer("lightning.pytorch")
    from flashnce.compat.lightning import ScoreMeterCallback

    class Model(lightning.LightningModule):
        def __init__(self, meter):
            super().__init__()
            self.encoder, self.criterion, self.meter = torch.nn.Linear(6, 6), InfoNCE(0.2, preset="ft"), meter
            self.losses = []

        def training_step(self, batch, _):
            q, z = self.encoder(batch[0]), torch.ones(8, 6)
            loss, scores = self.criterion(q, batch[0], z, return_scores=True)
            self.losses.append(loss.item())
            if returned:
                return {"loss": loss, "scores": scores}
            self.meter.update(loss, scores, epoch=self.current_epoch, q=q, k=batch[0], negatives=z,
                              criterion=self.criterion)  # fmt: skip
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.encoder.parameters(), lr=0.1)

    meter = ScoreMeter(tmp_path, details_every=4)
    model = Model(meter)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=accumulated, callbacks=[ScoreMeterCallback(meter)],
    )  # fmt: skip
    data = torch.utils.data.TensorDataset(torch.randn(12, 6))
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=4))
    run = read_run(tmp_path)
    assert run.curve("loss")[1] == pytest.approx(model.losses)
    assert [row["epoch"] for row in run.rows] == [0, 0, 0, 1, 1, 1]
    assert ("neg_after" in run.details[0]["histograms"]) is not returned
    with pytest.raises(TypeError, match="it must be a ScoreMeter"):
        ScoreMeterCallback(None)
