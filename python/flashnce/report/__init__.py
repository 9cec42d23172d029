"""What a ScoreMeter wrote, shown: one HTML page, figures for papers, a view on the terminal while training goes on.

    python -m flashnce report RUN [RUN ...] [-o report.html] [--figures FOLDER]
    python -m flashnce watch RUN [RUN ...]

The page needs plotly, the figures matplotlib, the terminal rich; each is imported when it is used.
"""

from __future__ import annotations

from ._compare import Group, compare
from ._figures import curves_figure, distributions_figure, write_figures
from ._page import page, write_page
from ._watch import watch

__all__ = [
    "Group", "compare", "curves_figure", "distributions_figure", "page", "watch", "write_figures", "write_page",
]  # fmt: skip
