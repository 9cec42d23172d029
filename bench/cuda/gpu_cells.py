"""Which cells the benchmark on a GPU times where nothing else is asked for, and the full product.

usage: gpu_cells.py [--full] [--shapes NxKxD,...] [--types NAME,...] [--presets NAME,...]
Prints a cell a line, for `gpu_bench --cells=-`.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import NamedTuple

NS = (32, 256, 1024, 4096)
KS = (4096, 65536, 262144)
DS = (64, 128, 256, 512)
TYPES = ("float16", "bfloat16", "float32", "float32-fast")
PRESETS = ("moco", "ft", "ft-elementwise")


class Cell(NamedTuple):
    n: int
    k: int
    d: int
    type: str
    preset: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n, self.k, self.d

    def line(self) -> str:
        return " ".join(map(str, self))


def full() -> list[Cell]:
    return [Cell(*sizes) for sizes in product(NS, KS, DS, TYPES, PRESETS)]


def core() -> list[Cell]:
    """About a hundred: every shape with float16 and the feature transformation; without it at D = 128; float32, whose
    main kernel is another one, at the sizes of training; a few of every other type and preset."""
    cells = [Cell(*sizes, "float16", "ft") for sizes in product(NS, KS, DS)]
    cells += [Cell(n, k, 128, "float16", "moco") for n, k in product(NS, KS)]
    cells += [Cell(n, k, d, "float32", "ft") for n, k, d in product(NS, (4096, 65536), (64, 128, 256))]
    cells += [Cell(n, 65536, d, "bfloat16", "ft") for n, d in product((32, 256, 1024), (128, 256))]
    cells += [Cell(n, 65536, d, "float32-fast", "ft") for n, d in product((32, 256, 1024), (128, 256))]
    cells += [Cell(n, 65536, 128, "float32", "moco") for n in (32, 256)]
    cells += [Cell(256, k, d, "float16", "ft-elementwise") for k, d in product((4096, 65536), (128, 256))]
    return cells


def chosen(shapes: list[str], types: list[str], presets: list[str]) -> list[Cell]:
    """The product of what was asked for."""
    sizes = []
    for text in shapes:
        parts = text.split("x")
        if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise ValueError(f"a shape is NxKxD, not {text!r}")
        sizes.append(tuple(map(int, parts)))
    for given, known in ((types, TYPES), (presets, PRESETS)):
        for name in given:
            if name not in known:
                raise ValueError(f"{name!r} is none of {', '.join(known)}")
    return [Cell(*shape, element, preset) for shape in sizes for element in types for preset in presets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--shapes")
    parser.add_argument("--types", default="float16")
    parser.add_argument("--presets", default="ft")
    options = parser.parse_args()
    if options.shapes:
        cells = chosen(options.shapes.split(","), options.types.split(","), options.presets.split(","))
    else:
        cells = full() if options.full else core()
    print("\n".join(cell.line() for cell in cells))


if __name__ == "__main__":
    main()
