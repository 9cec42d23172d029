"""FeatureTransformCallback in Lightning: steps and epochs are counted, sanity steps are not, a run continues."""

from __future__ import annotations

import pytest
import torch
from other_trainers import peer
from support import cpu_only

from flashnce.torch import FeatureTransform, InfoNCE, Queue

pytestmark = [pytest.mark.full, cpu_only]
SCHEDULE = {"start": 2, "ramp": 4, "seed": 6}


def module_of(lightning, transform, inside):
    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder, self.criterion = torch.nn.Linear(6, 6), InfoNCE(0.2)
            self.queue = Queue(16, 6, generator=torch.Generator().manual_seed(0))
            self.losses, self.strengths = [], []
            if inside:
                self.transform = transform

        def training_step(self, batch, _):
            x = batch[0]
            loss = self.criterion(self.encoder(x), x, self.queue, **transform())
            self.queue.push(x)
            self.losses.append(loss.item())
            self.strengths.append(transform.strength)
            return loss

        def validation_step(self, batch, _):
            self.criterion(self.encoder(batch[0]), batch[0], self.queue)

        def configure_optimizers(self):
            return torch.optim.SGD(self.encoder.parameters(), lr=0.1)

    torch.manual_seed(0)
    return Model()


def fit(lightning, folder, inside, epochs, checkpoint=None):
    from flashnce.compat.lightning import FeatureTransformCallback

    transform = FeatureTransform(**SCHEDULE) if checkpoint is None else FeatureTransform(start=2, ramp=4)
    model = module_of(lightning, transform, inside)
    data = torch.utils.data.TensorDataset(torch.randn(12, 6, generator=torch.Generator().manual_seed(1)))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, barebones=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
        callbacks=[FeatureTransformCallback(transform)], num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(model, loader, loader, ckpt_path=checkpoint)
    return trainer, model, transform


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_a_schedule_in_lightning(tmp_path, inside):
    lightning = peer("lightning.pytorch")
    _, whole, transform = fit(lightning, tmp_path, inside, 3)
    assert whole.strengths == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert (transform.steps, transform.epochs) == (9, 3)

    trainer, first, _ = fit(lightning, tmp_path, inside, 2)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    _, second, resumed = fit(lightning, tmp_path, inside, 3, tmp_path / "run.ckpt")
    assert first.losses + second.losses == whole.losses and (resumed.steps, resumed.epochs) == (9, 3)


def test_what_is_no_transform_is_refused():
    peer("lightning.pytorch")
    from flashnce.compat.lightning import FeatureTransformCallback

    with pytest.raises(TypeError, match="transform is a Linear; it must be a FeatureTransform"):
        FeatureTransformCallback(torch.nn.Linear(1, 1))
