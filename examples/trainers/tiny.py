"""What the trainers of this folder share: an encoder, two views of each of a few classes, and what is printed.

Every folder holds a trainer before and after: `python examples/trainers/lightly/before.py` and `after.py` train the
same model on the same data and print the same losses. `diff` of the two files is all that changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

WIDTH = 48


class Encoder(nn.Module):
    """[N,WIDTH] to [N,num_classes]; `fc` is its last layer, as of a ResNet."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU())
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


def key_encoder_of(encoder: nn.Module) -> nn.Module:
    """A copy that no gradient reaches."""
    return copy.deepcopy(encoder).requires_grad_(False)


@torch.no_grad()
def follow(key_encoder: nn.Module, encoder: nn.Module, momentum: float = 0.99) -> None:
    """The momentum update of MoCo."""
    for key_parameter, parameter in zip(key_encoder.parameters(), encoder.parameters()):
        key_parameter.mul_(momentum).add_(parameter * (1 - momentum))


def views(steps: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Two noisy views [batch,WIDTH] of samples of 16 classes, the same for every run."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.randn(16, WIDTH, generator=generator)
    for _ in range(steps):
        samples = classes[torch.randint(16, (batch,), generator=generator)]
        samples = samples + 0.5 * torch.randn(batch, WIDTH, generator=generator)
        first, second = (samples + 0.3 * torch.randn(batch, WIDTH, generator=generator) for _ in range(2))
        yield first, second


def main(train: Callable[[], list[float]]) -> None:
    """Trains and prints every tenth loss."""
    for step, loss in enumerate(train()):
        if step % 10 == 9:
            print(f"step {step + 1}: loss {loss:.6f}")
