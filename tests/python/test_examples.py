"""The Fashion-MNIST demo on IDX files that the test writes: what it leaves, resuming bit for bit, wrong input."""

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import flashnce
import pytest
import torch

from flashnce.scores import read_run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "moco_fashion_mnist"
sys.path.insert(0, str(EXAMPLE))

import augment  # noqa: E402
import checkpoint  # noqa: E402
import data  # noqa: E402
import evaluate  # noqa: E402
import options  # noqa: E402
import scores  # noqa: E402
import train  # noqa: E402

IMAGES = 64
SMALL = ["--steps", "12", "--batch-size", "16", "--queue-size", "40", "--log-every", "2"]
SMALL += ["--threads", "1", "--no-progress"]


def idx(tensor):
    header = bytes([0, 0, 8, tensor.dim()]) + struct.pack(f">{tensor.dim()}I", *tensor.shape)
    return header + tensor.contiguous().numpy().tobytes()


def synthetic_split(count, seed):
    """Two classes of noisy images: a bright upper or a bright left half."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 28, 28), generator=generator)
    images[labels == 0, :14] += 150
    images[labels == 1, :, :14] += 150
    return images.to(torch.uint8), labels.to(torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The four files, two of them compressed."""
    path = tmp_path_factory.mktemp("fashion")
    for name, count, seed in (("train", IMAGES, 1), ("t10k", 32, 2)):
        images, labels = synthetic_split(count, seed)
        (path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return path


@pytest.fixture(autouse=True)
def process_state():
    """main() runs in this process: its signal handler, threads and random state do not outlive a test."""
    handler, threads, rng = signal.getsignal(signal.SIGINT), torch.get_num_threads(), torch.get_rng_state()
    yield
    signal.signal(signal.SIGINT, handler)
    torch.set_num_threads(threads)
    torch.set_rng_state(rng)


def main(monkeypatch, *arguments):
    """The exit status of the program in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    try:
        return train.main()
    except SystemExit as stop:
        return stop.code


def process(*arguments):
    """The program in a process of its own."""
    python_path = os.pathsep.join([str(Path(flashnce.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(EXAMPLE / "train.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": python_path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def differences(a, b, path=""):
    """Where two nested states are not the same, to the bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [path]
    if type(a) is not type(b):
        return [path]
    if isinstance(a, dict):
        found = [] if a.keys() == b.keys() else [f"{path}: keys"]
        return found + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list):
        found = [] if len(a) == len(b) else [f"{path}: length"]
        return found + [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{path}/{i}")]
    return [] if a == b else [path]


def test_end_to_end(folder, tmp_path):
    out = tmp_path / "out"
    done = process("--data", folder, "--out", out, *SMALL[:-1])
    assert done.returncode == 0, done.stderr
    names = ["ft.pt", "moco.pt", "report.html", "runs", "scores.png", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    moco, ft = (read_run(out / "runs" / name) for name in ("moco", "ft"))
    assert (moco.name, ft.name) == ("MoCo", "MoCo + FT")
    # What both runs share is computed, and logged, once.
    assert [row["step"] for row in moco.rows] == [0, 2, 4, 6, 8, 10] and ft.rows[0]["step"] == 6
    assert [one["step"] for one in ft.details] == [6, 8, 10] and "neg_after" in ft.details[0]["histograms"]

    picture = (out / "scores.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and 20_000 < len(picture) < 200_000

    summary = json.loads((out / "summary.json").read_text())
    assert summary["config"]["ft_start"] == 6
    assert set(summary["runs"]) == {"moco", "ft"}
    assert [row["step"] for row in summary["runs"]["ft"]["history"]] == [0, 2, 4, 6, 8, 10]
    assert all(0 < run["loss_share_of_step"] < 1 for run in summary["runs"].values())
    assert len(summary["checks"]) == 4 and all(check["holds"] for check in summary["checks"])
    for name in ("pixels", "random encoder", "moco", "ft"):
        assert 0 <= summary["knn_accuracy_percent"][name]["knn_moved"] <= 100
        assert f"\n{name} " in done.stdout

    moco, ft = (summary["runs"][name]["history"] for name in ("moco", "ft"))
    assert moco[:3] == ft[:3] and moco[3]["raw_pos_mean"] == ft[3]["raw_pos_mean"]
    assert all(row["raw_pos_mean"] == pytest.approx(row["sampled_pos_mean"], abs=1e-6) for row in moco)
    assert all(row["sampled_pos_mean"] < row["raw_pos_mean"] for row in ft[3:])

    lines = [line for line in done.stderr.splitlines() if line.startswith("ft ")]
    assert "12/12" in lines[-1] and all(word in lines[-1] for word in ("loss ", "pos ", "neg ", "(var ", "acc@1 "))


@pytest.mark.full
def test_resume_in_another_process_is_bit_for_bit(folder, tmp_path):
    common = ["--data", folder, "--no-compare", *SMALL]
    assert process("--out", tmp_path / "whole", *common).returncode == 0
    stopped = process("--out", tmp_path / "parts", *common, "--stop-at", 7)
    assert stopped.returncode == 0 and "--resume" in stopped.stderr
    path = tmp_path / "parts" / "ft.pt"
    half, whole = checkpoint.load(path), checkpoint.load(tmp_path / "whole" / "ft.pt")
    assert half["steps_done"] == 7 and "/queue/queue" in differences(half, whole)
    resumed = process("--out", tmp_path / "parts", "--data", folder, "--no-progress", "--resume", path)
    assert resumed.returncode == 0, resumed.stderr
    assert differences(checkpoint.load(path), whole) == []


@pytest.mark.parametrize("preset", ["moco", "ft-elementwise"])
def test_resume_of_every_preset(folder, tmp_path, monkeypatch, preset):
    common = ["--data", folder, *SMALL, "--preset", preset, "--no-compare"]
    assert main(monkeypatch, "--out", tmp_path / "whole", *common) == 0
    assert main(monkeypatch, "--out", tmp_path / "parts", *common, "--stop-at", 6) == 0
    path = tmp_path / "parts" / f"{preset}.pt"
    assert main(monkeypatch, "--out", tmp_path / "parts", *common, "--resume", path) == 0
    assert differences(checkpoint.load(path), checkpoint.load(tmp_path / "whole" / f"{preset}.pt")) == []


def test_compared_runs_are_the_single_runs(folder, tmp_path, monkeypatch):
    common = ["--data", folder, *SMALL]
    assert main(monkeypatch, "--out", tmp_path / "both", *common, "--compare") == 0
    assert main(monkeypatch, "--out", tmp_path / "one", *common, "--preset", "moco") == 0
    assert main(monkeypatch, "--out", tmp_path / "one", *common, "--preset", "ft", "--no-compare") == 0
    for name in ("moco.pt", "ft.pt"):
        assert differences(checkpoint.load(tmp_path / "both" / name), checkpoint.load(tmp_path / "one" / name)) == []


def test_interrupted_run_can_be_continued(folder, tmp_path, monkeypatch, capsys):
    common = ["--data", folder, "--no-compare", *SMALL]
    assert main(monkeypatch, "--out", tmp_path / "whole", *common) == 0
    step = train.Trainer.step

    def interrupted_step(trainer):
        if trainer.steps_done == 4:
            signal.raise_signal(signal.SIGINT)
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "step", interrupted_step)
        assert main(patch, "--out", tmp_path / "parts", *common) == 130
    assert "stopped after step 5 of 12" in capsys.readouterr().err
    path = tmp_path / "parts" / "ft.pt"
    assert main(monkeypatch, "--out", tmp_path / "parts", "--data", folder, "--no-progress", "--resume", path) == 0
    assert differences(checkpoint.load(path), checkpoint.load(tmp_path / "whole" / "ft.pt")) == []


def test_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoint.save(path, {"value": 1})

    def fail_half_way(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"value": 2})
    assert checkpoint.load(path)["value"] == 1


def test_violated_check_gives_exit_status_1(folder, tmp_path, monkeypatch, capsys):
    drawn = scores.drawn_lambdas
    monkeypatch.setattr(scores, "drawn_lambdas", lambda found: tuple(value + 0.3 for value in drawn(found)))
    assert main(monkeypatch, "--out", tmp_path, "--data", folder, "--no-compare", *SMALL) == 1
    assert "FAILED FT stretches" in capsys.readouterr().out


def test_negative_variance_check_sees_a_wrong_factor():
    row = {"pos_factor": 2.0, "pos_factor_expected": 2.0, "pos_error": 0.0, "neg_correlation_weight": 0.5}
    good = row | {"neg_factor": 0.60, "neg_factor_expected": 0.61}
    bad = row | {"neg_factor": 0.60, "neg_factor_expected": 0.70}
    assert [holds for _, holds in scores.check_algebra([good], 4096)] == [True, True]
    assert [holds for _, holds in scores.check_algebra([good, bad], 4096)] == [True, False]
    assert scores.check_algebra([{"loss": 1.0}], 4096) == []


WRONG_OPTIONS = [
    (["--steps", "0"], "--steps"),
    (["--temperature", "0"], "--temperature"),
    (["--temperature", "nan"], "--temperature"),
    (["--momentum", "1.5"], "--momentum"),
    (["--ft-start", "-1"], "--ft-start"),
    (["--ft-start", "1.5"], "--ft-start"),
    (["--queue-size", "many"], "--queue-size"),
    (["--preset", "simclr"], "--preset"),
    (["--batch-size", "65"], "--batch-size 65 is more than the 64 images"),
    (["--preset", "moco", "--compare"], "--compare"),
    (["--preset", "moco", "--ft-start", "3"], "--ft-start"),
    (["--resume", "nowhere.pt"], "no checkpoint nowhere.pt"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG_OPTIONS)
def test_wrong_options(folder, tmp_path, monkeypatch, capsys, arguments, words):
    assert main(monkeypatch, "--data", folder, "--out", tmp_path / "out", *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert words in lines[-1] and lines[-1].startswith("train.py: error: ")
    assert not (tmp_path / "out").exists()


def test_checkpoints_that_do_not_fit(folder, tmp_path, monkeypatch, capsys):
    run = tmp_path / "ft.pt"
    assert main(monkeypatch, "--data", folder, "--out", tmp_path, *SMALL, "--stop-at", 2) == 0
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "cut.pt").write_bytes(run.read_bytes()[:5000])
    (tmp_path / "none").mkdir()
    capsys.readouterr()
    cases = [
        (["--resume", run, "--momentum", "0.5"], "--momentum 0.5, but the checkpoint's run has 0.99"),
        (["--resume", run, "--ft-start", "3"], "--ft-start 3, but the checkpoint's run has 6"),
        (["--resume", run, "--preset", "moco"], "--preset moco, but the checkpoint's run has ft"),
        (["--resume", run, "--compare"], "--compare"),
        (["--resume", tmp_path / "text.pt"], "text.pt is not a readable checkpoint"),
        (["--resume", tmp_path / "cut.pt"], "cut.pt is not a readable checkpoint"),
        (["--resume", tmp_path / "other.pt"], "other.pt is not a checkpoint of this program"),
        (["--resume", run, "--data", tmp_path / "none"], "no train-images-idx3-ubyte[.gz] in"),
    ]
    for arguments, words in cases:
        assert main(monkeypatch, "--data", folder, "--out", tmp_path, "--no-progress", *arguments) == 2, arguments
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and words in lines[0] and lines[0].startswith("train.py: error: "), lines


def test_checkpoint_of_other_data(folder, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, "--data", folder, "--out", tmp_path, *SMALL, "--stop-at", 2) == 0
    images, labels = synthetic_split(48, 1)
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    capsys.readouterr()
    assert main(monkeypatch, "--data", tmp_path, "--out", tmp_path, "--resume", tmp_path / "ft.pt") == 2
    assert "64 training images, the data has 48" in capsys.readouterr().err


def damage(kind, images, labels):
    """(name of the damaged file, its content, words of the error)"""
    name = "train-images-idx3-ubyte"
    packed = gzip.compress(idx(images))
    return {
        "not gzip": (f"{name}.gz", b"\x1f\x8bnothing", "cannot be read"),
        "cut gzip": (f"{name}.gz", packed[: len(packed) // 2], "cannot be read"),
        "flipped gzip": (f"{name}.gz", packed[:500] + bytes([packed[500] ^ 255]) + packed[501:], "cannot be read"),
        "wrong magic": (name, b"\x00\x00\x0d\x03" + idx(images)[4:], "not an IDX file"),
        "labels as images": (name, idx(labels), "not an IDX file"),
        "empty": (name, b"", "not an IDX file"),
        "cut": (name, idx(images)[:-1], "the header says shape (64, 28, 28)"),
        "too few": (name, idx(images[:5]), "5 images and 64 labels"),
        "missing": ("other", b"", "no train-images-idx3-ubyte[.gz] in"),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["not gzip", "cut gzip", "flipped gzip", "wrong magic", "labels as images", "empty", "cut", "too few", "missing"],
)
def test_damaged_data(tmp_path, monkeypatch, capsys, kind):
    images, labels = synthetic_split(IMAGES, 1)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    name, content, words = damage(kind, images, labels)
    (tmp_path / name).write_bytes(content)
    assert main(monkeypatch, "--data", tmp_path, "--out", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and words in lines[0] and str(tmp_path) in lines[0]


def test_missing_folder_says_how_to_get_the_data(tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, "--data", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "dataset-fashion-mnist" in lines[0] and "--data" in lines[0]


def test_data_are_read_as_written(folder):
    train_split, test_split = data.load(folder, limit=20)
    images, labels = synthetic_split(IMAGES, 1)
    assert torch.equal(train_split.images, images[:20]) and torch.equal(train_split.labels, labels[:20])
    assert len(test_split.images) == 20


def test_start_of_ft():
    assert options.resolve_start("0.5", 801) == 400
    assert options.resolve_start("1.0", 800) == 800
    assert options.resolve_start("1", 800) == 1
    assert options.resolve_start("900", 800) == 800


def test_warp_moves_by_pixels():
    x = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    one, zero = torch.ones(1), torch.zeros(1)
    plain = {"scale_x": one, "scale_y": one, "angle": zero, "shift_x": zero, "shift_y": zero}
    assert torch.allclose(augment.warp(x, **plain), x, atol=1e-4)
    shifted = augment.warp(x, **plain | {"shift_x": torch.tensor([2 / 28])})
    assert torch.allclose(shifted[..., :26], x[..., 2:], atol=1e-4) and shifted[..., 26:].abs().max() < 1e-4
    assert torch.allclose(augment.warp(x, **plain | {"scale_x": -one}), x.flip(-1), atol=1e-4)


def test_views_are_random_and_reproducible():
    images, _ = synthetic_split(256, 3)
    first, again, other = (augment.random_view(images, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    black = augment.standardize(torch.zeros(()))
    assert first.min() >= black - 1e-6 and first.max() <= augment.standardize(torch.ones(())) + 1e-6
    box = augment.erase(torch.ones(2, 1, 28, 28), torch.full((2, 2), 0.5), torch.tensor([[14 / 28, 8 / 28], [0, 0]]))
    assert (box[0] == 0).sum() == 14 * 8 and (box[1] == 0).sum() == 0


def test_knn_finds_the_classes(folder):
    train_split, test_split = data.load(folder)
    assert evaluate.knn_accuracy(None, train_split, test_split)["knn"] == 100
    swapped = train_split._replace(labels=1 - train_split.labels)
    assert evaluate.knn_accuracy(None, swapped, test_split)["knn"] == 0
