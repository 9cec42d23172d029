"""The command line and the configuration of a training run."""

import argparse
import dataclasses
from pathlib import Path


class OptionError(Exception):
    """Options that do not go together; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What decides a run's numbers. A checkpoint holds it, and a resumed run must have the same."""

    preset: str = "ft"
    momentum: float = 0.99
    ft_start: int = 400
    temperature: float = 0.2
    queue_size: int = 4096
    seed: int = 0
    steps: int = 800
    batch_size: int = 128
    limit: int = 0
    log_every: int = 5


FT_START = "0.5"
RECIPE = Config()


def count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def unit_interval(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..1")
    return value


def positive(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def start_step(text):
    """A step, or with a point a part of the run: kept as text until the number of steps is known."""
    value = float(text) if "." in text else int(text)
    if value < 0 or ("." in text and value > 1):
        raise argparse.ArgumentTypeError(f"{text} is neither a step (400) nor a part of the run (0.5)")
    return text


def resolve_start(text, steps):
    return round(float(text) * steps) if "." in text else min(int(text), steps)


def parser():
    p = argparse.ArgumentParser(
        prog="train.py",
        description="Trains a MoCo encoder on Fashion-MNIST, without labels, through FlashNCE's fused loss. By default "
        "it trains twice, plain MoCo and MoCo whose second half uses the feature transformation (FT), then writes the "
        "score curves of both, a summary and checkpoints.",
    )
    run = p.add_argument_group("training")
    run.add_argument("--preset", choices=("moco", "ft", "ft-elementwise"), help="the loss (default ft)")
    run.add_argument("--compare", action=argparse.BooleanOptionalAction,
                     help="also train plain MoCo (default, unless --preset moco, --resume or --stop-at)")
    run.add_argument("--ft-start", type=start_step, metavar="STEP",
                     help=f"FT starts at this step, or at this part of the run (default {FT_START})")
    run.add_argument("--momentum", type=unit_interval, help=f"of the key encoder (default {RECIPE.momentum})")
    run.add_argument("--temperature", type=positive, help=f"of the loss (default {RECIPE.temperature})")
    run.add_argument("--queue-size", type=count, help=f"negatives, K (default {RECIPE.queue_size})")
    run.add_argument("--seed", type=int, help=f"of everything that is random (default {RECIPE.seed})")
    run.add_argument("--steps", type=count, help=f"of the whole run (default {RECIPE.steps})")
    run.add_argument("--batch-size", type=count, help=f"(default {RECIPE.batch_size})")
    run.add_argument("--limit", type=count, help="use only the first so many images of each file (default all)")
    run.add_argument("--log-every", type=count, help=f"steps between score measurements (default {RECIPE.log_every})")
    files = p.add_argument_group("files")
    files.add_argument("--data", type=Path, metavar="DIR", help="folder of the four IDX files (default Debian's)")
    files.add_argument("--out", type=Path, default=Path("demo-output"), metavar="DIR", help="(default demo-output)")
    files.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="continue this run, bit for bit")
    files.add_argument("--checkpoint-every", type=count, default=200, metavar="STEPS", help="(default 200)")
    files.add_argument("--stop-at", type=count, metavar="STEP", help="write a checkpoint after this step and stop")
    machine = p.add_argument_group("machine")
    machine.add_argument("--threads", type=count, help="CPU threads (default: PyTorch's; resuming, the checkpoint's)")
    machine.add_argument("--no-progress", action="store_true", help="no progress bar")
    return p


def given_values(args):
    """The Config fields that the command line sets."""
    names = [field.name for field in dataclasses.fields(Config) if field.name != "ft_start"]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def new_config(args):
    config = dataclasses.replace(RECIPE, **given_values(args))
    if config.preset == "moco":
        if args.ft_start is not None:
            raise OptionError("--ft-start needs --preset ft or ft-elementwise")
        return dataclasses.replace(config, ft_start=config.steps)
    return dataclasses.replace(config, ft_start=resolve_start(args.ft_start or FT_START, config.steps))


def difference(args, config):
    """A sentence on the first option that is not what `config` has; None if all agree."""
    given = given_values(args)
    if args.ft_start is not None:
        given["ft_start"] = resolve_start(args.ft_start, config.steps)
    for name, value in given.items():
        if value != getattr(config, name):
            return f"--{name.replace('_', '-')} {value}, but the checkpoint's run has {getattr(config, name)}"
    return None


def compares(args, config):
    """Whether plain MoCo is trained beside the configured run."""
    single = args.resume is not None or args.stop_at is not None or config.preset == "moco"
    if args.compare and single:
        raise OptionError("--compare cannot be combined with --preset moco, --resume or --stop-at")
    return not single if args.compare is None else args.compare
