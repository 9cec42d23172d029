"""Before any test module imports torch."""

import os

# What torch.compile keeps on disk was made of the operators as they were then.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
