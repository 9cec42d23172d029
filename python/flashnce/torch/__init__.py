"""FlashNCE for PyTorch.

    from flashnce.torch import InfoNCE, Queue
    queue = Queue(65536, 128)
    criterion = InfoNCE(temperature=0.2, preset="ft")
    loss = criterion(q, k, queue)
    loss.backward()
    queue.push(k)

scores(q, k, queue) gives the statistics of the scores alone, before any mixing, to log. A ShardedQueue holds the
negatives of several processes.

Works in eager mode and under torch.compile(fullgraph=True), with DistributedDataParallel and autocast. Not to be put
under torch.utils.checkpoint: the logits that it would save are never stored anyway, and a recomputation after a push
would see another queue.
"""

from .._options import PRESETS, Mix
from ._ddp import ignore_queues_in_ddp
from ._loss import InfoNCE, info_nce
from ._queue import Queue
from ._scores import Scores, ScoreStatistics, scores
from ._sharded_queue import ShardedQueue

__all__ = [
    "PRESETS", "InfoNCE", "Mix", "Queue", "ScoreStatistics", "Scores", "ShardedQueue", "ignore_queues_in_ddp",
    "info_nce", "scores",
]  # fmt: skip
