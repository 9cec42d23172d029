"""clip_loss, equation (17), against the reference, for every option, type and way of taking gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import BACKENDS, BFLOAT16_UNIT, assert_close, batch, bound, generator, gradients

import flashnce
from flashnce import NO_COLUMN, _options, reference
from flashnce.torch import clip_loss

N, D, TAU = 40, 12, 0.2


def sides(n: int = N, dtype: torch.dtype = torch.float32):
    a, b, _ = batch(n, 1, D)
    return a.detach().to(dtype).requires_grad_(), b.to(dtype).requires_grad_()


def options_of(n: int = N) -> dict[str, dict]:
    own = generator(3)
    ids, b_ids = (torch.randint(0, 9, (n,), generator=own) for _ in range(2))
    ids[3] = b_ids[4] = NO_COLUMN
    a_bias, b_bias = (torch.randn(n, generator=own) for _ in range(2))
    weight = torch.rand(n, generator=own)
    a_bias[5] = b_bias[6] = -math.inf
    weight[2] = 0
    options = {
        "plain": {}, "ids": {"ids": ids}, "ids of both sides": {"ids": ids, "b_ids": b_ids},
        "bias of a": {"a_bias": a_bias}, "biases": {"a_bias": a_bias, "b_bias": b_bias}, "weight": {"weight": weight},
        "no normalisation": {"normalize": False}, "sum": {"reduction": "sum"}, "none": {"reduction": "none"},
    }  # fmt: skip
    return options | {"everything": {k: v for option in options.values() for k, v in option.items()}}


@pytest.mark.parametrize("name", options_of())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_loss_and_gradients_are_those_of_the_reference(name, dtype):
    options = options_of()[name]
    a, b = sides(dtype=dtype)
    temperature = torch.tensor(TAU, requires_grad=True)
    full = [x.detach().double().requires_grad_() for x in (a, b, temperature)]
    loss = clip_loss(a, b, temperature=temperature, **options)
    expected = reference.clip_loss(*full[:2], temperature=full[2], **options)
    # All have one sign, so that the parts of the temperature's gradient do not cancel.
    upstream = -torch.rand(expected.shape, generator=generator(8)) if expected.dim() else torch.tensor(-1.5)
    size = (full[0].norm(dim=1).max() * full[1].norm(dim=1).max()).item() if options.get("normalize") is False else 1
    allowed = bound(TAU, size)
    if dtype == torch.bfloat16:
        allowed = BFLOAT16_UNIT * (1 + size / TAU)
    assert_close(loss, expected, allowed)
    found = gradients(loss, a, b, temperature, upstream=upstream)
    wanted = gradients(expected, *full, upstream=upstream.double())
    written = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
    for x, y, kind in zip(found, wanted, (dtype, dtype, torch.float32)):
        assert x.dtype == kind
        assert_close(x, y, allowed + (0 if kind == torch.float32 else written), name)


def test_finite_differences_of_the_reference():
    a, b = (x.detach().double().requires_grad_() for x in sides(7))
    temperature = torch.tensor(TAU, dtype=torch.float64, requires_grad=True)
    options = options_of(7)["everything"] | {"reduction": "sum"}
    function = lambda a, b, t: reference.clip_loss(a, b, temperature=t, **options)  # noqa: E731
    assert torch.autograd.gradcheck(function, (a, b, temperature))


def test_a_learnable_logit_scale_gets_its_gradient():
    a, b = sides()
    log_scale = torch.tensor(math.log(5.0), requires_grad=True)
    full = log_scale.detach().double().requires_grad_()
    found = gradients(clip_loss(a, b, logit_scale=log_scale.exp()), log_scale)
    wanted = gradients(reference.clip_loss(a, b, temperature=1 / full.exp()), full)
    assert_close(found[0], wanted[0], bound(TAU))


def test_only_gradients_that_are_wanted_are_made():
    a, b = sides()
    both = gradients(clip_loss(a, b, temperature=TAU), a, b)
    assert torch.equal(gradients(clip_loss(a, b.detach(), temperature=TAU), a)[0], both[0])
    assert torch.equal(gradients(clip_loss(a.detach(), b, temperature=TAU), b)[0], both[1])
    assert not clip_loss(a.detach(), b.detach(), temperature=TAU).requires_grad
    with torch.no_grad():
        assert not clip_loss(a, b, temperature=TAU).requires_grad


def test_two_types_and_rows_that_are_not_dense():
    a, b = sides()
    wide = torch.stack([a.detach(), torch.zeros(N, D)], 2).flatten(1).requires_grad_()
    loss = clip_loss(wide[:, ::2], b.to(torch.bfloat16).float(), temperature=TAU)
    assert torch.equal(loss, clip_loss(a, b.to(torch.bfloat16), temperature=TAU))
    assert gradients(loss, wide)[0][:, 1::2].abs().max() == 0


def test_no_rows():
    a, b = torch.empty(0, D, requires_grad=True), torch.empty(0, D)
    assert clip_loss(a, b, temperature=TAU).isnan()
    loss = clip_loss(a, b, temperature=TAU, reduction="sum")
    assert loss.item() == 0 and gradients(loss, a)[0].shape == (0, D)
    assert clip_loss(a, b, temperature=TAU, reduction="none").shape == (0,)
    assert flashnce.clip_loss(np.empty((0, D), np.float32), np.empty((0, D), np.float32), return_da=True).da.size == 0


def test_padding_is_as_if_it_were_not_there():
    a, b = sides()
    options = {"temperature": TAU, "reduction": "sum"}
    pad = torch.full((3, D), math.nan)
    ids = torch.cat([torch.arange(N), torch.full((3,), NO_COLUMN)])
    padded = [torch.cat([x.detach(), pad]).requires_grad_() for x in (a, b)]
    weight = torch.cat([torch.ones(N), torch.zeros(3)])
    loss, expected = clip_loss(*padded, ids=ids, weight=weight, **options), clip_loss(a, b, **options)
    assert_close(loss, expected, bound(TAU))
    for x, y in zip(gradients(loss, *padded), gradients(expected, a, b)):
        assert_close(x[:N], y, bound(TAU))
        assert x[N:].abs().max() == 0


def test_derivatives_that_there_are_and_those_that_there_are_not():
    a, b = sides()
    function = lambda a: clip_loss(a, b.detach(), temperature=TAU)  # noqa: E731
    assert torch.equal(torch.func.grad(function)(a.detach()), gradients(function(a), a)[0])
    (gradient,) = torch.autograd.grad(function(a), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="flashnce.clip_loss has no second derivative.*reference.clip_loss"):
        torch.autograd.grad(gradient.sum(), a)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(function, (a.detach(),), (a.detach(),))
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.vmap(function)(torch.randn(2, N, D))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_without_graph_breaks(backend):
    a, b = sides()
    function = lambda a, b, t: clip_loss(a, b, temperature=t, ids=torch.arange(N) // 2)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    t = torch.tensor(TAU, requires_grad=True)
    for x, y in zip(gradients(compiled(a, b, t), a, b, t), gradients(function(a, b, t), a, b, t)):
        assert torch.equal(x, y)
    torch._dynamo.reset()


def test_opcheck():
    a, b = sides(6)
    ids = torch.arange(6) // 2
    rest, temperature = (1, 1, 1.0), torch.tensor(TAU, requires_grad=True)
    given = (a, b, temperature, torch.ones(6), ids, ids, torch.zeros(6), torch.zeros(6))
    torch.library.opcheck(torch.ops.flashnce.symmetric_forward.default, (*given, *rest))
    plain = [x.detach() for x in given]
    _, *sums = torch.ops.flashnce.symmetric_forward.default(*plain, *rest)
    for need in ([1, 1, 1], [0, 1, 0]):
        arguments = (*plain, *sums, torch.ones(1), need, *rest)
        torch.library.opcheck(torch.ops.flashnce.symmetric_backward.default, arguments)


@pytest.mark.parametrize("name", options_of())
def test_numpy_gives_the_bits_of_torch(name):
    options = options_of()[name]
    a, b = sides()
    temperature = torch.tensor(TAU, requires_grad=True)
    loss = clip_loss(a, b, temperature=temperature, **options)
    result = flashnce.clip_loss(
        a.detach().numpy(), b.detach().numpy(), temperature=TAU, return_da=True, return_db=True,
        return_dtemperature=True, **{k: v.numpy() if torch.is_tensor(v) else v for k, v in options.items()},
    )  # fmt: skip
    found = gradients(loss, a, b, temperature, upstream=torch.ones_like(loss))
    for x, y in zip((loss, *found), result):
        assert np.array_equal(x.detach().numpy(), y)
    assert flashnce.clip_loss(a.detach().numpy(), b.detach().numpy()).da is None


def test_wrong_arguments_of_numpy():
    a, b = (x.detach().numpy() for x in sides())
    for words, kind, wrong in [
        ("a has type", TypeError, {"a": a.astype(np.float64)}),
        ("b has shape", ValueError, {"b": b[1:]}),
        (r"^a\.shape\[1\] is 0", ValueError, {"a": a[:, :0], "b": b[:, :0]}),
        ("b_ids is given but ids is None", ValueError, {"b_ids": np.arange(N)}),
        ("ids has type", TypeError, {"ids": np.zeros(N, np.int32)}),
        ("b_bias has shape", ValueError, {"b_bias": np.zeros(3, np.float32)}),
        ("weight has type", TypeError, {"weight": np.zeros(N)}),
        ("temperature is 0", ValueError, {"temperature": 0.0}),
        ("return_da is a int", TypeError, {"return_da": 1}),
        ("threads is -1", ValueError, {"threads": -1}),
    ]:
        with pytest.raises(kind, match=words):
            flashnce.clip_loss(**{"a": a, "b": b, **wrong})


def test_the_workspace_is_far_below_the_logits():
    """Memory beyond inputs and gradients grows with N, never with N^2."""
    sizes = (1024, 4096, 16384)
    per_row = [_options.pairs_plan(n, 128, 1, 0, 1, 1, 1, 2, False, False).workspace_bytes / n for n in sizes]
    assert per_row[-1] <= 1.25 * per_row[0] and per_row[-1] * sizes[-1] <= 100e6
