"""NTXentLoss of pytorch-metric-learning 2.9 with labels, and CrossBatchMemory, where that is the loss of a queue.

It is one where keys are marked by enqueue_mask, as in that package's MoCo example, and each label occurs once in the
memory: then each query has one positive there and everything else in it is a negative. Anything else raises.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..torch import Queue
from ._backend import check_backend, contrast
from ._rows import push

_ELSEWHERE = "; keep pytorch_metric_learning's loss for that"
# What the package's losses take beside the temperature.
_OPTIONS = ("distance", "reducer", "embedding_regularizer", "embedding_reg_weight", "collect_stats")


class NTXentLoss(nn.Module):
    """The cross entropy of each pair of one label among itself and the embeddings of other labels, of unit vectors: the
    mean over all pairs (i, j), i != j. It is also what CrossBatchMemory takes as its loss.

    Args:
        temperature: > 0.
        backend: see flashnce.compat.
        kwargs: distance, reducer, embedding_regularizer and whatever else the package takes: raise unless None, which
            is cosine similarity and the mean over positive pairs.

    Raises:
        NotImplementedError: an option is given. TypeError: the package has no such option.
    """

    def __init__(self, temperature: float = 0.07, *, backend: str = "auto", **kwargs) -> None:
        super().__init__()
        for name, value in kwargs.items():
            if name not in _OPTIONS:
                raise TypeError(f"{name} is no argument of NTXentLoss")
            if value is not None:
                raise NotImplementedError(
                    f"{name} is given; flashnce.compat has cosine similarity and the mean over positive pairs only"
                    + _ELSEWHERE
                )
        self.temperature, self.backend = temperature, check_backend(backend)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: object = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """The mean loss, float32 []; 0 where no two embeddings have one label. Waits for the device, which must tell
        how many pairs there are.

        Args:
            embeddings: [N,D], float32, float16 or bfloat16, with a gradient.
            labels: an integer [N].
            indices_tuple: None; pairs that are chosen raise.
            ref_emb, ref_labels: [M,D] of the same type with a gradient, and an integer [M]: what embeddings are
                contrasted with, in place of each other. Where ref_labels is the tensor that labels is, row i of one
                side is no pair with row i of the other, as in the package.

        Raises:
            NotImplementedError: what is said above. ValueError: labels are None or of another shape. TypeError: labels
                are no integers.
        """
        if indices_tuple is not None:
            raise NotImplementedError("indices_tuple is given; pairs cannot be chosen" + _ELSEWHERE)
        labels = _labels("labels", labels, embeddings)
        others, other_labels = embeddings, labels
        if ref_emb is not None:
            others, other_labels = ref_emb, _labels("ref_labels", ref_labels, ref_emb)
        same = labels[:, None] == other_labels
        # The package asks for the identity of the tensors that it has moved, too.
        if other_labels is labels:
            same.fill_diagonal_(False)
        anchors, positives = same.nonzero(as_tuple=True)
        if not len(anchors):
            return 0.0 * embeddings.float().sum()
        # A row for each pair; one id per label leaves out all columns of the row's own.
        return contrast(
            embeddings[anchors], others[positives], None, batch=others, ids=labels[anchors].long(),
            batch_ids=other_labels.long(), temperature=self.temperature, detach_key=False, backend=self.backend,
        )  # fmt: skip


def _labels(name: str, labels: Tensor | None, embeddings: Tensor) -> Tensor:
    """Labels beside their embeddings: the same tensor, where they lie there."""
    if not isinstance(labels, Tensor) or labels.shape != embeddings.shape[:1]:
        found = None if not isinstance(labels, Tensor) else list(labels.shape)
        raise ValueError(f"{name} has shape {found}; it must be [{len(embeddings)}]")
    # As integers 0.2 and 0.4 would be one label.
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{name} has type {labels.dtype}; it must be an integer type")
    return labels.to(embeddings.device)


def _only_positives(labels: Tensor, memory: Tensor) -> Tensor:
    """Where the labels [N] lie among those of the memory [K], int64 [N]; raises unless each lies there once."""
    ordered, order = torch.sort(memory)
    first = torch.searchsorted(ordered, labels)
    count = torch.searchsorted(ordered, labels, right=True) - first
    if not bool((count == 1).all()):
        wrong = int((count != 1).nonzero()[0, 0])
        raise NotImplementedError(
            f"label {labels[wrong].item()} occurs {count[wrong].item()} times in the memory; each query needs exactly "
            "one positive there" + _ELSEWHERE
        )
    return order[first]


class CrossBatchMemory(nn.Module):
    """The memory and the loss against it; keys enter before the loss, so that queries find their positives there.

    Args:
        loss: an NTXentLoss of this module.
        embedding_size: features D. memory_size: rows K of the memory.
        miner: None; a miner raises.
        backend: see flashnce.compat.

    The memory is the Queue `embedding_memory`, of unit rows, with `label_memory` [K] and `filled` (int64 [1], rows that
    hold keys) beside it, all in state_dict(). The package keeps the last, and the position, in Python numbers, which
    its checkpoints do not have.
    """

    label_memory: Tensor
    filled: Tensor

    def __init__(
        self,
        loss: NTXentLoss,
        embedding_size: int,
        memory_size: int = 1024,
        miner: object = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(loss, NTXentLoss):
            raise NotImplementedError(
                f"loss is a {type(loss).__name__}; it must be flashnce.compat's NTXentLoss" + _ELSEWHERE
            )
        if miner is not None:
            raise NotImplementedError("miner is given; pairs cannot be chosen" + _ELSEWHERE)
        self.loss, self.miner, self.backend = loss, None, check_backend(backend)
        self.embedding_size, self.memory_size = embedding_size, memory_size
        # Nothing is read of the memory's first content, so it draws nothing from the default generator either.
        self.embedding_memory = Queue(memory_size, embedding_size, generator=torch.Generator(torch.empty(0).device))
        self.register_buffer("label_memory", torch.zeros(memory_size, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.int64))
        self.register_load_state_dict_post_hook(lambda module, _: module._read_counts())
        self._read_counts()

    def _read_counts(self) -> None:
        """The counts that decide on shapes, read once where a state is loaded."""
        self._filled, self.queue_idx = int(self.filled), int(self.embedding_memory.position)

    @property
    def has_been_filled(self) -> bool:
        return self._filled == self.memory_size

    def reset_queue(self) -> None:
        """Empties the memory."""
        self.embedding_memory.position.zero_()
        self.label_memory.zero_()
        self.filled.zero_()
        self._read_counts()

    @torch.no_grad()
    def _labels_with(self, labels: Tensor) -> Tensor:
        """The labels of the memory's keys once these [N], N <= memory_size, have been written."""
        to = torch.arange(self.queue_idx, self.queue_idx + len(labels), device=labels.device) % self.memory_size
        after = self.label_memory.clone()
        after[to] = labels
        return after[: min(self._filled + len(labels), self.memory_size)]

    @torch.no_grad()
    def _write(self, keys: Tensor, labels_after: Tensor) -> None:
        """Writes keys over the oldest rows, with wrap-around."""
        push(self.embedding_memory, keys)
        self._filled = len(labels_after)
        self.label_memory[: self._filled] = labels_after
        self.filled.fill_(self._filled)
        self.queue_idx = (self.queue_idx + len(keys)) % self.memory_size

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: object = None,
        enqueue_mask: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of the queries, float32 []. Waits for the device, which must tell that labels occur once.

        Args:
            embeddings: [N,D], float32, float16 or bfloat16: queries and keys. Queries get gradients, keys do not.
            labels: an integer [N]: of a query that of its key, of every key another one.
            indices_tuple: None; pairs that are chosen raise.
            enqueue_mask: bool [N], which rows are keys. None raises: rows would meet themselves in the memory.

        Raises:
            NotImplementedError: what is said above. ValueError: shapes, more keys than the memory has rows. TypeError:
                labels are no integers.
        """
        if indices_tuple is not None:
            raise NotImplementedError("indices_tuple is given; pairs cannot be chosen" + _ELSEWHERE)
        if enqueue_mask is None:
            raise NotImplementedError(
                "enqueue_mask is None: each row would meet itself in the memory, which this adapter does not leave "
                "out; mark the keys, which a momentum encoder makes" + _ELSEWHERE
            )
        labels = _labels("labels", labels, embeddings).to(self.label_memory)
        if enqueue_mask.shape != labels.shape:
            raise ValueError(f"enqueue_mask has shape {list(enqueue_mask.shape)}; it must be [{len(embeddings)}]")
        keys = embeddings[enqueue_mask].detach()
        if len(keys) > self.memory_size:
            raise ValueError(f"enqueue_mask marks {len(keys)} rows; the memory has {self.memory_size}")
        labels_after = self._labels_with(labels[enqueue_mask])
        where = _only_positives(labels[~enqueue_mask], labels_after)
        self._write(keys, labels_after)
        queries, rows = embeddings[~enqueue_mask], self.embedding_memory.queue[: self._filled]
        positives = rows[where].to(queries.dtype)
        twice = contrast(
            queries, positives, rows, temperature=self.loss.temperature, detach_key=True, reduction="none",
            backend=self.backend,
        )  # fmt: skip
        # The positive is among the rows as well and counts twice; log(exp(twice) - 1) takes one of them out again, by
        # exponentials that cannot overflow.
        return (twice + torch.log(-torch.expm1(-twice))).mean()
