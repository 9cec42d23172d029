"""Gradients as autograd users expect them: finite differences, two backwards, accumulation, what has a gradient."""

from __future__ import annotations

import functools

import pytest
import torch
from support import batch, gradients
from torch.autograd import gradcheck
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from flashnce import reference
from flashnce.torch import InfoNCE, Mix, Queue, ShardedQueue, _call, info_nce, scores

FT = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6), "seed": 3}


@pytest.mark.filterwarnings("ignore:Input #. requires gradient and is not a double precision")
@pytest.mark.parametrize("options", [{}, FT, {**FT, "columns": "union", "anchor": "query"}])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_finite_differences(options, reduction):
    q, k, negatives = batch(3, 12, 5)
    temperature = torch.tensor(0.8, requires_grad=True)
    assert gradcheck(
        lambda q, k, t: info_nce(q, k, negatives, temperature=t, detach_key=False, reduction=reduction, **options),
        (q, k.requires_grad_(), temperature),
        eps=1e-2,
        atol=1e-3,
        rtol=1e-2,
    )


def test_two_backwards_of_a_retained_graph_add_up():
    q, k, negatives = batch()
    loss = info_nce(q, k, negatives, **FT)
    loss.backward(retain_graph=True)
    once = q.grad.clone()
    loss.backward()
    assert torch.equal(q.grad, 2 * once)


def test_losses_accumulate_into_one_gradient():
    q, k, negatives = batch()
    first, second = info_nce(q, k, negatives), info_nce(q, k, negatives, **FT)
    separate = gradients(first, q)[0] + gradients(second, q)[0]
    (first + second).backward()
    assert torch.allclose(q.grad, separate, rtol=1e-6, atol=0)


def test_the_upstream_gradient_scales_each_row():
    q, k, negatives = batch()
    loss = info_nce(q, k, negatives, reduction="none")
    upstream = torch.arange(len(q), dtype=torch.float32)
    plain, scaled = gradients(loss.sum(), q)[0], gradients(loss, q, upstream=upstream)[0]
    assert torch.equal(scaled, upstream[:, None] * plain)


def test_an_upstream_gradient_beyond_float32_is_infinite_not_wrong():
    q, k, negatives = batch()
    (dq,) = gradients(info_nce(q, k, negatives) * 3e38 * 1e3, q)
    assert not torch.isfinite(dq[dq != 0]).any()


def test_a_push_between_forward_and_backward_does_not_touch_the_gradient():
    q, k, _ = batch(16, 64, 12)
    queue, criterion = Queue(64, 12), InfoNCE(0.2, "ft")
    (expected,) = gradients(criterion(q, k, queue, seed=1), q)
    loss = criterion(q, k, queue, seed=1)
    queue.push(torch.randn(64, 12))
    loss.backward()
    assert torch.equal(q.grad, expected)
    assert criterion(q, k, queue, seed=1).item() != loss.item()


@pytest.mark.parametrize("kind", [Queue, functools.partial(ShardedQueue, perm_block=16)])
def test_a_checkpointed_loss_whose_queue_has_moved_on_is_an_error(kind):
    q, k, _ = batch(16, 1, 12)
    queue, criterion = kind(64, 12), InfoNCE(0.2, "ft")

    def loss_of(q):
        return criterion(2 * q, k, queue, seed=3)

    (expected,) = gradients(loss_of(q), q)
    kept = checkpoint(loss_of, q, use_reentrant=False)
    assert torch.equal(gradients(kept, q)[0], expected)
    loss = checkpoint(loss_of, q, use_reentrant=False)
    queue.push(k)
    with pytest.raises(RuntimeError, match="queue has moved on.*leave the loss outside"):
        loss.backward()
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        checkpoint(loss_of, q, use_reentrant=True).backward()
    # Tensors that are saved elsewhere for a while are not computed again.
    with torch.autograd.graph.save_on_cpu():
        loss, expected = loss_of(q), gradients(loss_of(q), q)[0]
    queue.push(k)
    assert torch.equal(gradients(loss, q)[0], expected)


def test_the_key_has_a_gradient_only_on_request():
    q, k, negatives = batch()
    k.requires_grad_()
    info_nce(q, k, negatives, detach_key=True, **FT).backward()
    assert k.grad is None and q.grad is not None
    info_nce(q, k, negatives, detach_key=False, **FT).backward()
    assert k.grad.abs().max() > 0


@pytest.mark.parametrize("loss", [info_nce, InfoNCE(), reference.info_nce])
def test_a_key_that_requires_a_gradient_never_loses_it_without_a_word(loss):
    q, k, negatives = batch()
    expected = loss(q, k, negatives).item()
    k.requires_grad_()
    with pytest.raises(ValueError, match="k requires a gradient.*detach_key=False.*detach_key=True"):
        loss(q, k, negatives)
    with torch.no_grad():
        assert loss(q, k, negatives).item() == expected
    with pytest.raises(TypeError, match="detach_key is a str"):
        loss(q, k, negatives, detach_key="no")


def test_an_in_batch_loss_is_not_sent_to_a_loss_that_trains_another_model():
    q, k, _ = batch()
    k.requires_grad_()
    with pytest.raises(ValueError, match="negatives requires a gradient") as refused:
        info_nce(q, k, normalize(k, dim=1), detach_key=False)
    assert "detach()" not in str(refused.value)


def test_detached_inputs_give_a_detached_loss():
    q, k, negatives = batch()
    assert not info_nce(q.detach(), k, negatives).requires_grad
    assert not info_nce(q.detach(), k.requires_grad_(), negatives, detach_key=True).requires_grad
    with torch.no_grad():
        assert not info_nce(q, k, negatives).requires_grad
    with torch.inference_mode():
        assert info_nce(q, k, negatives).item() == info_nce(q.detach(), k, negatives).item()


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_learnable_temperature_keeps_its_shape(shape, reduction):
    q, k, negatives = batch()
    temperature = torch.full(shape, 0.3, requires_grad=True)
    info_nce(q, k, negatives, temperature=temperature, reduction=reduction).sum().backward()
    assert temperature.grad.shape == shape
    step = 1e-3
    around = [info_nce(q, k, negatives, temperature=0.3 + s, reduction="sum").item() for s in (-step, step)]
    assert temperature.grad.item() == pytest.approx((around[1] - around[0]) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_temperature_of_any_floating_type_has_a_gradient_of_that_type(shape, dtype):
    q, k, negatives = batch()
    temperature = torch.full(shape, 0.3, dtype=dtype, requires_grad=True)
    exact = temperature.detach().float().requires_grad_()
    losses = [info_nce(q, k, negatives, temperature=tau) for tau in (temperature, exact)]
    assert losses[0].item() == losses[1].item()
    (found,), (expected,) = (gradients(loss, tau) for loss, tau in zip(losses, (temperature, exact)))
    assert found.dtype == dtype and found.shape == shape and torch.equal(found, expected.to(dtype))
    alone = [scores(q, k, negatives, temperature=tau).neg_log_mean_exp for tau in (temperature, exact)]
    assert torch.equal(*alone)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
@pytest.mark.parametrize("kind", [torch.nn.Parameter, torch.Tensor.clone])
def test_a_model_may_be_cast_with_its_temperature(kind, cast):
    q, k, negatives = batch()
    criterion = getattr(InfoNCE(kind(torch.tensor([0.25]))), cast)()
    loss = criterion(q, k, negatives)
    assert loss.item() == InfoNCE(0.25)(q, k, negatives).item()
    loss.backward()
    for parameter in criterion.parameters():
        assert parameter.grad.dtype == parameter.dtype and parameter.grad != 0


def test_only_the_temperature_may_require_a_gradient():
    q, k, negatives = batch()
    temperature = torch.tensor(0.3, requires_grad=True)
    info_nce(q.detach(), k, negatives, temperature=temperature).backward()
    assert temperature.grad.item() != 0


@pytest.mark.parametrize("through_operator", [False, True])
def test_create_graph_is_no_error_until_something_is_differentiated_twice(through_operator):
    q, k, negatives = batch()
    temperature = torch.tensor(0.3, requires_grad=True)

    def loss_of(q, temperature):
        if not through_operator:
            return info_nce(q, k, negatives, temperature=temperature)
        structure = list(_call.Structure(1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1))
        inputs = _call.Inputs(q, k, negatives, temperature=temperature)
        return torch.ops.flashnce.info_nce_forward(*inputs, structure, [1.0, 1.0, 0.0, 1.0, 0.0])[0]

    expected = gradients(loss_of(q, temperature), q, temperature)
    found = torch.autograd.grad(loss_of(q, temperature), (q, temperature), create_graph=True)
    assert all(map(torch.equal, found, expected))
    # A penalty must not vanish from a sum, whichever way leads to it.
    for gradient in found:
        for total in (gradient.sum(), gradient.square().sum() + q.sum() + temperature):
            for wanted in ((q,), (temperature,), (q, temperature)):
                with pytest.raises(NotImplementedError, match="no second derivative.*reference.info_nce"):
                    torch.autograd.grad(total, wanted, retain_graph=True)
    upstream = torch.ones((), requires_grad=True)
    (dq,) = torch.autograd.grad(loss_of(q, temperature), q, upstream, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(dq.sum(), upstream)


def test_what_does_not_depend_on_the_gradient_is_differentiated_beside_it():
    q, k, negatives = batch()
    other = torch.ones(3, requires_grad=True)
    (dq,) = torch.autograd.grad(info_nce(q, k, negatives), q, create_graph=True)
    (found,) = torch.autograd.grad((dq.detach().sum() * other).sum(), other)
    assert torch.equal(found, dq.detach().sum().expand(3))


def test_an_input_may_be_changed_after_the_loss():
    q, k, negatives = batch()
    (expected,) = gradients(info_nce(q, k, negatives), q)
    loss = info_nce(q, k, negatives)
    with torch.no_grad():
        q.zero_()
    assert torch.equal(torch.autograd.grad(loss, q)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, FT])
def test_the_transforms_of_torch_func(options, dtype):
    q, k, negatives = batch(6, 20, 8)
    q, k = q.detach().to(dtype).requires_grad_(), k.to(dtype).requires_grad_()
    temperature = torch.tensor(0.3, requires_grad=True)
    given = {"detach_key": False, **options}

    def loss_of(q, k, temperature, reduction="mean"):
        return info_nce(q, k, negatives, temperature=temperature, reduction=reduction, **given)

    plain = (q.detach(), k.detach(), temperature.detach())
    loss = loss_of(q, k, temperature)
    expected = gradients(loss, q, k, temperature)
    assert all(map(torch.equal, torch.func.grad(loss_of, argnums=(0, 1, 2))(*plain), expected))
    value, pull = torch.func.vjp(loss_of, *plain)
    assert value.item() == loss.item() and all(map(torch.equal, pull(torch.ones(())), expected))
    (jacobian,) = torch.func.jacrev(lambda q: loss_of(q, *plain[1:], "none"), argnums=(0,))(plain[0])
    rows = loss_of(q, k, temperature, "none")
    for i, row in enumerate(rows):
        assert torch.equal(jacobian[i], torch.autograd.grad(row, q, retain_graph=True)[0])


def test_a_functional_call_and_statistics_under_torch_func():
    q, k, negatives = batch()
    encoder = torch.nn.Linear(12, 12)
    parameters = {name: x.detach() for name, x in encoder.named_parameters()}

    def loss_of(parameters):
        features = torch.func.functional_call(encoder, parameters, (q.detach(),))
        loss, statistics = info_nce(features, k, negatives, return_scores=True)
        return loss, statistics.mixed

    found, statistics = torch.func.grad(loss_of, has_aux=True)(parameters)
    loss, expected = info_nce(encoder(q.detach()), k, negatives, return_scores=True)
    loss.backward()
    assert all(torch.equal(found[name], x.grad) for name, x in encoder.named_parameters())
    assert torch.equal(statistics.n_greater, expected.mixed.n_greater)


def test_what_torch_func_cannot_do_is_said():
    q, k, negatives = batch()
    q, sharded = q.detach(), ShardedQueue(32, 12, perm_block=16)
    loss_of = lambda q: info_nce(q, k, negatives)  # noqa: E731
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.func.grad(lambda q: torch.func.grad(loss_of)(q).sum())(q)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jacfwd(torch.func.grad(loss_of))(q)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(loss_of, (q,), (q,))
    with pytest.raises(NotImplementedError, match="torch.vmap.*loop"):
        torch.vmap(loss_of)(torch.stack([q, q]))
    with pytest.raises(NotImplementedError, match="ShardedQueue.*torch.func"):
        torch.func.grad(lambda q: info_nce(q, k, sharded))(q)


def test_the_node_of_a_graph_has_the_name_of_the_loss():
    q, k, negatives = batch()
    assert info_nce(q, k, negatives).grad_fn.name() == "InfoNCEBackward"


def test_the_gradient_of_the_operator_itself_is_that_of_the_function():
    q, k, negatives = batch()
    structure = list(_call.Structure(1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0))
    operator = torch.ops.flashnce.info_nce_forward(
        *_call.Inputs(q, k, negatives), structure, [0.07, 1.0, 0.0, 1.0, 0.0]
    )
    (expected,) = gradients(info_nce(q, k, negatives), q)
    assert torch.equal(gradients(operator[0], q)[0], expected)
    assert not any(output.requires_grad for output in operator[1:])
