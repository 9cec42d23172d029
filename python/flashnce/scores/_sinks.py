"""Where rows go beside the folder of a run. A package that a sink needs is imported when the sink is made."""

from __future__ import annotations

import importlib
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ._row import BINS, COLUMNS, Row, bin_edges


class Sink(Protocol):
    """What a ScoreMeter writes to. rows_wanted, where it is there and true, asks for write_statistics as well, with the
    epoch and the mixed ScoreStatistics of each step, on the CPU. A sink that raises is closed and gets no more."""

    def write(self, row: Row) -> None:
        """Takes a step: column and value, of flashnce.scores.COLUMNS those that the step has."""

    def write_details(self, details: dict[str, Any]) -> None:
        """Takes the details of a step that has been written: "step", "epoch", "histograms" (name and counts: below the
        bins, in each, above), "pairs" and, where they are known, "lambda_pos" and "lambda_neg"."""

    def close(self) -> None:
        """Writes what is left. A sink may be closed twice."""


def needed(module: str, package: str, why: str) -> Any:
    """The module, or an ImportError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{why} needs {package}, which is not installed: pip install {package}") from None


def finite(row: Row) -> Row:
    """Without what the step does not have; step, epoch and seconds are no curves."""
    return {name: row[name] for name in COLUMNS[3:] if name in row and math.isfinite(row[name])}


class TensorBoard:
    """Curves as scalars, histograms by add_histogram_raw, under `prefix`.

    Args:
        writer: a SummaryWriter of torch.utils.tensorboard, or the folder to make one for.
        prefix: of all tags.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, writer: Any, prefix: str = "scores/") -> None:
        self._own = isinstance(writer, (str, os.PathLike))
        if self._own:
            needed("tensorboard", "tensorboard", "The TensorBoard sink")
            writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(os.fspath(writer))
        self.writer, self.prefix = writer, prefix

    def write(self, row: Row) -> None:
        """Adds each finite column as a scalar."""
        for name, value in finite(row).items():
            self.writer.add_scalar(self.prefix + name, value, int(row["step"]))

    def write_details(self, details: dict[str, Any]) -> None:
        """Adds each histogram."""
        edges = bin_edges()
        # What lies below the first bin or above the last is shown in a bin of its own width.
        limits = [*edges, edges[-1] + edges[1] - edges[0]]
        centres = [limit - (edges[1] - edges[0]) / 2 for limit in limits]
        for name, counts in details["histograms"].items():
            pairs = list(zip(counts, centres))
            self.writer.add_histogram_raw(
                self.prefix + name, min=centres[0], max=centres[-1], num=sum(counts),
                sum=sum(count * x for count, x in pairs), sum_squares=sum(count * x * x for count, x in pairs),
                bucket_limits=limits, bucket_counts=counts, global_step=int(details["step"]),
            )  # fmt: skip

    def close(self) -> None:
        """Closes the writer where it was made here; another is its owner's to close."""
        if self._own:
            self.writer.close()


class Parquet:
    """A folder of Parquet files, each written whole: the last one when the meter is closed.

    A process that dies loses what is not in a file yet, `rows` steps at most; the run's folder has them.

    Args:
        folder: pyarrow.parquet.read_table and pandas.read_parquet take it as it is. Files that are there stay.
        rows: steps per file.

    Raises:
        ImportError: pyarrow is not installed.
    """

    def __init__(self, folder: str | os.PathLike, rows: int = 1000) -> None:
        self._arrow = needed("pyarrow", "pyarrow", "The Parquet sink")
        self._parquet = importlib.import_module("pyarrow.parquet")
        self.folder, self.rows = Path(folder), rows
        self.folder.mkdir(parents=True, exist_ok=True)
        self._waiting: list[Row] = []
        there = [path.stem.removeprefix("part-") for path in self.folder.glob("part-*.parquet")]
        self._next = 1 + max((int(number) for number in there if number.isdecimal()), default=-1)

    def write(self, row: Row) -> None:
        """Keeps the row; writes a file where there are enough."""
        self._waiting.append(row)
        if len(self._waiting) >= self.rows:
            self._write_part()

    def write_details(self, details: dict[str, Any]) -> None:
        """Histograms are in the run's folder."""

    def _write_part(self) -> None:
        arrow = self._arrow
        schema = arrow.schema([(name, arrow.int64() if name in ("step", "epoch") else arrow.float64())
                               for name in COLUMNS])  # fmt: skip
        columns = {name: [row.get(name) for row in self._waiting] for name in COLUMNS}
        path = self.folder / f"part-{self._next:06}.parquet"
        temporary = path.with_name("." + path.name)
        self._parquet.write_table(arrow.table(columns, schema=schema), temporary)
        os.replace(temporary, path)
        self._next += 1
        self._waiting = []

    def close(self) -> None:
        """Writes the last file."""
        if self._waiting:
            self._write_part()


class Dictionary:
    """Calls log(values, step=step), the shape of wandb.log: {"scores/loss": ..., ...}; needs no package.

    Args:
        log: wandb.log, run.log or anything like it.
        prefix: of all names.
        histogram: makes what is logged out of (counts, edges), such as lambda c, e: wandb.Histogram(np_histogram=(c,
            e)); None logs no histogram. Counts outside the bins are not in it.
    """

    def __init__(
        self, log: Callable[..., Any], prefix: str = "scores/", histogram: Callable[..., Any] | None = None
    ) -> None:
        self.log, self.prefix, self.histogram = log, prefix, histogram

    def write(self, row: Row) -> None:
        """Logs the finite columns."""
        self.log({self.prefix + name: value for name, value in finite(row).items()}, step=int(row["step"]))

    def write_details(self, details: dict[str, Any]) -> None:
        """Logs the histograms, where they are wanted."""
        if self.histogram is not None:
            made = {name: self.histogram(counts[1 : BINS + 1], bin_edges())
                    for name, counts in details["histograms"].items()}  # fmt: skip
            self.log({self.prefix + name: value for name, value in made.items()}, step=int(details["step"]))

    def close(self) -> None:
        """The log is its owner's to close."""


class AuthorsNpy:
    """The files that the feature transformation's authors write: score_001.npy for epoch 1, float16 [steps,N,5].

    Per query of the scores in the loss: mean and unbiased variance of the negatives, positive, mean of
    exp(negative / temperature), exp(positive / temperature). float16 ends at 65504, as theirs does. All steps of an
    epoch have one N: those with another than its first, such as a smaller last batch, are left out, with a warning. An
    epoch is written when the next one begins, and at the end; files that are there stay: what a run that goes on has of
    an epoch that was begun goes to score_001-part2.npy, and so on.

    Args:
        folder: theirs is MODEL/scores.
        temperature: that of the loss.
    """

    rows_wanted = True

    def __init__(self, folder: str | os.PathLike, temperature: float) -> None:
        self._numpy = needed("numpy", "numpy", "The .npy sink")
        self.folder, self.temperature = Path(folder), temperature
        self.folder.mkdir(parents=True, exist_ok=True)
        self._epoch: int | None = None
        self._steps: list[Any] = []
        self._left_out = False

    def write(self, row: Row) -> None:
        """Rows are not in these files."""

    def write_details(self, details: dict[str, Any]) -> None:
        """Nor are histograms."""

    def write_statistics(self, epoch: int, statistics: Any) -> None:
        """The mixed ScoreStatistics of a step, on the CPU."""
        if epoch != self._epoch:
            self._write_epoch()
            self._epoch = epoch
        numpy, s = self._numpy, statistics
        with numpy.errstate(over="ignore"):
            columns = [s.neg_mean, s.neg_variance, s.pos, s.neg_log_mean_exp.exp(), (s.pos / self.temperature).exp()]
            step = numpy.stack([x.numpy().astype(numpy.float16) for x in columns], axis=1)
        if not self._steps or step.shape == self._steps[0].shape:
            self._steps.append(step)
        elif not self._left_out:
            self._left_out = True
            warnings.warn(f"flashnce: AuthorsNpy leaves out a step of {len(step)} queries in epoch {epoch}, whose "
                          f"first has {len(self._steps[0])}, and all others like it", RuntimeWarning,
                          stacklevel=2)  # fmt: skip

    def _write_epoch(self) -> None:
        if self._steps:
            stem = f"score_{self._epoch:03}"
            path, part = self.folder / f"{stem}.npy", 1
            while path.exists():
                part += 1
                path = self.folder / f"{stem}-part{part}.npy"
            temporary = path.with_name("." + path.name)
            self._numpy.save(temporary, self._numpy.stack(self._steps))
            os.replace(temporary, path)
        self._steps = []

    def close(self) -> None:
        """Writes the last epoch."""
        self._write_epoch()
