"""Which shapes and instruction sets are measured where nothing else is asked for."""

from __future__ import annotations

import re
from pathlib import Path

SHAPES = ["256x65536x128", "32x65536x128", "1024x65536x128", "256x4096x128"]
PAGES = ["32x65536x128", "256x65536x128"]
# The table of shapes: all corners of N = 32 .. 4096, K = 1024 .. 262144, D = 64 .. 768, and each value of
# N (32, 256, 1024, 4096), K (1024, 4096, 16384, 65536, 262144) and D (64, 128, 256, 512, 768) several times.
GRID = [
    *(f"{n}x{k}x{d}" for n in (32, 4096) for k in (1024, 262144) for d in (64, 768)),
    *("256x65536x128", "32x65536x128", "1024x65536x128", "256x4096x128"),
    *("256x1024x128", "1024x1024x512", "4096x4096x128", "1024x4096x256", "32x4096x256", "256x4096x512"),
    *("32x16384x512", "256x16384x64", "256x16384x768", "1024x16384x256", "4096x16384x128"),
    *("1024x65536x64", "256x65536x256", "256x65536x512", "256x65536x768", "4096x65536x256"),
    *("32x262144x128", "256x262144x128", "1024x262144x128"),
]
TABLES = ("steps", "shapes", "types", "isa", "pages")


def instruction_sets() -> list[str]:
    """Those of the table `isa`: the one that most processors of people have, where this one has it."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return ["avx2"] if flags and {"avx2", "fma"} <= set(flags.group(1).split()) else []
