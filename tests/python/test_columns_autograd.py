"""Columns beyond the queue under what PyTorch switches on: transforms, checkpoints, scalers, torch.compile."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from columns_cases import OPTIONS, TAU, C, D, K, N, data, ids_of
from support import BACKENDS, assert_close, gradients
from torch.library import opcheck

from flashnce.torch import Mix, Queue, _call, clip_loss, info_nce


def test_a_push_between_forward_and_backward_does_not_touch_the_gradient():
    q, k, _, x_c = data()
    queue = Queue(K, D, ids=True)
    options = {"ids": torch.arange(N), "batch_ids": torch.arange(C), "batch": x_c, "detach_key": False}
    options |= {"positive": Mix(2.0, shift=1.0, per="row"), "negative": Mix(1.6), "seed": 2}
    expected = gradients(info_nce(q, k, queue, **options), q, k, x_c)
    loss = info_nce(q, k, queue, **options)
    queue.push(torch.randn(K, D), torch.arange(K))
    loss.backward()
    for x, gradient in zip((q, k, x_c), expected):
        assert torch.equal(x.grad, gradient)


def test_autocast_and_a_gradient_scaler():
    encoder, text = torch.nn.Linear(D, D), torch.nn.Linear(D, D)
    x = torch.randn(N, D)
    parameters = [*encoder.parameters(), *text.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        loss = clip_loss(encoder(x), text(x + 1), temperature=TAU)
    assert loss.dtype == torch.float32
    wanted = torch.autograd.grad(loss, parameters, retain_graph=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(loss).backward()
    optimizer = torch.optim.SGD(parameters, 0.1)
    scaler.unscale_(optimizer)
    for parameter, gradient in zip(parameters, wanted):
        assert_close(parameter.grad, gradient, 2.0**-6)


def test_no_second_derivative():
    q, k, _, _ = data()
    loss = info_nce(q, k, batch=True)
    for gradient in torch.autograd.grad(loss, (q, k), create_graph=True):
        with pytest.raises(NotImplementedError, match="no second derivative"):
            torch.autograd.grad(gradient.sum(), k, retain_graph=True)


def test_the_transforms_of_torch_func():
    q, k, negatives, x_c = data()
    options = {**OPTIONS["everything"], "detach_key": False}
    loss_of = lambda q, x_c: info_nce(q, k, negatives, batch=x_c, **options)  # noqa: E731
    wanted = gradients(loss_of(q, x_c), q, x_c)
    for actual, gradient in zip(torch.func.grad(loss_of, (0, 1))(q.detach(), x_c.detach()), wanted):
        assert torch.equal(actual, gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_jacrev_puts_many_upstream_gradients_into_one_call(dtype):
    q, k, negatives, x_c = data(5, K, 7, D, dtype)
    options = {**ids_of(5, K, 7), "margin": 0.3, "detach_key": False, "reduction": "none"}
    loss_of = lambda q, k, x_c: info_nce(q, k, negatives, batch=x_c, **options)  # noqa: E731
    found = torch.func.jacrev(loss_of, (0, 1, 2))(q.detach(), k.detach(), x_c.detach())
    for name, whole, x in zip(("q", "k", "batch"), found, (q, k, x_c)):
        rows = [torch.autograd.grad(row, x, retain_graph=True)[0] for row in loss_of(q, k, x_c)]
        assert torch.equal(whole, torch.stack(rows)) and whole.dtype == dtype, name
    # The batch is k: one input with two gradients.
    both = lambda k: info_nce(q.detach(), k, batch=True, reduction="none")  # noqa: E731
    rows = [torch.autograd.grad(row, k, retain_graph=True)[0] for row in both(k)]
    assert torch.equal(torch.func.jacrev(both)(k.detach()), torch.stack(rows))


def test_under_a_checkpoint():
    q, k, _, x_c = data()
    loss_of = lambda q, x_c: info_nce(q, k, batch=x_c, detach_key=False)  # noqa: E731
    wanted = gradients(loss_of(q, x_c), q, x_c)
    loss = torch.utils.checkpoint.checkpoint(loss_of, q, x_c, use_reentrant=False)
    for actual, gradient in zip(gradients(loss, q, x_c), wanted):
        assert torch.equal(actual, gradient)


def test_a_retained_graph_gives_its_gradients_twice():
    q, k, _, _ = data()
    loss = info_nce(q, k, batch=True)
    assert all(torch.equal(a, b) for a, b in zip(gradients(loss, q, k), gradients(loss, q, k)))


def test_opcheck():
    q, k, negatives, x_c = data(4, 10, 7, 6)
    structure = _call.Structure(1, 1, 0, 2, 0, 1, 0, 1, 1, 1, 1, 1, need_dbatch=1, margin_mask=1)
    inputs = _call.Inputs(
        q, k, negatives, temperature=torch.tensor(0.3, requires_grad=True), seed=torch.tensor([7]), batch=x_c,
        **ids_of(4, 10, 7),
    )  # fmt: skip
    numbers = [1.0, 2.0, 1.0, 1.6, 0.0, 0.1]
    opcheck(torch.ops.flashnce.info_nce_forward.default, (*inputs, list(structure), numbers))
    detached = _call.Inputs(*(x.detach() if isinstance(x, torch.Tensor) else x for x in inputs))
    plain = structure._replace(per_neg=0, columns=0, scores=0)
    detached = detached._replace(negatives=negatives[:0], negative_ids=None)
    opcheck(
        torch.ops.flashnce.columns_backward.default,
        (*detached, torch.randn(4), torch.tensor(1.0), list(plain), numbers),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_steps_compile_without_graph_breaks(backend):
    torch._dynamo.reset()
    encoder, eager_queue, queue = torch.nn.Linear(D, D), *(Queue(64, D, ids=True, empty=True) for _ in range(2))
    x = torch.randn(16, D)

    def step(x, queue, ids):
        q, k = encoder(x), encoder(x + 1)
        loss = info_nce(q, k, queue, batch=True, ids=ids, margin=0.5) + clip_loss(q, k, temperature=0.1)
        queue.push(k.detach(), ids)
        return loss

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for i in range(3):
        results = []
        for function, ring in ((step, eager_queue), (compiled, queue)):
            encoder.zero_grad()
            loss = function(x, ring, torch.arange(16) + i)
            loss.backward()
            results.append((loss.detach(), encoder.weight.grad.clone(), ring.ids.clone(), ring.queue.clone()))
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
