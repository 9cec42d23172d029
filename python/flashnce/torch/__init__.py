"""FlashNCE for PyTorch.

    from flashnce.torch import InfoNCE, Queue
    queue = Queue(65536, 128)
    criterion = InfoNCE(temperature=0.2, preset="ft")
    loss = criterion(q, k, queue)
    loss.backward()
    queue.push(k)

A batch contrasts with itself by info_nce(q, k, batch=True), whose gradient reaches q and k, and a batch of pairs, both
ways, by clip_loss(a, b). ids leave columns out. docs/negatives.md shows which training takes which negatives.

scores(q, k, queue) gives the statistics of the scores alone, before any mixing, to log. A ShardedQueue holds the
negatives of several processes, and info_nce(..., gather=True) takes their batches. A FeatureTransform says when
features are mixed and how much, step by step.

Works in eager mode and under torch.compile(fullgraph=True), with DistributedDataParallel and autocast, on CPU and CUDA
tensors. On CUDA a call enqueues its work on PyTorch's current stream of the tensors' device, takes memory from
PyTorch's allocator and never waits for the device. It may be part of a CUDA graph after a first call with its sizes
outside. There ids, biases and margins take the plain family of kernels, which is slower, and clip_loss is the CPU's
alone.

Better not put under torch.utils.checkpoint: the logits that it would save are never stored anyway. A recomputation that
sees another queue, since a push came in between, is an error of the backward pass; so is use_reentrant=True.
"""

from torch import serialization

from .._library import NO_COLUMN
from .._options import PRESETS, Mix
from . import _registration as _registration
from ._clip import clip_loss
from ._ddp import ignore_queues_in_ddp
from ._loss import InfoNCE, info_nce
from ._queue import Queue
from ._scores import scores
from ._sharded_queue import ShardedQueue
from ._statistics import Scores, ScoreStatistics
from ._transform import FeatureTransform

# A Mix in saved hyperparameters is data; torch.load(weights_only=True) takes classes that it is told of.
serialization.add_safe_globals([Mix])

__all__ = [
    "NO_COLUMN", "PRESETS", "FeatureTransform", "InfoNCE", "Mix", "Queue", "ScoreStatistics", "Scores", "ShardedQueue",
    "clip_loss", "ignore_queues_in_ddp", "info_nce", "scores",
]  # fmt: skip
