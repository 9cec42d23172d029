"""The feature transformation as a schedule: when features are mixed, and how much, without a new criterion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._options import PRESETS, Mix, choice, flag, integer, mix_or_none
from ._arguments import own_rank

# Odd numbers, so that no two steps and no two ranks of a run have one seed.
_STEP_FACTOR = 0x9E3779B97F4A7C15
_RANK_FACTOR = 0xD1B54A32D192ED03
_SEED_MASK = 2**63 - 1


def _count(name: str, value: object) -> int:
    value = integer(name, value)
    if value < 0:
        raise ValueError(f"{name} is {value}; it must be at least 0")
    return value


class FeatureTransform(nn.Module):
    """When and how much features are mixed: what it returns are keyword arguments of InfoNCE and info_nce.

        criterion, transform = InfoNCE(temperature=0.2), FeatureTransform(start=1000, ramp=500)
        loss = criterion(q, k, queue, **transform())
        ...
        transform.step()                       # after each training step

    The numbers that a Mix of per="call" draws, equations (2) and (3), lie on the device, and so do the numbers of no
    mixing: nothing in a criterion or in a compiled graph changes with the schedule. They are drawn on the host by
    step() and are a function of seed and step alone, the same that info_nce draws from this step's seed. With another
    `per` the Mix itself is returned, and None where features are not mixed: under torch.compile that is one graph
    more, and one for each other Mix. Columns are returned with negatives that are mixed, and win over a criterion's.

    Args:
        start: the first step whose features are mixed, counted from 0.
        ramp: over how many steps the mixing grows. With strength s = 1/ramp, 2/ramp, ... 1, lambda is
            1 + s (lambda - 1): lambda = 1 is no mixing. Needs per="call".
        stop: the first step whose features are not mixed any more, or None.
        unit: what start, ramp and stop count: "step", calls of step(), or "epoch", calls of next_epoch().
        preset: "ft" | "ft-elementwise" | "moco" gives both Mix of PRESETS; `positive` and `negative`, where given, win.
        positive, negative: Mix of equations (2) and (3). The attributes of these names can be set between steps.
        columns: "mixed" | "union", equation (5), where negatives are mixed. Where they are not, each counts once, which
            under torch.compile is one graph more for "union".
        seed: an int in 0 .. 2^63-1, or None: drawn from torch's default generator.
        rng: "rank": each process of torch.distributed draws its own numbers; "shared": equal seeds give equal numbers,
            as a ShardedQueue needs them.
        mix_in_eval: whether features are mixed after .eval() as well.

    state_dict() holds one int64 tensor [4]: steps, epochs, seed, and whether `enabled`. It has no buffers, so that
    nothing averages or broadcasts them.

    Raises:
        TypeError, ValueError: an argument is wrong, in one sentence that names it.
    """

    def __init__(
        self,
        start: int = 0,
        ramp: int = 0,
        *,
        stop: int | None = None,
        unit: str = "step",
        preset: str = "ft",
        positive: Mix | None = None,
        negative: Mix | None = None,
        columns: str = "mixed",
        seed: int | None = None,
        rng: str = "rank",
        mix_in_eval: bool = False,
    ) -> None:
        super().__init__()
        choice("preset", preset, tuple(PRESETS))
        choice("unit", unit, ("step", "epoch"))
        choice("rng", rng, ("rank", "shared"))
        choice("columns", columns, ("mixed", "union"))
        flag("mix_in_eval", mix_in_eval)
        self.start, self.ramp = _count("start", start), _count("ramp", ramp)
        self.stop = None if stop is None else _count("stop", stop)
        if seed is None:
            seed = int(torch.randint(0, _SEED_MASK, (1,), dtype=torch.int64, device="cpu"))
        self.seed = _count("seed", seed)
        if self.seed > _SEED_MASK:
            raise ValueError(f"seed is {seed}; it must be in 0 .. 2^63-1")
        self.unit, self.rng, self.mix_in_eval, self.columns = unit, rng, mix_in_eval, columns
        self.steps = self.epochs = 0
        self._enabled = True
        self._mixes = {
            "positive": self._mix("positive", positive or PRESETS[preset][0]),
            "negative": self._mix("negative", negative or PRESETS[preset][1]),
        }
        self._device = torch.empty(0).device
        self._draw()

    def _mix(self, name: str, mix: object) -> Mix | None:
        mix_or_none(name, mix)
        if mix is not None and mix.per != "call" and self.ramp:
            raise ValueError(f"ramp is {self.ramp} and {name} has per={mix.per!r}; a ramp needs per='call'")
        return mix

    def _set(self, name: str, mix: object) -> None:
        self._mixes[name] = self._mix(name, mix)
        self._draw()

    @property
    def positive(self) -> Mix | None:
        """The Mix of positives at full strength. Setting it holds from the next call on."""
        return self._mixes["positive"]

    @positive.setter
    def positive(self, mix: Mix | None) -> None:
        self._set("positive", mix)

    @property
    def negative(self) -> Mix | None:
        """The Mix of negatives at full strength. Setting it holds from the next call on."""
        return self._mixes["negative"]

    @negative.setter
    def negative(self, mix: Mix | None) -> None:
        self._set("negative", mix)

    @property
    def enabled(self) -> bool:
        """False switches mixing off, whatever the schedule says. Setting it holds from the next call on."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        flag("enabled", value)
        self._enabled = value
        self._draw()

    @property
    def strength(self) -> float:
        """How much of the mixing this step has: 0 none, 1 all of it."""
        now = self.steps if self.unit == "step" else self.epochs
        if not self._enabled or now < self.start or (self.stop is not None and now >= self.stop):
            return 0.0
        return min(1.0, (now - self.start + 1) / self.ramp) if self.ramp else 1.0

    def step(self) -> None:
        """Goes on to the next training step, which draws numbers of its own. Waits for no device."""
        self.steps += 1
        self._draw()

    def next_epoch(self) -> None:
        """Goes on to the next epoch; start, ramp and stop count these with unit="epoch"."""
        self.epochs += 1
        self._draw()

    def seed_of_step(self) -> int:
        """What this step draws from: as info_nce's seed= it draws the same numbers."""
        rank = own_rank() if self.rng == "rank" else 0
        return (self.seed + self.steps * _STEP_FACTOR + rank * _RANK_FACTOR) & _SEED_MASK

    def _draw(self) -> None:
        """This step's numbers. Tensors are filled where they are, for graphs that hold them."""
        from .. import sample_lambda

        seed, strength = self.seed_of_step(), self.strength
        if not hasattr(self, "_seed") or self._seed.device != self._device:
            self._seed = torch.empty(1, dtype=torch.int64, device=self._device)
            self._lambdas = {name: torch.empty(1, device=self._device) for name in self._mixes}
        self._seed.fill_(seed)
        for side, mix in self._mixes.items():
            if mix is not None and mix.per == "call":
                drawn = float(sample_lambda(side, mix, 1, 1, seed=seed)[0])
                self._lambdas[side].fill_(1 + strength * (drawn - 1))
        self._on = strength > 0

    def _apply(self, fn, recurse=True):
        """Follows the module to its device. The numbers keep their types: a lambda is float32."""
        super()._apply(fn, recurse)
        device = fn(torch.empty(0, device=self._device)).device
        if device != self._device:
            self._device = device
            self._draw()
        return self

    def forward(self) -> dict[str, Tensor | Mix | str | None]:
        """Keyword arguments of this step's call: lambda_pos, lambda_neg (float32 [1]), positive, negative, columns,
        seed."""
        if not (self.training or self.mix_in_eval):
            return {}
        given: dict[str, Tensor | Mix | str | None] = {}
        for side, name in (("positive", "lambda_pos"), ("negative", "lambda_neg")):
            mix = self._mixes[side]
            if mix is not None and mix.per == "call":
                given[name] = self._lambdas[side]
                if mix.renormalize:
                    given[side] = _RENORMALIZE
            elif mix is not None:
                given[side] = mix if self._on else None
        if self._mixes["negative"] is not None:
            given["columns"] = self._columns(always="lambda_neg" in given)
        if given:
            given["seed"] = self._seed
        return given

    def _columns(self, always: bool) -> str | None:
        """The columns of negatives that are mixed, where not `always`, while the schedule says so.

        Negatives that a lambda of 1 mixes are the plain ones: a union would count them twice. torch.compile makes a
        graph for each value of what is read here.
        """
        if always and self.columns == "mixed":
            return "mixed"
        off = "mixed" if always else None
        return self.columns if self._on else off

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.steps, self.epochs, self.seed, int(self._enabled)], dtype=torch.int64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        self.steps, self.epochs, self.seed, enabled = state.tolist()
        self._enabled = bool(enabled)
        self._draw()

    def extra_repr(self) -> str:
        return (
            f"start={self.start}, ramp={self.ramp}, stop={self.stop}, unit={self.unit!r}, positive={self.positive}, "
            f"negative={self.negative}"
        )


# Beside a lambda that is given only `renormalize` of a Mix counts; one object for all of them is one graph.
_RENORMALIZE = Mix(1.0, renormalize=True)
