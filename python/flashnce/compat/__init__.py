"""Losses of other trainers with FlashNCE underneath: the names, constructors and forward passes of what they replace.

    flashnce.compat.moco                        facebookresearch/moco: MoCo, accuracy
    flashnce.compat.moco_v3                     facebookresearch/moco-v3: contrastive_loss
    flashnce.compat.lightly                     lightly: NTXentLoss, with a memory bank and without
    flashnce.compat.pytorch_metric_learning     pytorch-metric-learning: NTXentLoss, and CrossBatchMemory around it
    flashnce.compat.open_clip                   open_clip: ClipLoss
    flashnce.compat.sentence_transformers       sentence-transformers: MultipleNegativesRankingLoss
    flashnce.compat.info_nce                    info-nce-pytorch: InfoNCE, info_nce
    flashnce.compat.solo                        solo-learn: mocov2plus_loss_func, MoCoV2PlusQueue
    flashnce.compat.mem_moco                    the feature transformation's authors: RGBMoCo_dropmix_norm
    flashnce.compat.torch_nn                    proposed for torch (pytorch#195380): info_nce_loss, InfoNCELoss
    flashnce.compat.lightning                   Lightning: FeatureTransformCallback, ScoreMeterCallback

None of them imports the package that it stands for, and each is imported when it is asked for. What an original does
and its adapter does not raises NotImplementedError in a sentence that names the argument.

Each loss takes `backend`:

    "fused"      the library, or an error
    "reference"  flashnce.reference: plain PyTorch in float64 with all logits in memory, to compare with
    "auto"       the library; for float64 features and for devices other than CPU and CUDA the reference, with a warning

FLASHNCE_COMPAT_BACKEND in the environment, set to one of these before this is imported, wins over every `backend`.
"""

from ._backend import BACKENDS

__all__ = ["BACKENDS"]
