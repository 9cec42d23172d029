"""ScoreMeter: the statistics of the scores, step by step, from the device to files, without waiting for the device."""

from __future__ import annotations

import contextlib
import difflib
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ..torch import InfoNCE, Queue, Scores, ScoreStatistics, ShardedQueue
from ..torch import scores as raw_scores
from ._details import BEYOND, Call, call_of, details
from ._folder import RunFolder, check_folder, next_step
from ._measure import pack, sets_of, unpack
from ._row import Row, merge_details, merge_rows
from ._sinks import Sink

RECENT = 1000


class _Waiting(NamedTuple):
    """A step whose numbers are on their way from the device."""

    when: Row
    sets: list[str]
    packed: Tensor  # float64 [numbers], or [ranks, numbers]
    histograms: tuple[list[str], Tensor] | None  # names, int64 [names, COUNTS]
    rest: dict[str, Any] | None
    statistics: ScoreStatistics | None
    event: Any


def _to_host(x: Any) -> Any:
    """The same on the CPU: a copy into pinned memory that is enqueued, not awaited."""
    if not isinstance(x, Tensor) or x.device.type == "cpu":
        return x.detach() if isinstance(x, Tensor) else x
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x.detach(), non_blocking=True)


def _as_plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.item() if value.dim() == 0 else value.tolist()
    return {name: _as_plain(item) for name, item in value.items()} if isinstance(value, dict) else value


# Options whose names something in `about` is not to resemble, and a word that people use and that resembles one.
_OPTIONS, _WORDS = ("name", "group", "details_every", "raw_every", "across_ranks", "sinks", "mode"), ("model",)


def _check_about(about: dict[str, Any]) -> None:
    """A misspelled option would be taken for something to say about the run."""
    for name in about:
        if name not in _WORDS and (near := difflib.get_close_matches(name, _OPTIONS, 1, 0.8)):
            raise TypeError(f"ScoreMeter has no option {name}; it has {near[0]}, and what is said about a run needs "
                            "a name that is less like it")  # fmt: skip


class ScoreMeter:
    """Keeps the statistics of the scores of a training, equation (9), and writes them to a folder and other sinks.

        meter = ScoreMeter("runs/ft-0", details_every=200)
        loss, scores = criterion(q, k, queue, return_scores=True)
        meter.update(loss, scores, q=q, k=k, negatives=queue, criterion=criterion)     # before the push

    A step is reduced on its device to about 30 numbers, which are copied to the host without waiting; they are written
    at the next call by which they have arrived. On the CPU that is at once. So a process that dies loses the last step
    at most, on a GPU those that had not ended there.

    The folder is checked at once and opened at the first update, which finds the ranks of torch.distributed: a meter
    may be made before init_process_group.

    Args:
        folder: of the run, read by `python -m flashnce report`; None: sinks alone.
        name: of the run, for people (default: the folder's).
        group: runs of one group differ in their seed alone, and are shown as one curve with a band.
        details_every: steps between those with details: histograms, pairs and the scores before any transformation. 0:
            none. The step of an update counts from 0. Such a step makes the scores of the negatives again, a block at a
            time, and waits for the device to know what was drawn.
        raw_every: steps between those with the scores before any transformation, q.k and q.z_j, which cost one matrix
            product and no wait. 0: only with details.
        across_ranks: None: each rank writes files of its own into the folder, which are merged when they are read. A
            group of torch.distributed, or True for the default one: the rows of all ranks are gathered at each update,
            which then is a collective call, and rank 0 alone writes.
            torch.distributed need not be initialised before the first update.
        sinks: where rows go beside the folder: TensorBoard, Parquet, Dictionary, AuthorsNpy, or anything like them. Of
            several ranks, rank 0 alone writes to its sinks; the others close theirs at the first update.
        mode: "new": the folder must hold no run; "resume": goes on with one, of as many ranks; "replace": removes it.
        about: what run.json says beside, as JSON can hold it, such as temperature=0.2, seed=0.

    Raises:
        RunError: the folder holds a run, or one of another version.
        TypeError: run.json cannot hold what `about` says, or a name in it is nearly that of an option, or name or group
            is no text; an old run stays.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None = None,
        *,
        name: str | None = None,
        group: str | None = None,
        details_every: int = 0,
        raw_every: int = 0,
        across_ranks: Any = None,
        sinks: Iterable[Sink] = (),
        mode: str = "new",
        **about: Any,
    ) -> None:
        for option, value in (("details_every", details_every), ("raw_every", raw_every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{option} is {value!r}; it must be an int of 0 or more")
        _check_about(about)
        self.details_every, self.raw_every = details_every, raw_every
        self._across, self._mode = across_ranks, mode
        self._folder = None if folder is None else Path(folder)
        self._description = {"name": name or (Path(folder).name if folder is not None else None), "group": group,
                             "about": about}  # fmt: skip
        several = dist.is_available() and dist.is_initialized()
        # Where the ranks are not known yet, the files of rank 0 stand for all.
        rank = dist.get_rank(None if across_ranks is True else across_ranks or None) if several else 0
        # Where ranks are gathered, rank 0 alone has files, and it may have opened them already.
        if self._folder is not None and not (across_ranks and rank):
            check_folder(self._folder, self._description, mode, rank)
        self._sinks: list[Sink] = list(sinks)
        self._group: Any = None
        self._rank, self._ranks, self._opened, self._closed = 0, 1, False, False
        self._next_step, self._went_back, self._differed, self._began = 0, False, False, time.time()
        if self._folder is not None and mode == "resume":
            self._next_step = next_step(self._folder, 0 if across_ranks else rank)
        self._waiting: deque[_Waiting] = deque()
        self.recent: deque[Row] = deque(maxlen=RECENT)
        """The last rows that have arrived: column, value."""

    def _open(self) -> None:
        """Finds the ranks and opens the folder, at the first update: trainers make a meter before they make ranks."""
        several = dist.is_available() and dist.is_initialized()
        writes = self._folder is not None or bool(self._sinks)
        if not several and self._across:
            raise RuntimeError("across_ranks is given, but torch.distributed is not initialised at the first update")
        if not several and writes and os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
            raise RuntimeError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but torch.distributed is not initialised at "
                               "the first update, so that all ranks would write to the same files")  # fmt: skip
        self._group = dist.group.WORLD if self._across is True else self._across or None
        self._rank = dist.get_rank(self._group) if several else 0
        self._ranks = dist.get_world_size(self._group) if several else 1
        if self._ranks > 1 and any(getattr(sink, "rows_wanted", False) for sink in self._sinks):
            names = ", ".join(type(sink).__name__ for sink in self._sinks if getattr(sink, "rows_wanted", False))
            raise ValueError(f"{names} wants the scores of every query, which are not gathered over the "
                             f"{self._ranks} ranks")  # fmt: skip
        if self._rank:
            # Sinks of several ranks would overwrite each other.
            self._to_sinks(lambda sink: sink.close())
            self._sinks = []
        if self._folder is not None and (self._rank == 0 or self._group is None):
            files = self._ranks if self._group is None else 1
            description = {**self._description, "ranks": files}
            self._sinks.insert(0, RunFolder(self._folder, description, self._mode, self._rank))
        self._opened = True

    def wants_details(self, step: int | None = None) -> bool:
        """Whether an update of this step, or of the next one, takes details."""
        step = self._next_step if step is None else step
        return self.details_every > 0 and step % self.details_every == 0

    @torch.no_grad()
    def update(
        self,
        loss: Tensor,
        scores: Scores,
        *,
        step: int | None = None,
        epoch: int = 0,
        q: Tensor | None = None,
        k: Tensor | None = None,
        negatives: Queue | ShardedQueue | Tensor | None = None,
        criterion: InfoNCE | None = None,
        **options: Any,
    ) -> None:
        """Takes a step. Call it before the keys are pushed.

        Args:
            loss: of the call, any shape; its mean is kept.
            scores: what return_scores=True added.
            step: default: one after the last update's, from 0 on, or with mode="resume" from where the run ended. It
                must grow through all epochs: of steps taken twice the later ones count, with a warning.
            epoch: as the trainer counts.
            q, k, negatives: of the call; used on steps with details alone. Without them such a step has histograms of
                the positives only, as it has where columns beyond a queue take part.
            criterion, options: with what the loss was called, so that the mixed negatives can be made again; of a
                FeatureTransform what it gave the loss. Where they make other scores, details have histograms of the
                positives only, with a warning.

        Raises:
            TypeError: scores is not what return_scores=True adds.
            RuntimeError: the meter is closed; or, at the first update, there are several ranks and torch.distributed is
                not initialised.
            ValueError: at the first update, there are several ranks and a sink wants the scores of every query.
            RunError, OSError: at the first update, the folder cannot be opened.
        """
        if self._closed:
            raise RuntimeError("the meter is closed: it takes no more updates")
        if not isinstance(scores, Scores):
            raise TypeError(f"scores is a {type(scores).__name__}; it must be the Scores that return_scores=True adds")
        if not self._opened:
            self._open()
        step = self._next_step if step is None else int(step)
        if step < self._next_step and not self._went_back:
            self._went_back = True
            warnings.warn(f"flashnce: step {step} comes after step {self._next_step - 1}; who reads the run drops what "
                          "was written from that step on. Count steps through all epochs, and call load_state_dict "
                          "where a training goes back to a checkpoint", RuntimeWarning, stacklevel=3)  # fmt: skip
        self._next_step = step + 1
        raw, histograms, rest, call = None, None, None, None
        takes_details = self.wants_details(step)
        if (takes_details or (self.raw_every and step % self.raw_every == 0)) and q is not None and k is not None:
            options = criterion.call_options(options) if criterion is not None else options
            raw = self._raw(q, k, negatives, options)
            call = call_of(q, k, negatives, options, scores) if takes_details else None
        if takes_details:
            histograms, rest = self._details(scores, call)
        sets = sets_of(scores, raw)
        packed = self._gathered(pack(loss, scores.mixed, list(sets.values())))
        when = {"step": step, "epoch": int(epoch), "seconds": round(time.time() - self._began, 3)}
        # A rank that does not write has done its part.
        if not self._sinks and self._rank and self._group is not None:
            return
        wanted = any(getattr(sink, "rows_wanted", False) for sink in self._sinks)
        self._enqueue(when, list(sets), packed, histograms, rest, scores.mixed if wanted else None)
        self.drain()

    @staticmethod
    def _raw(q, k, negatives, options) -> ScoreStatistics | None:
        """The statistics before any transformation, where the call's columns are given."""
        if negatives is None and options.get("batch") is None:
            return None
        kept = {name: options[name] for name in (*BEYOND, "normalize", "temperature") if options.get(name) is not None}
        return raw_scores(q.detach(), k.detach(), negatives, **kept)

    def _details(self, scores: Scores, call: Call | None) -> tuple[tuple[list[str], Tensor], dict[str, Any]]:
        """Histograms as names and [names, COUNTS], over all ranks that are gathered, and the rest."""
        counts, rest, differs = details(scores, call)
        stacked = torch.stack(list(counts.values()))
        if self._group is not None:
            # The ranks leave out the same, since they gather.
            differs = differs.int()
            dist.all_reduce(differs, group=self._group)
            dist.all_reduce(stacked, group=self._group)
        if differs.item():
            if not self._differed:
                self._differed = True
                warnings.warn("flashnce: q, k, negatives and options of this update make other scores than the loss "
                              "found; details lack its negatives and lambdas. Give update what the loss was given, "
                              "such as **transform()'s, before the keys are pushed", RuntimeWarning,
                              stacklevel=4)  # fmt: skip
            kept = [i for i, name in enumerate(counts) if name.startswith("pos_")]
            return ([list(counts)[i] for i in kept], stacked[kept]), {"pairs": rest["pairs"]}
        return (list(counts), stacked), rest

    def _gathered(self, packed: Tensor) -> Tensor:
        if self._group is None:
            return packed
        parts = [torch.empty_like(packed) for _ in range(self._ranks)]
        dist.all_gather(parts, packed, group=self._group)
        return torch.stack(parts)

    def _enqueue(self, when, sets, packed, histograms, rest, statistics) -> None:
        on_device = packed.device.type == "cuda"
        if histograms is not None:
            histograms = (histograms[0], _to_host(histograms[1]))
            rest = {name: {n: _to_host(x) for n, x in value.items()} if isinstance(value, dict) else _to_host(value)
                    for name, value in rest.items()}  # fmt: skip
        if statistics is not None:
            statistics = ScoreStatistics(*map(_to_host, statistics))
        host, event = _to_host(packed), None
        if on_device:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(packed.device))
        self._waiting.append(_Waiting(when, sets, host, histograms, rest, statistics, event))

    def drain(self, wait: bool = False) -> None:
        """Writes the steps that have arrived; with wait=True all of them, which waits for the device."""
        while self._waiting:
            event = self._waiting[0].event
            if event is not None and not wait and not event.query():
                return
            if event is not None:
                event.synchronize()
            self._write(self._waiting.popleft())

    def _write(self, done: _Waiting) -> None:
        packed = done.packed.tolist()
        ranks = packed if self._group is not None else [packed]
        row = merge_rows([done.when | unpack(values, done.sets) for values in ranks])
        self.recent.append(row)
        self._to_sinks(lambda sink: sink.write(row))
        if done.histograms is not None:
            counts = {name: x.tolist() for name, x in zip(*done.histograms)}
            found = merge_details([{**done.when, "histograms": counts, **_as_plain(done.rest)}])
            self._to_sinks(lambda sink: sink.write_details(found))
        if done.statistics is not None:
            wanting = [sink for sink in self._sinks if getattr(sink, "rows_wanted", False)]
            epoch = int(done.when["epoch"])
            self._to_sinks(lambda sink: sink.write_statistics(epoch, done.statistics), wanting)

    def _to_sinks(self, write: Callable[[Any], None], sinks: list[Sink] | None = None) -> None:
        """A sink that fails, for want of space, say, is closed and given up: a training does not end for its log."""
        for sink in list(self._sinks if sinks is None else sinks):
            try:
                write(sink)
            except Exception as error:  # Whatever a sink is made of raises errors of its own.
                # A sink may be a list, which equals another one.
                self._sinks = [other for other in self._sinks if other is not sink]
                with contextlib.suppress(Exception):
                    sink.close()
                words = " ".join(str(error).split()) or type(error).__name__
                name = type(sink).__name__
                warnings.warn(f"flashnce: {name} gets no more scores: {words}", RuntimeWarning, stacklevel=4)

    def state_dict(self) -> dict[str, int]:
        """For checkpoints: the next step. Continue with mode="resume"; of steps taken twice the later ones count.

        Without this the run goes on after its last step."""
        return {"next_step": self._next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from a checkpoint's state_dict(): the next update is of its next step, whatever the folder holds."""
        self._next_step = int(state["next_step"])

    def close(self) -> None:
        """Waits for the device, writes what is left and closes the folder and the sinks."""
        try:
            self.drain(wait=True)
        finally:
            # A device that failed gives no more rows, and what the sinks have must not be lost with them.
            self._to_sinks(lambda sink: sink.close())
            self._sinks, self._closed = [], True

    def __enter__(self) -> ScoreMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
