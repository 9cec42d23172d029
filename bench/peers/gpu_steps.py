"""The peers on a CUDA device: those of steps.py with their draws on the device, and attention in one pass.

Attention whose keys are its values gives the softmax over the negatives and their weighted sum, which is all that loss
and gradient need; the mixed queue has to be made for it first, and that time counts.
"""

from __future__ import annotations

from copy import copy
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from . import ours, steps
from .steps import TEMPERATURE, Draws, Inputs


def on_device(inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    """The same numbers, rounded and moved; x_q requires a gradient."""
    other = copy(inputs)
    moved = [x.detach().to(device, dtype).contiguous() for x in (inputs.x_q, inputs.x_k, inputs.queue)]
    other.x_q, other.x_k, other.queue = moved
    other.x_q.requires_grad_()
    other.others = {}
    return other


def moved(draws: Draws, device: torch.device, dtype: torch.dtype = torch.float32) -> Draws:
    """Draws on a device, lambda in an element type."""
    both = (None if value is None else value.to(device, dtype) for value in (draws.lambda_pos, draws.lambda_neg))
    return Draws(*both, None if draws.permutation is None else draws.permutation.to(device))


def draws_on(inputs: Inputs, transformation: str) -> Draws:
    """What the library draws with its seed, for the others, on the device of the inputs."""
    return moved(ours.draws_of(transformation, inputs.shape), inputs.queue.device)


class OnDevice:
    """A step of steps.py on the device of its inputs. Lambda is rounded to their type, as torch.lerp wants it: an error
    of that step, not of the draws."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.labels = self.labels.to(inputs.queue.device)

    def loss(self, draws: Draws) -> Tensor:
        queue = self.inputs.queue
        return super().loss(moved(draws, queue.device, queue.dtype))


class MocoCode(OnDevice, steps.MocoCode):
    pass


class EagerFt(OnDevice, steps.EagerFt):
    """Draws on the device, as somebody who cares for speed would write it."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        device = inputs.queue.device
        self.beta_pos, self.beta_neg = (
            torch.distributions.Beta(*(torch.tensor(alpha, device=device) for _ in range(2)), validate_args=False)
            for alpha in (steps.ALPHA_POS, steps.ALPHA_NEG)
        )

    def draw(self) -> Draws:
        queue = self.inputs.queue
        return Draws(
            self.beta_pos.sample(self.shape_pos) + steps.SHIFT_POS,
            self.beta_neg.sample(self.shape_neg),
            torch.randperm(queue.shape[0], device=queue.device),
        )


class CompiledFt(EagerFt):
    compiled = staticmethod(steps.CompiledFt.compiled)

    def loss(self, draws: Draws) -> Tensor:
        queue = self.inputs.queue
        return steps.CompiledFt.loss(self, moved(draws, queue.device, queue.dtype))


class FtCode(OnDevice, steps.EagerFtElementwise):
    """Draws on the host, one lambda per element, and moved to the device, as the authors' code has it."""


def flash_attention(q: Tensor, z: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, z, z, 0.0, False, False, scale=scale)
    return out, lse


def cudnn_attention(q: Tensor, z: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, z, z, None, True, 0.0, False, False, scale=scale
    )
    return out, lse


def plain_attention(q: Tensor, z: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """By its definition, for a device that has no kernel of the others: it says what they should give."""
    scores = q.float() @ z.float().transpose(-1, -2) * scale
    return torch.softmax(scores, -1) @ z.float(), torch.logsumexp(scores, -1)


class Attention:
    """Loss and gradient from one pass of attention. The glue is in float32."""

    def __init__(self, inputs: Inputs, transformation: str, attention) -> None:
        self.inputs, self.transformation, self.attention = inputs, transformation, attention
        self.drawing = EagerFt(inputs)
        self.loss = self.gradient = None

    def run(self, draws: Draws) -> None:
        i, mixed = self.inputs, draws.permutation is not None
        x_q = i.x_q.detach().float()
        norm = x_q.norm(dim=1, keepdim=True)
        unit_q, unit_k = x_q / norm, normalize(i.x_k.float(), dim=1)
        q, k, z, mix = unit_q, unit_k, i.queue, torch.ones((), device=x_q.device)
        if mixed:
            mix = draws.lambda_pos.float()
            q, k = torch.lerp(unit_k, unit_q, mix), torch.lerp(unit_q, unit_k, mix)
            z = torch.lerp(z[draws.permutation], z, draws.lambda_neg.to(z.dtype))
        out, lse = self.attention(q.to(z.dtype)[None, None], z[None, None], 1 / TEMPERATURE)
        # Some versions return lse with a last dimension of 1.
        out, lse = out[0, 0].float(), lse.reshape(-1)[: len(q)].float()
        positive = (q * k).sum(1) / TEMPERATURE
        total = torch.logaddexp(lse, positive)
        negative_part, rest = torch.exp(lse - total)[:, None], torch.expm1(positive - total)[:, None]
        scale = 1 / (TEMPERATURE * len(q))
        d_q, d_k = (negative_part * out + rest * k) * scale, rest * q * scale
        d_unit = mix * d_q + (1 - mix) * d_k if mixed else d_q
        gradient = (d_unit - (d_unit * unit_q).sum(1, keepdim=True) * unit_q) / norm
        self.loss, self.gradient = (total - positive).mean(), gradient.to(i.x_q.dtype)

    def step(self) -> None:
        self.run(self.drawing.draw() if self.transformation == "ft" else Draws())

    def result(self, draws: Draws) -> tuple[float, Tensor]:
        self.run(draws)
        return self.loss.item(), self.gradient.clone()


def attention_peers(attention, name: str) -> dict:
    return {f"{name}-{t}": partial(Attention, transformation=t, attention=attention) for t in ("moco", "ft")}


def all_peers(device: torch.device) -> dict:
    """name: maker of a peer from its inputs."""
    peers = {
        "gemms": steps.TorchGemms,
        "flashnce-moco": partial(ours.Binding, transformation="moco"),
        "flashnce-ft": partial(ours.Binding, transformation="ft"),
        "flashnce-ft-elementwise": partial(ours.Binding, transformation="ft-elementwise"),
        "moco-code": MocoCode,
        "eager-ft": EagerFt,
        "compiled-ft": CompiledFt,
        "ft-code": FtCode,
    }
    if device.type == "cuda":
        return {**peers, **attention_peers(flash_attention, "flash"), **attention_peers(cudnn_attention, "cudnn")}
    return {**peers, **attention_peers(plain_attention, "plain")}


class DeviceGemms(steps.TorchGemms):
    """With their own memory on the device."""

    def __init__(self, inputs: Inputs) -> None:
        new = inputs.queue.new_empty
        super().__init__(inputs, new(inputs.shape.n, inputs.shape.k))
        self.out = new(inputs.shape.n, inputs.shape.d)
