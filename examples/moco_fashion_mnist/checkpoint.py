"""Checkpoints: written whole or not at all, read without running code from the file."""

import os
import pickle
from pathlib import Path

import torch

FORMAT = "moco-fashion-mnist-1"


class CheckpointError(Exception):
    """The checkpoint cannot be used; the message is one line for the user."""


def save(path, state):
    """Replaces `path` at once: whoever is interrupted, killed or loses power keeps the previous checkpoint."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on the disk too
    finally:
        os.close(folder)


def load(path):
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        raise CheckpointError(f"{path} is not a readable checkpoint") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this program")
    return state
