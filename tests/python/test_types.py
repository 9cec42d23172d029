"""Element types: float32, float16 and bfloat16 features with queues of each, gradients in the type of the features.

What a 16-bit tensor holds is exact, so the truth is flashnce.reference of the same tensors, in float64. Beside the one
rule of support.py come half a unit of the type of a gradient and, with a bfloat16 queue, the rounding of anchors and
softmax weights by processors that multiply bfloat16: BFLOAT16_UNIT in place of the units of float32. A GPU's matrix
units multiply float16, too, and round mixed rows that they multiply: typed_bound asks the plan.
"""

from __future__ import annotations

import pytest
import torch
from support import (
    BACKENDS, assert_close, batch, bound, generator, gradients, largest_score, reference_of, scores_call, typed_bound,
)  # fmt: skip
from torch.library import opcheck
from torch.nn.functional import normalize

from flashnce.torch import PRESETS, InfoNCE, Mix, Queue, _call, info_nce, scores

TYPES = (torch.float32, torch.float16, torch.bfloat16)
HALVES = TYPES[1:]


def typed_batch(features: torch.dtype, queue: torch.dtype, *sizes: int):
    q, k, negatives = batch(*sizes)
    return q.detach().to(features).requires_grad_(), k.to(features).requires_grad_(), negatives.to(queue)


@pytest.mark.parametrize("columns", [None, "union"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("queue", TYPES)
@pytest.mark.parametrize("features", TYPES)
def test_loss_gradients_and_scores_of_every_combination(features, queue, preset, columns):
    positive, negative = PRESETS[preset]
    columns = None if negative is None else columns
    q, k, negatives = typed_batch(features, queue, 40, 200, 24)
    full = q.detach().double().requires_grad_(), k.detach().double().requires_grad_()
    tau, tau_reference = (torch.tensor(0.2, requires_grad=True) for _ in range(2))
    options = {"detach_key": False, "columns": columns, "seed": 5, "return_scores": True}
    loss, found = info_nce(q, k, negatives, temperature=tau, positive=positive, negative=negative, **options)
    expected, mixed, unmixed = reference_of(*full, negatives, positive, negative, temperature=tau_reference, **options)
    tolerance = typed_bound(queue, 0.2, largest_score(mixed))
    assert loss.dtype == torch.float32
    assert_close(loss, expected, tolerance, "loss")
    actual, wanted = gradients(loss, q, k, tau), gradients(expected, *full, tau_reference)
    for name, a, b in zip(("dq", "dk"), actual, wanted):
        assert a.dtype == features
        assert_close(a, b, tolerance + torch.finfo(features).eps / 2, name)
    assert_close(actual[2], wanted[2], tolerance, "dtemperature")
    for statistics, truth in ((found.mixed, mixed), (found.unmixed, unmixed)):
        for name in ("pos", "neg_mean", "neg_variance", "neg_min", "neg_max", "neg_log_mean_exp"):
            assert_close(getattr(statistics, name), truth[name], tolerance, name)
        assert torch.equal(statistics.neg_count, truth["neg_count"])
    assert_close(found.mixed.entropy, mixed["entropy"], tolerance, "entropy")


@pytest.mark.parametrize("queue", TYPES)
@pytest.mark.parametrize("features", TYPES)
def test_scores_alone_of_every_combination(features, queue):
    q, k, negatives = typed_batch(features, queue)
    found = scores(q, k, negatives)
    expected = reference_of(q, k, negatives, detach_key=True, return_scores=True)[2]
    # The reported score of the positive is not rounded, whatever the ranks compare with.
    assert_close(found.pos, expected["pos"], bound(1.0), "pos")
    for name in ("neg_mean", "neg_variance", "neg_min", "neg_max", "neg_log_mean_exp"):
        assert_close(getattr(found, name), expected[name], typed_bound(queue, 0.07), name)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("queue", TYPES)
@pytest.mark.parametrize("features", HALVES)
def test_features_are_read_as_they_are_and_gradients_rounded_once(features, queue, preset):
    q, k, negatives = typed_batch(features, queue)
    q_full, k_full = (x.detach().float().requires_grad_() for x in (q, k))
    criterion = InfoNCE(0.2, preset, detach_key=False)
    losses = criterion(q, k, negatives, seed=1), criterion(q_full, k_full, negatives, seed=1)
    assert losses[0].item() == losses[1].item()
    upstream = torch.tensor(1.7)
    halves = gradients(losses[0], q, k, upstream=upstream)
    for half, full in zip(halves, gradients(losses[1], q_full, k_full, upstream=upstream), strict=True):
        assert torch.equal(half, full.to(features))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_float16_queue_is_the_float32_queue_of_its_values(preset):
    q, k, negatives = typed_batch(torch.float32, torch.float16)
    criterion = InfoNCE(0.2, preset, detach_key=True)
    losses = [criterion(q, k, queue, seed=1) for queue in (negatives, negatives.float())]
    assert_close(losses[0], losses[1], typed_bound(torch.float16, 0.2))
    assert_close(*(gradients(loss, q)[0] for loss in losses), typed_bound(torch.float16, 0.2))


@pytest.mark.parametrize("types", [(torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)])
def test_q_and_k_of_two_types_are_computed_in_float32(types):
    q, k, negatives = batch()
    q, k = q.detach().to(types[0]).requires_grad_(), k.to(types[1]).requires_grad_()
    loss = info_nce(q, k, negatives, detach_key=False)
    assert loss.item() == info_nce(q.float(), k.float(), negatives, detach_key=False).item()
    assert [gradient.dtype for gradient in gradients(loss, q, k)] == list(types)


def test_a_gradient_beyond_float16_is_infinite_and_a_small_one_not_lost():
    q, k, negatives = batch()
    half = q.detach().half().requires_grad_()
    loss = info_nce(half, k.half(), negatives)
    assert torch.isinf(gradients(loss * 1e9, half)[0]).any()
    # Below the normal numbers of float16 what is left is half of their smallest step.
    full = half.detach().float().requires_grad_()
    expected = gradients(info_nce(full, k.half().float(), negatives) * 1e-4, full)[0]
    assert (gradients(loss * 1e-4, half)[0].float() - expected).abs().max() <= 2.0**-25


@pytest.mark.parametrize("queue_type", HALVES)
@pytest.mark.parametrize("key_type", TYPES)
def test_pushed_keys_are_normalised_in_float32_and_rounded_once(key_type, queue_type):
    full, half = Queue(16, 6), Queue(16, 6, dtype=queue_type)
    assert half.queue.dtype == queue_type and "dtype=torch." in repr(half)
    for count in (5, 20, 3):
        keys = (3 * torch.randn(count, 6)).to(key_type)
        full.push(keys)
        half.push(keys)
    assert torch.equal(half.queue, full.queue.to(queue_type)) and half.position.item() == full.position.item()
    keys = torch.randn(2, 6)
    half.push(keys, normalize=False)
    assert torch.equal(half.queue[12:14], keys.to(queue_type))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_collapsed_encoder_scores_no_hit_in_any_type(dtype):
    queue, row = Queue(50, 24, dtype=dtype), torch.randn(1, 24, generator=generator(4))
    queue.push(row.expand(50, 24))
    q = row.expand(6, 24)
    _, found = InfoNCE(0.2)(q, q, queue, return_scores=True)
    for rank in (found.mixed, scores(q, q, queue)):
        assert (rank.n_greater == 0).all() and (rank.n_greater_equal == 50).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_states_go_from_type_to_type(dtype):
    full, half = Queue(9, 4), Queue(9, 4, dtype=dtype)
    full.push(torch.randn(5, 4))
    half.load_state_dict(full.state_dict())
    assert half.queue.dtype == dtype and torch.equal(half.queue, full.queue.to(dtype))
    again = Queue(9, 4)
    again.load_state_dict(half.state_dict())
    assert again.queue.dtype == torch.float32 and torch.equal(again.queue, half.queue.float())
    rows = normalize(torch.randn(9, 4), dim=1)
    half.load_state_dict({"queue": rows.T.contiguous(), "queue_ptr": torch.tensor([6])})
    assert torch.equal(half.queue, rows.to(dtype)) and half.position.tolist() == [6]
    assert half.to(torch.float32).queue.dtype == torch.float32


@pytest.mark.parametrize("queue_type", TYPES)
@pytest.mark.parametrize("dtype", HALVES)
def test_under_autocast_nothing_is_cast(dtype, queue_type):
    _, k, negatives = batch(16, 64, 12)
    encoder = torch.nn.Linear(12, 12)
    negatives = negatives.to(queue_type)
    with torch.autocast(torch.get_default_device().type, dtype=dtype):
        features = encoder(k)
        assert features.dtype == dtype
        loss = info_nce(features, features.detach(), negatives)
        raw = scores(features, features.detach(), negatives)
    assert loss.dtype == torch.float32 and loss.item() == info_nce(features, features.detach(), negatives).item()
    assert torch.equal(raw.neg_mean, scores(features, features.detach(), negatives).neg_mean)
    loss.backward()
    assert encoder.weight.grad.dtype == torch.float32 and encoder.weight.grad.abs().max() > 0


@pytest.mark.parametrize("queue", TYPES)
@pytest.mark.parametrize("features", HALVES)
def test_opcheck(features, queue):
    q, k, negatives = typed_batch(features, queue, 4, 10, 6)
    structure = _call.Structure(1, 1, 0, 2, 0, 1, 0, 1, 3, 1, 1, 1)
    temperature = torch.tensor(0.3, requires_grad=True)
    inputs = _call.Inputs(q, k, negatives, temperature=temperature, seed=torch.tensor([7]), offset=4)
    opcheck(torch.ops.flashnce.info_nce_forward.default, (*inputs, list(structure), [1.0, 2.0, 1.0, 1.6, 0.0]))
    opcheck(torch.ops.flashnce.scores.default, scores_call(q.detach(), k.detach(), negatives))
    position = torch.tensor([6])
    opcheck(torch.ops.flashnce.queue_push.default, (negatives, position, k.detach()), {"normalize": True})


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_typed_training_step_compiles_without_graph_breaks(backend):
    torch._dynamo.reset()
    _, x, _ = batch(16, 1, 12)
    encoder, criterion = torch.nn.Linear(12, 12).bfloat16(), InfoNCE(0.2, "ft")
    rings = [Queue(64, 12, dtype=torch.bfloat16, generator=generator(1)) for _ in range(2)]

    def step(x, queue):
        q, k = encoder(x), encoder(x + 1).detach()
        loss = criterion(q, k, queue, seed=3)
        queue.push(k)
        return loss

    results = []
    for function, ring in zip((step, torch.compile(step, fullgraph=True, backend=backend)), rings):
        encoder.zero_grad()
        loss = function(x.bfloat16(), ring)
        loss.backward()
        results.append((loss.item(), encoder.weight.grad.clone()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-2)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=5e-2, atol=1e-3)
    torch.testing.assert_close(rings[1].queue, rings[0].queue, rtol=2e-2, atol=1e-2)


def test_types_that_there_are_not():
    q, k, negatives = batch()
    for dtype in (torch.float64, torch.int32, torch.float8_e4m3fn):
        with pytest.raises(TypeError, match="negatives has type .*float32, float16 or bfloat16"):
            info_nce(q, k, negatives.to(dtype))
        with pytest.raises(TypeError, match="dtype is .*float32, torch.float16 or torch.bfloat16"):
            Queue(8, 4, dtype=dtype)
    with pytest.raises(TypeError, match="lambda_pos has type torch.bfloat16; it must be float32"):
        info_nce(q, k, negatives, lambda_pos=torch.ones(1, dtype=torch.bfloat16), positive=Mix(1.0))
