"""mocov2plus_loss_func of solo-learn (solo/losses/mocov2plus.py), which its version 1.0.2 calls moco_loss_func, and the
two queues of its MoCoV2Plus."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from ..torch import Queue
from ._backend import contrast
from ._rows import push, queue_of


def mocov2plus_loss_func(
    query: Tensor, key: Tensor, queue: Queue | Tensor, temperature: float | Tensor = 0.1, *, backend: str = "auto"
) -> Tensor:
    """MoCo's loss, equation (7), of vectors that are used as they are: solo-learn divides them by their norms before.

    Args:
        query, key: [N,D] unit rows, float32, float16 or bfloat16; both get gradients.
        queue: a Queue, or solo-learn's [D,K], whose transpose is copied if it is contiguous.
        temperature: > 0, a number or a tensor of one element.
        backend: see flashnce.compat.

    Returns: the mean loss, float32 [].

    Raises: TypeError, ValueError as flashnce.torch.info_nce.
    """
    negatives = queue.T if isinstance(queue, Tensor) else queue
    return contrast(
        query, key, negatives, temperature=temperature, normalize=False, detach_key=False, backend=backend
    )


moco_loss_func = mocov2plus_loss_func


class MoCoV2PlusQueue(nn.ModuleList):
    """The two queues of MoCoV2Plus: `queue[0]` of the first view's keys and `queue[1]` of the second's.

    As the attribute `queue` of a module it loads solo-learn's `queue` [2,D,K] and `queue_ptr`.

    Args:
        proj_output_dim: features D.
        queue_size: negatives K of each queue.
    """

    def __init__(self, proj_output_dim: int, queue_size: int) -> None:
        rows = unit(torch.randn(2, proj_output_dim, queue_size), dim=1)
        super().__init__(queue_of(one.T) for one in rows)

    def dequeue_and_enqueue(self, keys: Tensor) -> None:
        """Pushes keys [2,N,D], unit rows of all processes, as MoCoV2Plus._dequeue_and_enqueue; N is any."""
        for queue, own in zip(self, keys, strict=True):
            push(queue, own, normalize=False)
