"""The picture of a run: score curves, plain MoCo beside FT, and the kNN accuracies."""

import sys

AVERAGED = 10  # measurements per plotted point: FT's lambda makes single batches jump
COLORS = {"moco": "#4477aa", "ft": "#cc5522", "ft-elementwise": "#cc5522"}
NAMES = {"moco": "MoCo", "ft": "MoCo + FT", "ft-elementwise": "MoCo + FT (elementwise)"}
PANELS = (
    ("loss", "Loss"),
    ("pos_mean", "Positive score, mean"),
    ("acc1", "Positive above all negatives (acc@1)"),
    ("neg_mean", "Negative scores, mean"),
    ("neg_variance", "Negative scores, variance"),
)


def averaged(history, name, width):
    """Steps and means over `width` measurements in a row."""
    steps, means = [], []
    for first in range(0, len(history) - width + 1, max(1, width // 2)):
        rows = history[first : first + width]
        steps.append(sum(row["step"] for row in rows) / width)
        means.append(sum(row[name] for row in rows) / width)
    return steps, means


def draw(path, config, histories, accuracy):
    """Writes the PNG; False, with a line on stderr, if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        print("train.py: no picture, matplotlib is not installed", file=sys.stderr)
        return False
    figure = Figure(figsize=(10, 5.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flat
    for axis, (name, title) in zip(axes, PANELS):
        draw_curves(axis, name, config, histories)
        axis.set_title(title, fontsize=10, loc="left")
    draw_accuracy(axes[len(PANELS)], accuracy)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    handles = {}
    for axis in axes[: len(PANELS)]:
        handles |= {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}
    handles = dict(sorted(handles.items(), key=lambda item: item[0] == "FT starts"))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Software": None})
    return True


def draw_curves(axis, name, config, histories):
    """Of each run: solid the scores before mixing, dashed those of the loss where they differ."""
    for run, history in histories.items():
        shared = run != "moco" and "moco" in histories
        rows = [row for row in history if row["step"] >= config.ft_start] if shared else history
        width = max(1, min(AVERAGED, len(rows) // 8))
        color, label = COLORS[run], NAMES[run]
        if name == "loss":
            axis.plot(*averaged(rows, "loss", width), color=color, label="_" + label)
            continue
        raw_label = label if run == "moco" else f"{label}: scores before FT"
        axis.plot(*averaged(rows, f"raw_{name}", width), color=color, label=raw_label)
        if run != "moco":
            mixed = [row for row in rows if row["step"] >= config.ft_start]
            if mixed:
                steps_and_means = averaged(mixed, f"sampled_{name}", max(1, min(AVERAGED, len(mixed) // 8)))
                axis.plot(*steps_and_means, color=color, linestyle=(0, (4, 2)), label=f"{label}: scores in the loss")
    if any(run != "moco" for run in histories) and 0 < config.ft_start < config.steps:
        axis.axvline(config.ft_start, color="#999999", linewidth=0.8, linestyle=":", label="FT starts")
    axis.set_xlabel("step", fontsize=8)
    axis.grid(axis="y", linewidth=0.4, color="#dddddd")


def draw_accuracy(axis, accuracy):
    names = list(accuracy)
    values = [accuracy[name]["knn_moved"] for name in names]
    colors = [COLORS.get(name, "#aaaaaa") for name in names]
    bars = axis.barh(range(len(names)), values, color=colors, height=0.65)
    axis.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axis.set_yticks(range(len(names)), [NAMES.get(name, name) for name in names])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    trained = sum(name in NAMES for name in names)
    axis.set_xlabel("%" if trained < 2 else "%  (one seed: differences of 1 are noise)", fontsize=8)
    axis.set_title("kNN accuracy on moved test images", fontsize=10, loc="left")
