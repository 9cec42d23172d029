"""Fashion-MNIST from its four IDX files, compressed or not, as uint8 tensors.

An IDX file is a big-endian header (two zero bytes, type 8 = uint8, number of dimensions, each dimension as uint32)
followed by the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import torch

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
HOW_TO_GET = (
    "install the Debian package dataset-fashion-mnist, or give --data DIR with the four IDX files (train|t10k)-"
    "(images-idx3|labels-idx1)-ubyte[.gz] of https://github.com/zalandoresearch/fashion-mnist"
)


class DataError(Exception):
    """The data are missing or damaged; the message is one line for the user."""


class Split(NamedTuple):
    images: torch.Tensor  # [M,28,28] uint8
    labels: torch.Tensor  # [M] uint8


def load(folder=None, limit=None):
    """The train and test Split, from `folder` or Debian's; with `limit`, only the first so many images of each."""
    folder = Path(folder) if folder else DEBIAN_FOLDER
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: {HOW_TO_GET}")
    return _load_split(folder, "train", limit), _load_split(folder, "t10k", limit)


def _load_split(folder, name, limit):
    images = read_idx(_find(folder, f"{name}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_find(folder, f"{name}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(f"{folder}: {name} has {len(images)} images and {len(labels)} labels")
    return Split(images[:limit], labels[:limit])


def _find(folder, name):
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise DataError(f"no {name}[.gz] in {folder}: {HOW_TO_GET}")


def read_idx(path, dimensions):
    """The uint8 tensor in an IDX file that must have so many dimensions."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path}: not an IDX file of uint8 with {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if math.prod(shape) != len(content) - header:
        raise DataError(f"{path}: the header says shape {shape}, but {len(content) - header} values follow")
    values = torch.empty(shape, dtype=torch.uint8)
    if values.numel():
        values.view(-1).copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header))
    return values
