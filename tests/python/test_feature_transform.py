"""FeatureTransform: which steps are mixed and how much, the same numbers as info_nce draws, one graph, its state."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch._dynamo.testing
from support import BACKENDS, assert_close, batch, bound, cpu_only, gradients, rng_state

import flashnce
from flashnce.torch import PRESETS, FeatureTransform, InfoNCE, Mix, Queue, info_nce

POSITIVE, NEGATIVE = PRESETS["ft"]


def walk(transform, steps):
    """The strength of each of the first steps."""
    seen = []
    for _ in range(steps):
        seen.append(transform.strength)
        transform.step()
    return seen


def test_the_schedule_starts_grows_and_stops():
    assert walk(FeatureTransform(), 2) == [1, 1]
    assert walk(FeatureTransform(start=2), 4) == [0, 0, 1, 1]
    assert walk(FeatureTransform(start=1, ramp=4, stop=6), 8) == [0, 0.25, 0.5, 0.75, 1, 1, 0, 0]


def test_epochs_are_what_counts_where_unit_says_so():
    transform = FeatureTransform(start=1, ramp=2, unit="epoch")
    seen = []
    for _ in range(3):
        seen.append(walk(transform, 2))
        transform.next_epoch()
    assert seen == [[0, 0], [0.5, 0.5], [1, 1]]


def test_numbers_are_those_that_info_nce_draws_from_the_same_seed():
    q, k, negatives = batch()
    transform, criterion = FeatureTransform(seed=3), InfoNCE(0.2)
    losses = []
    for _ in range(3):
        loss = criterion(q, k, negatives, **transform())
        drawn = info_nce(
            q, k, negatives, temperature=0.2, positive=POSITIVE, negative=NEGATIVE, seed=transform.seed_of_step()
        )
        assert loss.item() == drawn.item()
        assert torch.equal(*gradients(loss, q), *gradients(drawn, q))
        losses.append(loss.item())
        transform.step()
    assert len(set(losses)) == 3


def test_a_ramp_goes_from_no_mixing_to_all_of_it():
    transform = FeatureTransform(start=1, ramp=4, seed=3)
    transform.step()
    for strength in (0.25, 0.5, 0.75, 1.0, 1.0):
        given, seed = transform(), transform.seed_of_step()
        for name, side, mix in (("lambda_pos", "positive", POSITIVE), ("lambda_neg", "negative", NEGATIVE)):
            whole = flashnce.sample_lambda(side, mix, 1, 1, seed=seed)[0]
            assert given[name].item() == pytest.approx(1 + strength * (whole - 1), rel=1e-6)
        transform.step()


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_before_the_start_the_loss_is_that_of_plain_columns(temperature):
    q, k, negatives = batch()
    criterion = InfoNCE(temperature)
    loss, plain = criterion(q, k, negatives, **FeatureTransform(start=1)()), criterion(q, k, negatives)
    assert_close(loss, plain, bound(temperature))
    assert_close(*gradients(loss, q), *gradients(plain, q), bound(temperature))


def test_switching_and_other_mixes_hold_from_the_next_call_on():
    q, k, negatives = batch()
    criterion, transform = InfoNCE(0.2), FeatureTransform(seed=1)
    mixed = criterion(q, k, negatives, **transform()).item()
    transform.enabled = False
    plain = criterion(q, k, negatives).item()
    assert criterion(q, k, negatives, **transform()).item() == pytest.approx(plain, rel=1e-5)
    transform.enabled = True
    assert criterion(q, k, negatives, **transform()).item() == mixed
    transform.positive, transform.negative = Mix(0.7, shift=1.0), Mix(9.0)
    expected = info_nce(
        q, k, negatives, temperature=0.2, positive=Mix(0.7, shift=1.0), negative=Mix(9.0), seed=transform.seed_of_step()
    )
    assert criterion(q, k, negatives, **transform()).item() == expected.item() != mixed
    transform.negative = None
    expected = info_nce(
        q, k, negatives, temperature=0.2, positive=Mix(0.7, shift=1.0), seed=transform.seed_of_step()
    )
    assert criterion(q, k, negatives, **transform()).item() == expected.item()


def test_elementwise_and_renormalised_mixes():
    q, k, negatives = batch()
    criterion = InfoNCE(0.2)
    elementwise = FeatureTransform(start=1, preset="ft-elementwise", seed=1)
    plain = criterion(q, k, negatives)
    assert criterion(q, k, negatives, **elementwise()).item() == plain.item()
    # A criterion of its own does not mix either before the schedule starts.
    other = InfoNCE(0.2, "ft-elementwise", columns="union")
    assert other(q, k, negatives, **elementwise()).item() == plain.item()
    elementwise.step()
    renormalised = FeatureTransform(positive=Mix(2.0, shift=1.0, renormalize=True), seed=1)
    for transform in (elementwise, renormalised):
        expected = info_nce(
            q, k, negatives, temperature=0.2, positive=transform.positive, negative=transform.negative,
            seed=transform.seed_of_step(),
        )  # fmt: skip
        assert criterion(q, k, negatives, **transform()).item() == expected.item()


@pytest.mark.parametrize("preset", ["ft", "ft-elementwise"])
def test_a_union_counts_each_negative_once_before_the_start(preset):
    q, k, negatives = batch()
    transform = FeatureTransform(start=1, stop=2, preset=preset, columns="union", seed=1)
    for step in range(3):
        loss, scores = info_nce(q, k, negatives, temperature=0.2, return_scores=True, **transform())
        if step == 1:
            expected = info_nce(
                q, k, negatives, temperature=0.2, positive=transform.positive, negative=transform.negative,
                columns="union", seed=transform.seed_of_step(),
            )  # fmt: skip
            assert loss.item() == expected.item()
        else:
            assert_close(loss, info_nce(q, k, negatives, temperature=0.2), bound(0.2))
        assert (scores.mixed.neg_count == (1 + (step == 1)) * len(negatives)).all()
        transform.step()
    with pytest.raises(ValueError, match="columns is 'queue'"):
        FeatureTransform(columns="queue")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_schedule_is_one_graph(backend):
    torch._dynamo.reset()
    q, k, negatives = batch()
    criterion, transform = InfoNCE(0.2), FeatureTransform(start=2, ramp=3, seed=5)
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(lambda: criterion(q, k, negatives, **transform()), fullgraph=True, backend=counter)
    for step in range(9):
        if step == 6:
            transform.positive = Mix(0.5, shift=1.0)
        transform.enabled = step != 8
        assert compiled().item() == criterion(q, k, negatives, **transform()).item()
        transform.step()
    assert counter.frame_count == 1


def test_evaluation_is_not_mixed_unless_asked_for():
    assert FeatureTransform().eval()() == {}
    assert set(FeatureTransform(mix_in_eval=True).eval()()) == {"lambda_pos", "lambda_neg", "columns", "seed"}


def test_state_continues_the_run():
    q, k, negatives = batch()
    criterion, transform = InfoNCE(0.2), FeatureTransform(start=2, ramp=4, seed=8)
    for _ in range(3):
        transform.step()
    transform.next_epoch()
    model = torch.nn.ModuleDict({"transform": transform, "queue": Queue(4, 2)})
    saved = pickle.loads(pickle.dumps(model.state_dict()))
    other = torch.nn.ModuleDict({"transform": FeatureTransform(start=2, ramp=4), "queue": Queue(4, 2)})
    assert other.load_state_dict(saved).missing_keys == []
    for _ in range(3):
        pair = [criterion(q, k, negatives, **one()).item() for one in (transform, other["transform"])]
        assert pair[0] == pair[1]
        transform.step()
        other["transform"].step()
    assert (other["transform"].steps, other["transform"].epochs) == (6, 1)
    assert not list(transform.buffers()) and not list(transform.parameters())


def test_copies_are_apart():
    transform = FeatureTransform(seed=2)
    twin = copy.deepcopy(transform)
    before = twin()["lambda_pos"].item()
    transform.step()
    assert twin()["lambda_pos"].item() == before != transform()["lambda_pos"].item()


@cpu_only
def test_a_lambda_stays_float32_and_follows_the_device():
    transform = FeatureTransform(seed=2)
    expected = transform()["lambda_pos"].item()
    given = transform.half()()
    assert given["lambda_pos"].dtype == torch.float32 and given["lambda_pos"].item() == expected
    moved = transform.to("meta")()
    tensors = [value for value in moved.values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 3 and {value.device.type for value in tensors} == {"meta"}


def test_ranks_draw_apart_unless_shared(monkeypatch):
    def seeds(rng):
        found = []
        for rank in range(4):
            monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            transform = FeatureTransform(seed=7, rng=rng)
            for _ in range(50):
                found.append(transform.seed_of_step())
                transform.step()
        return found

    assert len(set(seeds("rank"))) == 200
    assert len(set(seeds("shared"))) == 50


def test_a_given_seed_draws_nothing_from_the_generator():
    before = rng_state()
    FeatureTransform(seed=0)
    assert torch.equal(rng_state(), before)
    torch.manual_seed(1)
    drawn = FeatureTransform().seed
    torch.manual_seed(1)
    assert FeatureTransform().seed == drawn != FeatureTransform().seed


WRONG = [
    ({"start": -1}, ValueError, "start is -1"),
    ({"start": 0.5}, TypeError, "start is a float"),
    ({"ramp": "a"}, TypeError, "ramp is a str"),
    ({"stop": -3}, ValueError, "stop is -3"),
    ({"unit": "batch"}, ValueError, "unit is 'batch'"),
    ({"preset": "simclr"}, ValueError, "preset is 'simclr'"),
    ({"positive": 2.0}, TypeError, "positive is a float"),
    ({"negative": Mix(1.0, per="element"), "ramp": 2}, ValueError, "ramp is 2 and negative has per='element'"),
    ({"seed": -1}, ValueError, "seed is -1"),
    ({"seed": 2**63}, ValueError, f"seed is {2**63}"),
    ({"rng": "all"}, ValueError, "rng is 'all'"),
    ({"mix_in_eval": 1}, TypeError, "mix_in_eval is a int"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG)
def test_wrong_arguments(arguments, kind, words):
    with pytest.raises(kind, match=words.replace("(", r"\(")):
        FeatureTransform(**arguments)


def test_a_wrong_mix_or_switch_changes_nothing():
    transform = FeatureTransform(ramp=4, seed=1)
    numbers = lambda: {name: value.item() for name, value in transform().items() if name != "columns"}  # noqa: E731
    before = numbers()
    for name, value in (("positive", 2.0), ("negative", Mix(1.0, per="row")), ("enabled", 1)):
        with pytest.raises((TypeError, ValueError), match=name):
            setattr(transform, name, value)
    assert numbers() == before
    assert math.isclose(transform.strength, 0.25) and transform.negative == NEGATIVE
