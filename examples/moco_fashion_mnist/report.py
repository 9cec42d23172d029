"""The end of a run: the summary table, the JSON beside the picture, and the checks that decide the exit status."""

import dataclasses
import json
import math
import platform
import sys

import flashnce
import torch
from flashnce.report import compare, write_page
from flashnce.scores import read_run

from options import RECIPE
from plot import draw
from scores import check_algebra

TITLE = "MoCo on Fashion-MNIST: scores of positives and negatives"
LAST_ROWS = 20  # score statistics of single batches jump with FT's lambda: averages over so many measurements


def progress_text(row):
    """What the progress bar shows of a history row: means over the batch."""
    return (
        f"loss {row['loss']:.2f}  acc@1 {row['sampled_acc1']:.2f}  "
        f"pos {row['sampled_pos_mean']:+.2f} (var {row['sampled_pos_variance']:.3f})  "
        f"neg {row['sampled_neg_mean']:+.2f} (var {row['sampled_neg_variance']:.3f})"
    )


def late_mean(history, name):
    rows = [row for row in history[-LAST_ROWS:] if name in row]
    return sum(row[name] for row in rows) / len(rows)


def loss_share(trainer):
    """The loss's part of the time of the training steps, measured; None where no step was timed."""
    whole = sum(step for step, _ in trainer.seconds)
    return sum(loss for _, loss in trainer.seconds) / whole if whole else None


def checks(config, runs, accuracy):
    """[(sentence, holds)]. FT's accuracy is not compared with plain MoCo's: at this scale nothing clear shows."""
    results = []
    for name, trainer in runs.items():
        losses = [row["loss"] for row in trainer.history]
        results.append((f"{name}: all {len(losses)} measured losses are finite", all(map(math.isfinite, losses))))
        results += check_algebra(trainer.history, config.queue_size)
    is_recipe = dataclasses.replace(config, preset=RECIPE.preset, ft_start=RECIPE.ft_start, seed=RECIPE.seed) == RECIPE
    if is_recipe and "moco" in runs:
        gain = accuracy["moco"]["knn_moved"] - accuracy["random encoder"]["knn_moved"]
        sentence = f"moco: kNN on moved images {gain:+.1f} points to the random encoder (more than +10)"
        results.append((sentence, gain > 10))
    return results


def table(runs, accuracy):
    """The summary, one line per encoder."""
    columns = ("loss", "raw_pos_mean", "sampled_pos_mean", "raw_neg_mean", "raw_neg_variance", "sampled_neg_variance")
    heads = ("kNN moved %", "kNN %", "loss", "pos raw", "sampled", "neg raw", "var raw", "sampled", "loss share")
    lines = [f"{'':<15}" + "".join(f"{head:>12}" for head in heads)]
    for name, values in accuracy.items():
        line = f"{name:<15}{values['knn_moved']:>12.1f}{values['knn']:>12.1f}"
        if name in runs:
            line += "".join(f"{late_mean(runs[name].history, column):>12.3f}" for column in columns)
            share = loss_share(runs[name])
            line += f"{share:>12.1%}" if share is not None else f"{'-':>12}"
        lines.append(line)
    return "\n".join(lines)


def write_report(folder, runs):
    """The page of what the meters wrote; False, with a line on stderr, if plotly is not installed."""
    for trainer in runs.values():
        trainer.meter.close()
    try:
        write_page(compare([read_run(folder / "runs" / name) for name in runs]), folder / "report.html", TITLE)
    except ImportError as error:
        print(f"train.py: no report: {error}", file=sys.stderr)
        return False
    return True


def write(folder, config, runs, accuracy, seconds):
    """Prints the summary, writes summary.json, scores.png and report.html to `folder`; the exit status."""
    results = checks(config, runs, accuracy)
    summary = {
        "config": dataclasses.asdict(config),
        "versions": {"flashnce": flashnce.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "knn_accuracy_percent": accuracy,
        "runs": {
            name: {
                "steps": trainer.steps_done,
                "loss_share_of_step": loss_share(trainer),
                "late_means": {key: late_mean(trainer.history, key) for key in trainer.history[-1] if key != "step"},
                "history": trainer.history,
            }
            for name, trainer in runs.items()
        },
        "checks": [{"check": sentence, "holds": holds} for sentence, holds in results],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    drawn = draw(folder / "scores.png", config, {name: trainer.history for name, trainer in runs.items()}, accuracy)
    reported = write_report(folder, runs)

    print(table(runs, accuracy))
    print(f"(scores: means of the last {LAST_ROWS} measured batches; loss share: of the time of a training step)")
    if len(runs) > 1:
        print("(one seed: a point of accuracy between the trained encoders is noise)")
    for sentence, holds in results:
        print(f"{'ok    ' if holds else 'FAILED'} {sentence}")
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    print(f"{times}, {torch.get_num_threads()} threads")
    pictures = [*(["scores.png"] if drawn else []), *(["report.html"] if reported else [])]
    written = ["summary.json", *pictures, "runs", *(f"{name}.pt" for name in runs)]
    print(f"in {folder}: {', '.join(written)}")
    return 0 if all(holds for _, holds in results) else 1
