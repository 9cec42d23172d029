"""Where randomness comes from: torch's generators, explicit seeds, the rank."""

from __future__ import annotations

import pytest
import torch
from support import batch, generator, rng_state, set_rng_state

import flashnce
from flashnce.torch import InfoNCE, Mix, info_nce

FT = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6)}


def loss_of(**options) -> float:
    q, k, negatives = batch()
    return info_nce(q, k, negatives, **FT, **options).item()


def test_manual_seed_and_its_state_reproduce_the_draws():
    torch.manual_seed(11)
    first, state, second = loss_of(), rng_state(), loss_of()
    set_rng_state(state)
    assert loss_of() == second != first
    torch.manual_seed(11)
    assert loss_of() == first


def test_a_generator_of_its_own_leaves_the_default_one_alone():
    state = rng_state()
    a, b = (loss_of(generator=generator(s)) for s in (1, 1))
    assert a == b != loss_of(generator=generator(2))
    assert torch.equal(rng_state(), state)


@pytest.mark.parametrize("options", [{}, {"lambda_pos": 1.5}, {"lambda_neg": 0.5, "permutation": torch.arange(80)}])
def test_nothing_is_drawn_where_nothing_is_random(options):
    q, k, negatives = batch()
    state = rng_state()
    _, scores = info_nce(q, k, negatives, return_scores=True, **options)
    assert torch.equal(rng_state(), state) and scores.seed is None


def test_an_explicit_seed_is_used_as_it_is():
    largest = 2**64 - 1
    assert loss_of(seed=largest) == loss_of(seed=largest) == loss_of(seed=torch.tensor(-1))
    assert len({loss_of(seed=seed) for seed in (0, 1, 2**63, largest)}) == 4
    assert len({loss_of(seed=1, offset=offset) for offset in (0, 4, 8)}) == 3


def test_the_seed_that_is_reported_stays_when_the_given_one_moves_on():
    q, k, negatives = batch()
    seed = torch.tensor([3])
    _, scores = info_nce(q, k, negatives, positive=Mix(2.0), seed=seed, return_scores=True)
    seed.fill_(4)
    assert scores.seed.item() == 3


def test_ranks_draw_differently_from_equal_generators_unless_shared(monkeypatch):
    def of_rank(rank: int, **options) -> float:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        torch.manual_seed(7)
        return loss_of(**options)

    torch.manual_seed(7)
    alone = loss_of()
    by_rank = [of_rank(rank) for rank in range(8)]
    assert by_rank[0] == alone and len(set(by_rank)) == 8
    assert {of_rank(rank, rng="shared") for rank in range(4)} == {alone}
    assert {of_rank(rank, seed=3) for rank in range(4)} == {loss_of(seed=3)}


def test_what_a_seed_draws_can_be_inspected():
    permutation = flashnce.permutation(1000, seed=5)
    assert sorted(permutation) == list(range(1000)) and (permutation != range(1000)).any()
    assert (permutation == flashnce.permutation(1000, seed=5)).all()
    assert (permutation != flashnce.permutation(1000, seed=5, offset=4)).any()
    shapes = {"call": (1,), "row": (20, 1), "dimension": (1, 6), "element": (20, 6)}
    for per, shape in shapes.items():
        lambdas = flashnce.sample_lambda("positive", Mix(2.0, shift=1.0, per=per), 20, 6, seed=5)
        assert lambdas.shape == shape and (1 <= lambdas).all() and (lambdas <= 2).all()
        negative = flashnce.sample_lambda("negative", Mix(2.0, per=per), 20, 6, seed=5)
        assert (negative != lambdas - 1).any(), "the two sides draw from streams of their own"


def test_rows_draw_by_their_global_index():
    whole = flashnce.sample_lambda("positive", Mix(2.0, per="row"), 20, 6, seed=5)
    part = flashnce.sample_lambda("positive", Mix(2.0, per="row"), 8, 6, seed=5, first_row=12)
    assert (whole[12:] == part).all()


@pytest.mark.parametrize("preset", ["ft", "ft-elementwise"])
def test_threads_do_not_change_a_bit(preset):
    q, k, negatives = batch(64, 1000, 24)
    criterion = InfoNCE(0.2, preset)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            loss = criterion(q, k, negatives, seed=1)
            results.append((loss.item(), torch.autograd.grad(loss, q)[0]))
    finally:
        torch.set_num_threads(before)
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("per", ["call", "row", "dimension", "element"])
def test_micro_batches_draw_what_the_whole_batch_draws(per):
    q, k, negatives = batch(24, 64, 12)
    options = {"positive": Mix(2.0, shift=1.0, per=per), "negative": Mix(1.6, per=per), "reduction": "none"}
    whole, scores = info_nce(q, k, negatives, return_scores=True, seed=5, **options)
    parts = [
        info_nce(q[i : i + 8], k[i : i + 8], negatives, seed=scores.seed, row_offset=i, **options) for i in (0, 8, 16)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss.sum(), q)[0] for loss in (whole, torch.cat(parts))]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    shifted = info_nce(q[8:16], k[8:16], negatives, seed=5, **options)
    assert torch.equal(shifted, parts[1]) == (per in ("call", "dimension"))
