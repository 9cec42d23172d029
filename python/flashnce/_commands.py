"""`python -m flashnce report`, `watch` and `explain`: their options, and errors of users in one sentence."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path


def in_one_sentence(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """What a user can do something about ends the program with one line and status 1."""

    @functools.wraps(command)
    def run(options: argparse.Namespace) -> None:
        try:
            command(options)
        except BrokenPipeError:
            sys.exit(1)
        except (OSError, ValueError, ImportError, TypeError) as error:
            words = str(error)
            if isinstance(error, OSError) and error.filename is not None:
                words = f"{error.filename}: {error.strerror}"
            sys.exit(f"flashnce {options.command}: error: {' '.join(words.split())}")

    return run


@in_one_sentence
def report(options: argparse.Namespace) -> None:
    from .report import compare, write_figures, write_page
    from .scores import read_run

    groups = compare([read_run(run) for run in options.runs])
    written = []
    output = Path("report.html") if options.output is None and options.figures is None else options.output
    if output is not None:
        write_page(groups, output, options.title)
        written.append(output)
    if options.figures is not None:
        written += write_figures(groups, options.figures)
    print("written:", *written)


@in_one_sentence
def watch(options: argparse.Namespace) -> None:
    from .report import watch as show

    show(options.runs, once=options.once, every=options.every)


def _arrays(path: Path) -> list:
    """q, k and negatives of a file, as tensors."""
    import torch

    try:
        found = _npz(path) if path.suffix == ".npz" else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception:  # Both raise what unpacking raises, in many words.
        kind = "readable .npz file" if path.suffix == ".npz" else ".npz file and holds no tensors that torch.save wrote"
        raise ValueError(f"{path} is no {kind}") from None
    wanted = "it must hold q [N,D], k [N,D] and negatives [K,D] by name"
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no dict; {wanted}")
    for name in ("q", "k", "negatives"):
        if name not in found:
            raise ValueError(f"{path} has no {name}; {wanted}")
        if not isinstance(found[name], torch.Tensor):
            raise ValueError(f"{path} has a {name} that is a {type(found[name]).__name__}; {wanted}")
        if found[name].dim() != 2:
            raise ValueError(f"{path} has a {name} of shape {list(found[name].shape)}; {wanted}")
    return [found[name] for name in ("q", "k", "negatives")]


def _npz(path: Path) -> dict:
    """The arrays of a file as tensors."""
    import numpy
    import torch

    with numpy.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def _made_up(n: int, k: int, d: int) -> list:
    """A batch as early in training: keys near their queries, negatives anywhere."""
    import torch

    draw = torch.Generator().manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(n, d, generator=draw), dim=1)
    key = q + 0.6 * torch.nn.functional.normalize(torch.randn(n, d, generator=draw), dim=1)
    return [q, key, torch.nn.functional.normalize(torch.randn(k, d, generator=draw), dim=1)]


@in_one_sentence
def explain(options: argparse.Namespace) -> None:
    if (options.batch is None) == (options.shape is None):
        raise ValueError("one of BATCH and --shape must be given")
    if options.shape is not None and min(options.shape) < 1:
        raise ValueError(f"--shape is {' '.join(map(str, options.shape))}; N, K and D must be 1 or more")
    from .scores import explain as look
    from .scores._folder import json_of
    from .torch import InfoNCE

    arrays = _made_up(*options.shape) if options.batch is None else _arrays(options.batch)
    criterion = InfoNCE(options.temperature, preset=options.preset)
    found = look(*arrays, criterion, alphas=options.alpha, draws=options.draws, seed=options.seed)
    print(json.dumps(json_of(found.as_dict()), indent=1, allow_nan=False) if options.json else found.as_text())


def add(commands) -> None:
    """Adds the commands to the subparsers of `python -m flashnce`."""
    made = commands.add_parser(
        "report",
        help="a page of the score statistics of runs",
        description="Writes one HTML page, which needs no network, or figures of what ScoreMeter wrote: curves of all "
        "runs overlaid, distributions through training. Runs of one group are one curve with a band.",
    )
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a ScoreMeter")
    made.add_argument("-o", "--output", type=Path, help="the page (default report.html, none with --figures)")
    made.add_argument("--figures", type=Path, metavar="FOLDER", help="write PNG and SVG for papers there")
    made.add_argument("--title", default="Scores of positives and negatives", help="of the page")
    made.set_defaults(run=report)

    made = commands.add_parser(
        "watch",
        help="the score statistics of runs on the terminal, while they are written",
        description="Shows the latest numbers of runs until Ctrl-C.",
    )
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a ScoreMeter")
    made.add_argument("--once", action="store_true", help="print the table and end")
    made.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between looks (default 2)")
    made.set_defaults(run=watch)

    made = commands.add_parser(
        "explain",
        help="what mixing does to a batch",
        description="Says how lambdas, scores and hardness of a batch are distributed, how many negatives count, and "
        "what alpha below and above 1 would do.",
    )
    made.add_argument("batch", nargs="?", type=Path, metavar="BATCH", help=".npz or .pt with q, k and negatives")
    made.add_argument("--shape", nargs=3, type=int, metavar=("N", "K", "D"), help="instead a made-up batch")
    made.add_argument("--preset", choices=("moco", "ft", "ft-elementwise"), default="ft")
    made.add_argument("--temperature", type=float, default=0.2, help="(default 0.2)")
    made.add_argument("--alpha", nargs="+", type=float, default=[0.2, 1.0, 2.0], help="to compare (default 0.2 1 2)")
    made.add_argument("--draws", type=int, default=32, help="(default 32)")
    made.add_argument("--seed", type=int, default=0, help="(default 0)")
    made.add_argument("--json", action="store_true", help="print one JSON object; null is what has no finite value")
    made.set_defaults(run=explain)
