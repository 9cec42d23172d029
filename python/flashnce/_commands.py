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
    if options.output is not None:
        write_page(groups, options.output, options.title)
        written.append(options.output)
    if options.figures is not None:
        written += write_figures(groups, options.figures)
    print("written:", *written)


@in_one_sentence
def watch(options: argparse.Namespace) -> None:
    from .report import watch as show

    show(options.runs, once=options.once, every=options.every)


def add(commands) -> None:
    """Adds the commands to the subparsers of `python -m flashnce`."""
    made = commands.add_parser(
        "report",
        help="a page of the score statistics of runs",
        description="Writes one HTML page, which needs no network, of what ScoreMeter wrote: curves of all runs "
        "overlaid, distributions through training. Runs of one group are one curve with a band.",
    )
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a ScoreMeter")
    made.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="(default report.html)")
    made.add_argument("--figures", type=Path, metavar="FOLDER", help="also write PNG and SVG for papers there")
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
