"""MultipleNegativesRankingLoss of sentence-transformers 6.2, with its default direction and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..torch._arguments import temperature_of
from ._backend import check_backend, contrast
from ._rows import own_rows

_ELSEWHERE = "; keep sentence_transformers' loss for that"


class MultipleNegativesRankingLoss(nn.Module):
    """The cross entropy of each anchor's positive among all positives and hard negatives of the batch, by cosines.

    Args:
        model: from a dictionary of features to one with "sentence_embedding" [N,D].
        scale: 1 / temperature, > 0.
        similarity_fct: None, or the package's cos_sim: cosines.
        gather_across_devices: whether the sentences of all processes, any number on each, are contrasted with.
        kwargs: directions, partition_mode, hardness_mode and whatever else the package takes: what is not its default
            raises.
        backend: see flashnce.compat.

    Raises:
        NotImplementedError: what is said above, in one sentence that names the argument. TypeError, ValueError: another
            argument, or a scale that is none.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_across_devices: bool = False,
        *,
        backend: str = "auto",
        **kwargs,
    ) -> None:
        super().__init__()
        if similarity_fct is not None and getattr(similarity_fct, "__name__", "") != "cos_sim":
            raise NotImplementedError("similarity_fct is given; flashnce.compat has cosines only" + _ELSEWHERE)
        for name, value in kwargs.items():
            if name not in _DEFAULTS:
                raise TypeError(f"{name} is no argument of MultipleNegativesRankingLoss")
            if value != _DEFAULTS[name]:
                raise NotImplementedError(f"{name} is {value!r}; it must be {_DEFAULTS[name]!r}" + _ELSEWHERE)
        # What is no scale is an error here and not only in the first step.
        temperature_of("scale", scale)
        self.model, self.scale, self.backend = model, scale, check_backend(backend)
        self.gather_across_devices = gather_across_devices

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The mean loss, float32 [].

        Args:
            sentence_features: of anchors, of their positives and, perhaps, of hard negatives.
            labels: of no account.
        """
        return self.compute_loss_from_embeddings(
            [self.model(features)["sentence_embedding"] for features in sentence_features], labels
        )

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """The mean loss of embeddings [N,D] of anchors, positives and hard negatives, which all get gradients.

        Raises:
            TypeError, ValueError: one of them has another shape, in one sentence that says which.
        """
        if len(embeddings) < 2:
            raise ValueError(f"Expected at least 2 embeddings, got {len(embeddings)}")
        anchors, positives, *hard = embeddings
        named = {f"embeddings[{i}]": each for i, each in enumerate(embeddings)}
        ids = own_rows(named, gather=self.gather_across_devices)
        # Each row leaves its own positive out of its columns. Hard negatives have an id that no row has.
        batch_ids = torch.cat([ids, *(torch.full_like(ids, -1) for _ in hard)])
        given = {"gather": True} if self.gather_across_devices else {}
        return contrast(
            anchors, positives, None, batch=torch.cat([positives, *hard]), ids=ids, batch_ids=batch_ids,
            temperature=temperature_of("scale", self.scale), detach_key=False, backend=self.backend, **given,
        )  # fmt: skip


_DEFAULTS = {
    "directions": ("query_to_doc",),
    "partition_mode": "joint",
    "hardness_mode": None,
    "hardness_strength": 0.0,
}
