"""Before any test module imports torch: FNCE_TEST_TORCH_DEVICE says where the binding's tests run (torch_device.py)."""

import torch_device

torch_device.prepare()
