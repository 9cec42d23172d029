"""Lightning callbacks for a FeatureTransform and for a ScoreMeter. Importing this imports Lightning."""

from __future__ import annotations

from typing import Any

import torch

from ..scores import ScoreMeter
from ..torch import FeatureTransform

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    try:
        from pytorch_lightning.callbacks import Callback
    except ImportError:
        raise ImportError("flashnce.compat.lightning needs lightning or pytorch_lightning; neither is here") from None


class FeatureTransformCallback(Callback):
    """Steps a schedule after each batch of training and each epoch of it, and keeps it in checkpoints.

    Args:
        transform: the schedule. Where it is a part of the LightningModule, that moves and saves it; else this does.
    """

    def __init__(self, transform: FeatureTransform) -> None:
        if not isinstance(transform, FeatureTransform):
            raise TypeError(f"transform is a {type(transform).__name__}; it must be a FeatureTransform")
        self.transform = transform
        self._apart = True

    def setup(self, trainer, pl_module, stage: str) -> None:
        self._apart = all(module is not self.transform for module in pl_module.modules())

    def on_fit_start(self, trainer, pl_module) -> None:
        if self._apart:
            self.transform.to(pl_module.device)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self.transform.step()

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.transform.next_epoch()

    def state_dict(self) -> dict[str, Any]:
        return {"transform": self.transform.get_extra_state()} if self._apart else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = state_dict.get("transform")
        if isinstance(state, torch.Tensor):
            self.transform.set_extra_state(state)


class ScoreMeterCallback(Callback):
    """Feeds a ScoreMeter with what training_step returns under "loss" and "scores", and closes it when training ends.

    Where training_step returns no "scores", it calls meter.update itself: before it pushes the keys, which details
    need. This then counts, keeps the meter's step in checkpoints and closes it, after an exception as well.

    Args:
        meter: it is closed at the end of the fit.
    """

    def __init__(self, meter: ScoreMeter) -> None:
        if not isinstance(meter, ScoreMeter):
            raise TypeError(f"meter is a {type(meter).__name__}; it must be a ScoreMeter")
        self.meter = meter

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if isinstance(outputs, dict) and outputs.get("scores") is not None:
            # What Lightning hands on is divided by the batches of a step, where it makes the step itself.
            factor = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self.meter.update(outputs["loss"] * factor, outputs["scores"], epoch=trainer.current_epoch)

    def on_fit_end(self, trainer, pl_module) -> None:
        self.meter.close()

    def on_exception(self, trainer, pl_module, exception: BaseException) -> None:
        self.meter.close()

    def state_dict(self) -> dict[str, Any]:
        return self.meter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.meter.load_state_dict(state_dict)
