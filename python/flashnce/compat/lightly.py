"""NTXentLoss of lightly 1.6 (`from lightly.loss import NTXentLoss`), with a memory bank and without."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from ..torch import FeatureTransform
from ._backend import check_backend, contrast
from ._rows import check_shapes, gathered, own_rows, queue_of

_BANK = ("memory_bank.queue", "memory_bank.position")


class NTXentLoss(nn.Module):
    """The cross entropy of positives among them and the negatives, of unit vectors; equation (7).

    With a memory bank the positives of out0 are out1, and the negatives are the bank. Without one both are rows, as in
    SimCLR: the other view is the positive, and both views of all other images are negatives, with their gradients.

    Args:
        temperature: > 0.
        memory_bank_size: (K, D), negatives and features, or 0: no bank.
        gather_distributed: whether the out1 of all processes, with as many images each, enter the bank, in rank order.
            Without a bank, whether the views of all processes, with any number of images each, are negatives.
        backend: see flashnce.compat.
        transform: mixes features by its schedule; whoever trains calls its step(). Needs a bank.

    The bank is the Queue `memory_bank`. It is in state_dict(), where lightly's is not; a state without it, such as
    lightly's, leaves the bank as it is.

    Raises:
        NotImplementedError: transform without a bank. ValueError: temperature or memory_bank_size is wrong, as in
            lightly.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
        *,
        backend: str = "auto",
        transform: FeatureTransform | None = None,
    ) -> None:
        super().__init__()
        if abs(temperature) < 1e-8:
            raise ValueError(f"Illegal temperature: abs({temperature}) < 1e-8")
        size = (memory_bank_size,) if isinstance(memory_bank_size, int) else tuple(memory_bank_size)
        if size != (0,) and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"Illegal memory bank size {memory_bank_size}, expected (K, D) or 0")
        if size == (0,) and transform is not None:
            raise NotImplementedError("transform is given and memory_bank_size is 0; batch columns are never mixed")
        self.temperature, self.gather_distributed = temperature, gather_distributed
        self.backend, self.transform = check_backend(backend), transform
        self.memory_bank = None if size == (0,) else queue_of(unit(torch.randn(size), dim=-1))
        self.register_load_state_dict_post_hook(_keep_bank)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The mean loss, float32 []; where out0 requires a gradient, out1 enters the bank afterwards.

        Args:
            out0, out1: [N,D], float32, float16 or bfloat16; both get gradients.

        Raises:
            TypeError, ValueError: an argument is wrong, in one sentence that names it.
        """
        if self.memory_bank is None:
            return self._in_batch(out0, out1)
        check_shapes({"out0": out0, "out1": out1})
        given = {} if self.transform is None else self.transform()
        loss = contrast(
            out0, out1, self.memory_bank, temperature=self.temperature, detach_key=False, backend=self.backend, **given
        )
        if out0.requires_grad:
            keys = unit(out1.detach(), dim=1)
            self._push(gathered("out1", keys) if self.gather_distributed else keys)
        return loss

    def _in_batch(self, out0: Tensor, out1: Tensor) -> Tensor:
        # The id of an image leaves out the row itself and its other view, which is the positive.
        ids = own_rows({"out0": out0, "out1": out1}, gather=self.gather_distributed).repeat(2)
        views = torch.cat([out0, out1])
        given = {"gather": True} if self.gather_distributed else {}
        return contrast(
            views, torch.cat([out1, out0]), None, batch=views, ids=ids, batch_ids=ids, temperature=self.temperature,
            detach_key=False, backend=self.backend, **given,
        )  # fmt: skip

    @torch.no_grad()
    def _push(self, keys: Tensor) -> None:
        """Writes keys as lightly does: those beyond the end of the bank are dropped, and the next go to its start.

        The position stays on the device, so that nobody waits for it.
        """
        rows, position = self.memory_bank.queue, self.memory_bank.position
        size, count = len(rows), len(keys)
        to = position + torch.arange(min(count, size), device=rows.device)
        kept = (to < size)[:, None]
        to = to % size
        rows.index_copy_(0, to, torch.where(kept, keys[:size].to(rows.dtype), rows[to]))
        position.copy_((position + count) * (position + count < size))


def _keep_bank(module: nn.Module, incompatible_keys) -> None:
    """Takes the bank off the missing keys where all of it is missing."""
    missing = incompatible_keys.missing_keys
    bank = [key for key in missing if key.endswith(_BANK)]
    if len(bank) == len(_BANK):
        for key in bank:
            missing.remove(key)
