"""A training run that is killed with SIGKILL, again and again, and resumed: bit for bit the run that nobody
disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import flashnce
import pytest
from test_examples import EXAMPLE, differences, folder  # noqa: F401  (folder is a fixture)

sys.path.insert(0, str(EXAMPLE))

import checkpoint  # noqa: E402

STEPS = 60
RUN = ["--no-compare", "--no-progress", "--checkpoint-every", "1"]
SETTINGS = ["--steps", str(STEPS), "--batch-size", "16", "--queue-size", "200", "--log-every", "3", "--threads", "1"]


def start(*arguments: object) -> subprocess.Popen:
    python_path = os.pathsep.join([str(Path(flashnce.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(EXAMPLE / "train.py"), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": python_path}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def running(process: subprocess.Popen) -> bool:
    assert process.poll() is None, f"the run ended before it could be killed: {process.stderr.read()}"
    time.sleep(0.0005)
    return True


def inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def kill_after_checkpoints(process: subprocess.Popen, path: Path, count: int, delay: float) -> None:
    """Kills the run `delay` seconds after it has replaced its checkpoint `count` times."""
    last = inode(path)
    while count > 0 and running(process):
        now = inode(path)
        count -= now != last
        last = now
    time.sleep(delay)
    kill(process)


def kill_while_writing(process: subprocess.Popen, path: Path) -> None:
    """Kills the run while a checkpoint is half written: stopped first, to be sure that it is."""
    temporary, last = path.with_name(path.name + ".tmp"), inode(path)
    while running(process):
        if inode(path) == last or not temporary.exists():
            continue
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        if temporary.exists():
            break
        process.send_signal(signal.SIGCONT)
    kill(process)
    assert temporary.exists()


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"


@pytest.mark.full
def test_killed_and_resumed_is_bit_for_bit(folder, tmp_path):  # noqa: F811
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"moments of the kills: seed {seed}")
    moments = random.Random(seed)
    common = ["--data", folder, *RUN]
    undisturbed = start("--out", tmp_path / "whole", *common, *SETTINGS)
    path = tmp_path / "parts" / "ft.pt"
    steps = [0]

    victim = start("--out", path.parent, *common, *SETTINGS)
    kill_after_checkpoints(victim, path, 1 + moments.randrange(8), moments.uniform(0, 0.02))
    steps.append(checkpoint.load(path)["steps_done"])

    victim = start("--out", path.parent, *common, "--resume", path)
    kill_while_writing(victim, path)
    steps.append(checkpoint.load(path)["steps_done"])

    victim = start("--out", path.parent, *common, "--resume", path)
    kill_after_checkpoints(victim, path, 1 + moments.randrange(8), moments.uniform(0, 0.02))
    steps.append(checkpoint.load(path)["steps_done"])

    # Every life went on where the last one's checkpoint was, and none reached the end.
    assert steps == sorted(set(steps)) and steps[-1] < STEPS, steps
    finish(start("--out", path.parent, *common, "--resume", path))
    finish(undisturbed)
    killed, whole = checkpoint.load(path), checkpoint.load(tmp_path / "whole" / "ft.pt")
    assert whole["steps_done"] == STEPS and len(whole["history"]) == STEPS // 3
    assert differences(killed, whole) == []
    assert not path.with_name(path.name + ".tmp").exists()
