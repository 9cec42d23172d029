"""Before any test module imports torch. These tests name their device themselves."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
os.environ.setdefault("FNCE_TEST_TORCH_DEVICE", "cuda")

import torch_device  # noqa: E402

torch_device.prepare(set_default=False)
