"""RGBMoCo_dropmix_norm, the loss of the feature transformation's authors (memory/mem_moco.py of
DTennant/CL-Visualizing-Feature-Transformation), without logits and without random numbers of the host."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from .._options import Mix, choice
from ._backend import check_backend, contrast
from ._rows import push, queue_of

_NO_JIGSAW = "jigsaw queries are not to be had: the authors' code fails on them"


def _mixes(
    mix_target: str,
    postmix_norm: bool,
    expolation_mask: bool,
    dim_mask: str,
    mask_distribution: str,
    alpha: float,
    pos_alpha: float,
    neg_alpha: float,
    sep_alpha: bool,
) -> tuple[Mix | None, Mix | None]:
    """The Mix of positives and of negatives that the authors' options mean.

    `sep_alpha` and `dim_mask` count for mix_target "posneg" and Beta numbers only, and mixing is elementwise wherever
    they do not, as in the authors' code. postmix_norm is of the positives alone: norm_target is always "pos" there.
    """
    separate = sep_alpha and mix_target == "posneg" and mask_distribution == "beta"
    if mask_distribution == "uniform":
        alphas = {"pos": 1.0, "neg": 1.0}
    else:
        alphas = {"pos": pos_alpha, "neg": neg_alpha} if separate else {"pos": alpha, "neg": alpha}
    per = {side: "element" if not separate or dim_mask in (side, "both") else "call" for side in alphas}
    positive = Mix(alphas["pos"], shift=float(expolation_mask), per=per["pos"], renormalize=postmix_norm)
    negative = Mix(alphas["neg"], per=per["neg"])
    return positive if "pos" in mix_target else None, negative if "neg" in mix_target else None


class RGBMoCo_dropmix_norm(nn.Module):  # noqa: N801
    """Queue and loss of MoCo with mixed features; the authors' constructor.

    Two things differ. Without `all_k` the raw keys enter the queue, where the authors' code would push the mixed ones.
    And `index` is in state_dict(), as the queue's position; a state of the authors, `memory` [K,D], begins at 0.

    Args:
        n_dim: features D. K: negatives. T: temperature.
        mix_target: "pos" | "neg" | "posneg", what is mixed.
        postmix_norm: whether q and k are divided by their norms after they are mixed.
        expolation_mask: whether lambda of positives is 1 larger: extrapolation.
        dim_mask: "none": one lambda a call; "pos" | "neg" | "both": one an element of that side. See _mixes.
        mask_distribution: "uniform" | "beta". alpha, pos_alpha, neg_alpha: of Beta(alpha, alpha).
        sep_alpha: whether pos_alpha, neg_alpha and dim_mask count, with mix_target "posneg" and "beta".
        norm_target: of no account, as in the authors' code.
        mix_jig: must be False.
        backend: see flashnce.compat.

    Raises:
        NotImplementedError: mix_jig. ValueError: an option has none of its values, in one sentence that names it.
    """

    def __init__(
        self,
        n_dim: int,
        K: int = 65536,
        T: float = 0.07,
        mix_target: str = "pos",
        postmix_norm: bool = False,
        expolation_mask: bool = False,
        dim_mask: str = "both",
        mask_distribution: str = "uniform",
        alpha: float = 2.0,
        norm_target: str = "pos",
        pos_alpha: float = 2.0,
        neg_alpha: float = 1.6,
        sep_alpha: bool = False,
        mix_jig: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        choice("mix_target", mix_target, ("pos", "neg", "posneg"))
        choice("mask_distribution", mask_distribution, ("uniform", "beta"))
        choice("dim_mask", dim_mask, ("pos", "neg", "both", "none"))
        if expolation_mask and mix_target == "neg":
            raise ValueError("expolation_mask is True and mix_target 'neg'; it must be 'pos' or 'posneg'")
        if mix_jig:
            raise NotImplementedError(f"mix_jig is True; {_NO_JIGSAW}")
        self.K, self.T, self.postmix_norm, self.backend = K, T, postmix_norm, check_backend(backend)
        self.positive, self.negative = _mixes(
            mix_target, postmix_norm, expolation_mask, dim_mask, mask_distribution, alpha, pos_alpha, neg_alpha,
            sep_alpha,
        )  # fmt: skip
        self.memory = queue_of(unit(torch.randn(K, n_dim)))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        q_jig: Tensor | None = None,
        all_k: Tensor | None = None,
        mix_now: bool = True,
        *,
        seed: int | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss, and afterwards a push of the keys as they are.

        Args:
            q, k: [N,D], divided by their norms before; q gets a gradient, k none.
            q_jig: None. all_k: [M,D], the keys of all processes; None: k.
            mix_now: whether features are mixed in this call.
            seed: as of flashnce.torch.info_nce.

        Returns:
            the mean loss, float32 []: that of nn.CrossEntropyLoss of the authors' logits; score, float32 [N,5]: mean
            and variance of the negatives' scores, the positive's, mean exp(negative / T) and exp(positive / T).
        """
        if q_jig is not None:
            raise NotImplementedError(f"q_jig is given; {_NO_JIGSAW}")
        mixing = {"positive": self.positive, "negative": self.negative, "seed": seed} if mix_now else {}
        # postmix_norm holds for positives that are not mixed, too; those that are have it in their Mix.
        normalize = self.postmix_norm and mix_now and self.positive is None
        loss, scores = contrast(
            q, k, self.memory, temperature=self.T, normalize=normalize, detach_key=True, return_scores=True,
            backend=self.backend, **mixing,
        )  # fmt: skip
        push(self.memory, k if all_k is None else all_k, normalize=False)
        mixed = scores.mixed
        columns = (
            mixed.neg_mean, mixed.neg_variance, mixed.pos, mixed.neg_log_mean_exp.exp(), (mixed.pos / self.T).exp()
        )  # fmt: skip
        return loss, torch.stack(columns, 1)

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        # The children read the same dictionary after this.
        rows = state_dict.pop(prefix + "memory", None)
        if rows is not None:
            state_dict[prefix + "memory.queue"] = rows
            state_dict[prefix + "memory.position"] = torch.zeros(1, dtype=torch.int64)
        super()._load_from_state_dict(state_dict, prefix, *rest)
