"""ClipLoss of open_clip 3.3 (src/open_clip/loss.py), of one process, or of all with local_loss and gather_with_grad."""

from __future__ import annotations

from torch import Tensor, nn

from ._backend import check_backend, contrast_pairs
from ._rows import check_shapes


class ClipLoss(nn.Module):
    """The mean of the cross entropies of both directions of a batch of pairs, of features that are used as they are:
    open_clip's models divide theirs by their norms. No N x N logits exist.

    Args:
        local_loss, gather_with_grad: of no account in one process, and both True in several: each has the loss of its
            own rows against the columns of all, whose gradients come back.
        cache_labels, rank: of no account, for there are no labels, and torch.distributed knows the rank.
        world_size: how many processes there are.
        use_horovod: must be False.
        backend: see flashnce.compat.

    Raises:
        NotImplementedError: world_size above 1 without local_loss and gather_with_grad, or use_horovod.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if use_horovod:
            raise NotImplementedError("use_horovod is True; processes are those of torch.distributed")
        if world_size > 1 and not (local_loss and gather_with_grad):
            raise NotImplementedError(
                f"world_size is {world_size}, local_loss {local_loss} and gather_with_grad {gather_with_grad}; in "
                "several processes both must be True: keep open_clip's ClipLoss for the others"
            )
        self.local_loss, self.gather_with_grad, self.cache_labels = local_loss, gather_with_grad, cache_labels
        self.rank, self.world_size, self.use_horovod = rank, world_size, use_horovod
        self.backend = check_backend(backend)

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """The loss, float32 [], or {"contrastive_loss": loss}.

        Args:
            image_features, text_features: [N,D] unit rows, float32, float16 or bfloat16; both get gradients.
            logit_scale: 1 / temperature, > 0 (after exp), which may require a gradient.
            logit_bias: moves all logits alike, which a softmax does not see: its gradient is 0.

        Raises:
            TypeError, ValueError: an argument is wrong, in one sentence that names it.
        """
        if self.world_size == 1:
            # Among several processes the loss refuses other shapes, since that raises on all of them.
            check_shapes({"image_features": image_features, "text_features": text_features})
        loss = contrast_pairs(
            image_features, text_features, logit_scale=logit_scale, normalize=False, gather=self.world_size > 1,
            backend=self.backend,
        )  # fmt: skip
        if logit_bias is not None and logit_bias.requires_grad:
            loss = loss + 0.0 * logit_bias.sum()
        return {"contrastive_loss": loss} if output_dict else loss
