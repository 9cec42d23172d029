"""The operators under opcheck and torch.compile."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from support import BACKENDS, batch
from torch.library import opcheck

from flashnce.torch import InfoNCE, Mix, Queue, _call, _ops, info_nce


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("reduction", [0, 1])
@pytest.mark.parametrize("scores", [0, 3])
def test_opcheck_forward(scores, reduction):
    q, k, negatives = batch(4, 10, 6)
    temperature = torch.tensor(0.3, requires_grad=True)
    structure = _ops.Structure(1, 1, 0, 2, 0, 1, 0, reduction, scores, 1, 1, 1)
    inputs = _call.Inputs(
        q, k.requires_grad_(), negatives, temperature=temperature, weight=torch.rand(4), lambda_neg=torch.rand(10, 1),
        seed=torch.tensor([7]), offset=4,
    )  # fmt: skip
    opcheck(torch.ops.flashnce.info_nce_forward.default, (*inputs, list(structure), [1.0, 2.0, 1.0, 1.6, 0.0]))


def test_opcheck_forward_without_options():
    q, k, negatives = batch(4, 10, 6)
    structure = _ops.Structure(1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0)
    opcheck(
        torch.ops.flashnce.info_nce_forward.default,
        (*_call.Inputs(q, k, negatives), list(structure), [0.3, 1.0, 0.0, 1.0, 0.0]),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 5])
def test_opcheck_scale(count, dtype):
    opcheck(torch.ops.flashnce.scale.default, (torch.randn(5, 3), torch.randn(count), dtype))


@pytest.mark.parametrize("n", [0, 3, 11])
def test_opcheck_push(n):
    opcheck(
        torch.ops.flashnce.queue_push.default,
        (torch.randn(8, 4), torch.tensor([6]), torch.randn(n, 4)),
        {"normalize": True},
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("preset", ["moco", "ft", "ft-elementwise"])
def test_a_training_step_compiles_without_graph_breaks(preset, backend):
    _, x, _ = batch(16, 1, 12)
    criterion, eager_queue = InfoNCE(0.2, preset), Queue(64, 12)
    encoder, queue = torch.nn.Linear(12, 12), Queue(64, 12)
    queue.load_state_dict(eager_queue.state_dict())

    def step(x, queue, seed):
        q, k = encoder(x), encoder(x + 1).detach()
        loss = criterion(q, k, queue, seed=seed)
        queue.push(k)
        return loss

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for i in range(3):
        seed = torch.tensor([i])
        losses, grads = [], []
        for function, ring in ((step, eager_queue), (compiled, queue)):
            encoder.zero_grad()
            loss = function(x, ring, seed)
            loss.backward()
            losses.append(loss.detach())
            grads.append(encoder.weight.grad.clone())
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(queue.queue, eager_queue.queue, rtol=1e-5, atol=1e-6)
        assert queue.position.item() == eager_queue.position.item() == 16 * (i + 1) % 64


@pytest.mark.parametrize("backend", BACKENDS)
def test_drawn_seeds_change_from_call_to_call(backend):
    q, k, negatives = batch()
    compiled = torch.compile(InfoNCE(0.2, "ft"), fullgraph=True, backend=backend)
    torch.manual_seed(0)
    first = [compiled(q, k, negatives).item() for _ in range(3)]
    torch.manual_seed(0)
    assert [compiled(q, k, negatives).item() for _ in range(3)] == first and len(set(first)) == 3


def test_options_scores_and_half_types_compile():
    q, k, negatives = batch()
    temperature = torch.tensor(0.3, requires_grad=True)
    options = {
        "positive": Mix(2.0, shift=1.0, per="row"), "lambda_neg": torch.rand(80, 1), "columns": "union",
        "permutation": torch.randperm(80), "weight": torch.rand(24), "reduction": "sum", "return_scores": True,
        "temperature": temperature, "seed": 5,
    }  # fmt: skip
    compiled = torch.compile(info_nce, fullgraph=True, backend="aot_eager")
    for dtype in (torch.float32, torch.bfloat16):
        loss, scores = compiled(q.to(dtype), k.to(dtype), negatives, **options)
        expected, expected_scores = info_nce(q.to(dtype), k.to(dtype), negatives, **options)
        assert loss.item() == expected.item()
        assert torch.equal(scores.mixed.n_greater, expected_scores.mixed.n_greater)
        assert torch.equal(scores.unmixed.neg_variance, expected_scores.unmixed.neg_variance)
        for a, b in zip(*(torch.autograd.grad(v, (q, temperature)) for v in (loss, expected))):
            torch.testing.assert_close(a, b)


def test_a_changing_temperature_and_lambda_make_two_graphs_at_most():
    torch._dynamo.reset()
    q, k, negatives = batch()
    criterion = InfoNCE(0.2)

    def attribute(value):
        criterion.temperature = value
        return criterion(q, k, negatives)

    for function in (
        lambda value: info_nce(q, k, negatives, temperature=value),
        lambda value: info_nce(q, k, negatives, lambda_pos=value),
        lambda value: info_nce(q, k, negatives, lambda_neg=value, permutation=order),
        attribute,
    ):
        order = torch.arange(len(negatives)).flip(0)
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(function, fullgraph=True, backend=counter)
        for i in range(12):
            value = 0.2 + 0.01 * i
            assert compiled(value).item() == function(value).item()
        assert counter.frame_count <= 2, counter.frame_count


def test_changing_sizes_and_integer_seeds_do_not_recompile_each_time():
    criterion = InfoNCE(0.2, "ft")
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(criterion, fullgraph=True, backend=counter)
    for n, seed in ((5, 10), (6, 11), (7, 12), (8, 13), (9, 14)):
        q, k, negatives = batch(n, 40 + n)
        assert compiled(q, k, negatives, seed=seed).item() == criterion(q, k, negatives, seed=seed).item()
    assert counter.frame_count <= 3


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_one_row_compiles_like_many(reduction, dynamic):
    criterion = InfoNCE(0.2, "ft", reduction=reduction)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for n in (8, 6, 1, 5, 1):
        q, k, negatives = batch(n)
        results = [function(q, k, negatives, seed=3, return_scores=True) for function in (criterion, compiled)]
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1].mixed.entropy, results[1][1].mixed.entropy)
        assert torch.equal(*(torch.autograd.grad(loss.sum(), q)[0] for loss, _ in results))


def test_what_is_wrong_in_a_compiled_call_is_said():
    q, k, negatives = batch()
    criterion = InfoNCE(0.2, "ft")
    wrong = (
        ("k has shape .3, 12.", {"k": k[:3]}),
        ("weight has shape", {"weight": torch.ones(3)}),
        ("temperature is a str", {"temperature": "0.1"}),
        ("generator is given, which torch.compile cannot trace; pass seed=", {"generator": torch.Generator()}),
    )
    for words, arguments in wrong:
        arguments = {"q": q, "k": k, "negatives": negatives} | arguments
        torch._dynamo.reset()
        with pytest.raises(Exception, match=words):
            torch.compile(criterion, fullgraph=True, backend="aot_eager")(**arguments)
        # Without fullgraph the call is made outside of the graph: it raises there, or it runs.
        compiled = torch.compile(criterion, backend="aot_eager")
        if "generator" in arguments:
            assert compiled(**arguments).isfinite()
        else:
            with pytest.raises((TypeError, ValueError), match=words):
                compiled(**arguments)



def test_changing_row_offsets_make_two_graphs_at_most():
    q, k, negatives = batch()
    options = {"positive": Mix(2.0, per="row"), "seed": 5}
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(info_nce, fullgraph=True, backend=counter)
    for at in (0, 24, 48, 72, 96):
        found = compiled(q, k, negatives, row_offset=at, **options)
        assert found.item() == info_nce(q, k, negatives, row_offset=at, **options).item()
    assert counter.frame_count <= 3
