"""ShardedQueue on 3 and 2 processes: the draws, the ring and, within the tolerance, the results of one process."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch_device
from sharded_cases import CASES, SEED, TEMPERATURE, D, data_of, options_of, queue_of, rows_of
from support import assert_close, batch, bound, largest_score, typed_bound
from torch.nn.functional import normalize

import flashnce
from flashnce import reference
from flashnce.torch import InfoNCE, Mix, Queue, ShardedQueue, ignore_queues_in_ddp, info_nce, scores

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
HERE = Path(__file__).resolve().parent
WORLDS = (3, 2)


def run_world(world: int, folder: Path) -> list[dict]:
    """What each rank of a group of processes leaves."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(HERE / "sharded_worker.py")]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(world), str(folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * world, "\n".join(outputs)
    finally:
        for worker in workers:
            worker.kill()
    return [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)]


@pytest.mark.full
def test_the_example(tmp_path):
    """The example says itself whether its two trainings agree; the numbers that it prints say so too."""
    program = HERE.parents[1] / "examples" / "sharded_queue" / "train.py"
    command = [sys.executable, str(program), "--processes", "2", "--steps", "8", "--queue-size", "1024"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, _, *table, verdict = done.stdout.splitlines()
    assert first == "2 processes with shards of [512, 512] of 1024 negatives" and verdict.startswith("ok: ")
    assert [line.split()[0] for line in table] == [str(step) for step in range(8)]
    for line in table:
        _, sharded, alone, _ = map(float, line.split())
        assert sharded == pytest.approx(alone, rel=1e-4) and sharded > 0.1


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """By the number of processes; 2 processes go on from what 3 left."""
    folder = tmp_path_factory.mktemp("ranks")
    return {world: run_world(world, folder) for world in WORLDS}


def one_process(case, world: int, function) -> tuple[list[dict], list]:
    """Results of each rank's rows from `function` of all rows, and what it returns beside the losses."""
    q, k, negatives, weight, lambda_neg = data_of(case, world)
    q.requires_grad_(), k.requires_grad_()
    temperature = torch.tensor(TEMPERATURE, requires_grad=True)
    options = options_of(case, weight, lambda_neg) | {"reduction": "none", "return_scores": True}
    losses, *others = function(q, k, negatives, temperature=temperature, **options)
    results = []
    for rank in range(world):
        rows = rows_of(case, rank)
        reduction = case.options.get("reduction", "mean")
        loss = {"none": losses[rows], "mean": losses[rows].mean(), "sum": losses[rows].sum()}[reduction]
        gradients = torch.autograd.grad(loss.sum(), (q, k, temperature), retain_graph=True)
        results.append({
            "loss": loss.detach(), "dq": gradients[0][rows], "dk": gradients[1][rows], "dtemperature": gradients[2]
        })  # fmt: skip
    return results, others


def reference_in_blocks(case):
    """flashnce.reference with what the seed draws for blocks of the case's size."""

    def function(q, k, negatives, *, positive=None, negative=None, lambda_neg=None, **options):
        drawn = {"lambda_pos": None, "lambda_neg": lambda_neg}
        n, rows = len(q), len(negatives)
        if positive is not None:
            drawn["lambda_pos"] = torch.from_numpy(flashnce.sample_lambda("positive", positive, n, D, seed=SEED))
        if negative is not None:
            drawn["lambda_neg"] = torch.from_numpy(flashnce.sample_lambda("negative", negative, rows, D, seed=SEED))
        if drawn["lambda_neg"] is not None:
            permutation = flashnce.permutation(rows, seed=SEED, perm_block=case.perm_block)
            drawn["permutation"] = torch.from_numpy(permutation).long()
        return reference.info_nce(
            q, k, negatives, renormalize_pos=positive is not None and positive.renormalize,
            renormalize_neg=negative is not None and negative.renormalize, **drawn, **options,
        )  # fmt: skip

    return function


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_one_process_and_of_the_reference(ranks, name, world):
    case = CASES[name]
    expected, (mixed, unmixed) = one_process(case, world, reference_in_blocks(case))
    alone, (one,) = one_process(case, world, lambda q, k, _, **o: info_nce(q, k, queue_of(case), seed=SEED, **o))
    tolerance, weight = typed_bound(case.queue, TEMPERATURE, largest_score(mixed)), data_of(case, world)[3]
    unit = torch.finfo(case.features).eps if case.features != torch.float32 else 0.0
    for rank in range(world):
        actual, rows = ranks[world][rank]["cases"][name], rows_of(case, rank)
        for field, value in expected[rank].items():
            assert_close(actual[field], value, tolerance, f"{field} on rank {rank}")
            assert_close(actual[field], alone[rank][field], tolerance, f"{field} on rank {rank}, of one process")
        for statistics, of_one, which in ((mixed, one.mixed, "mixed"), (unmixed, one.unmixed, "unmixed")):
            # The reference replaces rows of weight 0 before it scores them.
            counted = torch.ones(case.rows[rank], dtype=torch.bool) if weight is None else weight[rows] != 0
            for field in set(statistics) & {name.removeprefix(f"{which}.") for name in actual}:
                found = actual[f"{which}.{field}"][counted]
                assert_close(found, statistics[field][rows][counted], tolerance, f"{which}.{field}")
            assert torch.equal(actual[f"{which}.pos"], of_one.pos[rows]), "the same lambda gives the same bits"
            exact = case.queue == torch.float32
            for field in ("neg_count", "n_greater", "n_greater_equal") if exact else ("neg_count",):
                assert torch.equal(actual[f"{which}.{field}"], getattr(of_one, field)[rows]), f"{which}.{field}"
        assert_close(actual["mixed.dq_norm"], actual["dq"].float().norm(dim=1), tolerance + unit, "dq_norm")
    assert expected[0]["dq"].abs().max() > 1e-6


@pytest.mark.parametrize("world", WORLDS)
def test_shards_draw_what_one_process_draws(ranks, world):
    mix = Mix(1.6, per="element")
    whole = {
        "permutation": torch.from_numpy(flashnce.permutation(85, seed=SEED, perm_block=16)),
        "lambda_neg": torch.from_numpy(flashnce.sample_lambda("negative", mix, 85, D, seed=SEED)),
    }
    for name, values in whole.items():
        assert torch.equal(torch.cat([rank["draws"][name] for rank in ranks[world]]), values), name
    assert len({len(rank["draws"]["permutation"]) for rank in ranks[world]}) > 1, "shards of different sizes"


def push_alone(queue: Queue, world: int, steps: range) -> None:
    """The pushes of sharded_worker, in one process: the keys of all ranks, in rank order."""
    for step in steps:
        keys = []
        for rank in range(world):
            generator = torch.Generator().manual_seed(100 * step + rank)
            keys.append(3 * torch.randn((3, 7, 0, 40, 1, 33)[(step + rank) % 6], D, generator=generator))
        queue.push(torch.cat(keys), normalize=step % 5 > 0)


def test_the_ring_is_that_of_one_process_and_can_be_sharded_again(ranks):
    queue = Queue(85, D)
    for world, steps in ((3, range(40)), (2, range(40, 60))):
        rings = [rank["ring"] for rank in ranks[world]]
        if world == 3:
            queue.queue.copy_(rings[0]["start"])
        push_alone(queue, world, steps)
        for ring in rings:
            assert torch.equal(ring["queue"], queue.queue) and torch.equal(ring["position"], queue.position)
        shards = [ring["state"][f"queue_{i}_of_{world}"] for i, ring in enumerate(rings)]
        assert torch.equal(torch.cat(shards), queue.queue)
    assert torch.equal(ranks[3][0]["ring"]["start"], ranks[2][0]["ring"]["start"]), "whatever the number of processes"
    left = {"queue": ranks[2][1]["ring"]["queue"], "position": ranks[2][1]["ring"]["position"]}
    alone, plain = ShardedQueue(85, D, perm_block=16), Queue(85, D)
    for ring in (alone, plain):
        ring.load_state_dict(left)
        ring.push(torch.ones(5, D))
    assert torch.equal(alone.queue, plain.queue) and torch.equal(alone.position, plain.position)


# The sentences where the last rank is the odd one out: on the others and on itself, in the words of both or of one.
ERRORS = {
    "features": "ValueError: features is 13 on rank {last} and 12 on rank 0",
    "size": "ValueError: size is 95 on rank {last} and 96 on rank 0",
    "perm_block": "ValueError: {on}perm_block is 24; it must be a multiple of 16",
    "dtype": "TypeError: {on}dtype is torch.float64",
    "keys": "ValueError: {on}keys has shape [4, 11]; it must be [N, 12]",
    "normalize of push": "ValueError: normalize is False on rank {last} and True on rank 0",
    "k": "ValueError: {on}k has shape [3, 12]",
    "ids": "ValueError: {on}ids is given but the negatives have none",
    "form": "ValueError: form is 'decoupled' on rank {last} and 'info_nce' on rank 0",
    "weight": "ValueError: {on}weight has shape [3]",
    "temperature": "ValueError: temperature is 0.25 on rank {last} and 0.2 on rank 0",
    "temperature tensor": "ValueError: temperature is 0.25 on rank {last} and 0.2 on rank 0",
    "wrong temperature": "ValueError: temperature is -1",
    "seed": "ValueError: seed is 2 on rank {last} and 1 on rank 0",
    "seed tensor": "ValueError: seed is 2 on rank {last} and 1 on rank 0",
    "seed or none": "ValueError: seed, in this call, is 'drawn' on rank {last} and 'given' on rank 0",
    "alpha": "ValueError: negative.alpha is 1.5 on rank {last} and 1.6 on rank 0",
    "per": "ValueError: positive.per is 'none' on rank {last} and 'call' on rank 0",
    "return_scores": "ValueError: return_scores is True on rank {last} and False on rank 0",
    "permutation": "ValueError: {on}permutation is given; with a ShardedQueue it must be None",
    "call": "ValueError: the call is 'push' on rank {last} and 'info_nce' on rank 0",
    "nothing": "nothing",
}


@pytest.mark.parametrize("world", WORLDS)
def test_a_replicated_queue_takes_the_keys_of_all_ranks(ranks, world):
    expected = Queue(20, D, generator=torch.Generator().manual_seed(1))
    for step in range(6):
        for rank in range(world):
            generator = torch.Generator().manual_seed(100 * step + rank)
            expected.push(torch.randn((3, 1, 0, 9)[(step + rank) % 4], D, generator=generator))
    for rank in range(world):
        found = ranks[world][rank]["gathered"]
        assert torch.equal(found["queue"], expected.queue) and torch.equal(found["position"], expected.position)
        assert "keys has shape [2, 11]" in found["keys"]
        assert found["type"].startswith(f"ValueError: the type of keys is 'torch.float16' on rank {world - 1}")


@pytest.mark.parametrize("world", WORLDS)
def test_unequal_ranks_end_with_an_error(ranks, world):
    for rank in range(world):
        found = ranks[world][rank]["unequal"]
        for name in ("keys", "q") if torch_device.is_cpu() else ():
            assert found[name].startswith(f"ValueError: the number of rows of {name} is 3 on rank {world - 1} and 4")
        assert found["join"].startswith("RuntimeError: keys or negatives are exchanged inside")
        assert found["join that throws"] == "nothing"


@pytest.mark.parametrize("world", WORLDS)
def test_what_is_wrong_on_one_rank_is_said_on_all(ranks, world):
    last = world - 1
    for rank, results in enumerate(ranks[world]):
        for name, sentence in ERRORS.items():
            expected = sentence.format(last=last, on="" if rank == last else f"on rank {last}: ")
            assert results["errors"][name].startswith(expected), f"{name} on rank {rank}: {results['errors'][name]}"


@pytest.mark.parametrize("world", WORLDS)
def test_what_one_rank_alone_can_see_is_said_there(ranks, world):
    for rank, results in enumerate(ranks[world]):
        found = results["errors"]
        assert ("group has no rank" in found["group"]) == (rank == world - 1)
        assert ("queue holds the rows from 0 on" in found["first_row"]) == (rank > 0)
        assert "position is 96; it must be in 0 .. 95" in found["position"]
        assert "size mismatch for queue" in found["shard size"]


@pytest.mark.parametrize("world", WORLDS)
def test_ddp_leaves_shards_alone_or_is_found_out(ranks, world):
    for rank, results in enumerate(ranks[world]):
        found = results["ddp"]
        assert found["kept"]
        for call in ("loss", "push", "full_queue"):
            assert "ShardedQueue on rank 1 are those of another rank" in found[call], found[call]
            assert "ignore_queues_in_ddp" in found[call]
        # Without the exchange of headers a rank looks at its own buffers, which on a GPU would be a wait.
        assert ("another rank" in found["unchecked"]) == (rank > 0 and torch_device.is_cpu())


@pytest.mark.parametrize("world", WORLDS)
def test_no_shard_is_lost_in_a_distributed_checkpoint(ranks, world):
    for rank, results in enumerate(ranks[world]):
        found = results["checkpoint"]
        assert found["loaded"] and found["older"] and found["position"] == 4 * world
        assert found["names"] == [f"queue_{rank}_of_{world}", "position", f"first_row_{rank}_of_{world}"]


@pytest.mark.parametrize("world", WORLDS)
def test_seeds_that_are_drawn_are_those_of_the_first_rank(ranks, world):
    for check in (True, False):
        first = ranks[world][0]["seeds"]
        for results in ranks[world]:
            found = results["seeds"]
            assert torch.equal(found[f"drawn {check}"], first[f"drawn {check}"])
            assert torch.equal(found[f"loss {check}"], found[f"again {check}"])
    torch.manual_seed(20)
    queue = ShardedQueue(96, D, perm_block=16, generator=torch.Generator().manual_seed(1))
    q, k, _ = batch(4, 1, D)
    _, drawn = InfoNCE(0.2, "ft")(q, k, queue, return_scores=True)
    assert torch.equal(drawn.seed, ranks[world][0]["seeds"]["drawn True"])


@pytest.mark.parametrize("world", WORLDS)
def test_scores_alone(ranks, world):
    q, k, _ = batch(4, 1, D)
    queue = ShardedQueue(96, D, perm_block=16, generator=torch.Generator().manual_seed(1))
    expected = scores(q, k, queue.queue, temperature=0.2)._asdict()
    for results in ranks[world]:
        assert results["scores"].keys() == {name for name, value in expected.items() if value is not None}
        for name, value in results["scores"].items():
            assert_close(value, expected[name], bound(0.2), name)


def test_in_one_process_without_mixing_it_is_a_queue():
    q, k, _ = batch(7, 1, D)
    sharded, plain = ShardedQueue(85, D, perm_block=16), Queue(85, D)
    plain.queue.copy_(sharded.queue)
    assert len(sharded) == 85 and sharded.position.tolist() == [0]
    assert torch.allclose(sharded.queue, normalize(sharded.queue, dim=1))
    a, b = (info_nce(q, k, queue) for queue in (sharded, plain))
    assert a.item() == b.item()
    assert torch.equal(*(torch.autograd.grad(loss, q)[0] for loss in (a, b)))


def test_a_moco_checkpoint_loads():
    rows = normalize(torch.randn(40, D), dim=1)
    queue = ShardedQueue(40, D, perm_block=16)
    queue.load_state_dict({"queue": rows.T.contiguous(), "queue_ptr": torch.tensor([6])})
    assert torch.equal(queue.queue, rows) and queue.position.tolist() == [6]


def test_it_can_be_copied_and_pickled():
    queue = ShardedQueue(40, D, perm_block=16)
    for twin in (copy.deepcopy(queue), pickle.loads(pickle.dumps(queue))):
        twin.push(torch.ones(3, D))
        assert twin.position.item() == 3 and queue.position.item() == 0


def test_the_whole_ring_is_a_state_of_any_queue():
    model = torch.nn.ModuleDict({"queue": ShardedQueue(40, D, perm_block=16)})
    model["queue"].push(torch.ones(3, D))
    state = model.state_dict()
    state["queue.queue"] = model["queue"].full_queue()
    again = torch.nn.ModuleDict({"queue": ShardedQueue(40, D, perm_block=32, dtype=torch.float16)})
    again.load_state_dict(state)
    del state["queue.first_row"]
    plain = torch.nn.ModuleDict({"queue": Queue(40, D)})
    plain.load_state_dict(state)
    for other in (again, plain):
        assert torch.equal(other["queue"].queue.half(), model["queue"].queue.half())
        assert other["queue"].position.item() == 3


def test_it_is_named_for_ddp_to_ignore():
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "queue": ShardedQueue(40, D, perm_block=16)})
    assert ignore_queues_in_ddp(model) == ["queue.queue", "queue.position", "queue.first_row"]


def test_a_compiled_step_leaves_it_to_eager_mode():
    q, k, _ = batch(7, 1, D)
    queue, criterion = ShardedQueue(40, D, perm_block=16), InfoNCE(0.2, "ft")
    compiled = torch.compile(lambda q, k: 2 * criterion(q, k, queue, seed=3), backend="aot_eager")
    expected = 2 * criterion(q, k, queue, seed=3)
    loss = compiled(q, k)
    assert loss.item() == expected.item()
    assert torch.equal(*(torch.autograd.grad(value, q)[0] for value in (loss, expected)))


@pytest.mark.parametrize(
    ("words", "kind", "options"),
    [
        ("size", ValueError, {"size": 0}),
        ("size", TypeError, {"size": 40.0}),
        ("features", ValueError, {"features": 0}),
        ("perm_block", ValueError, {"perm_block": 0}),
        ("perm_block", ValueError, {"perm_block": 24}),
        ("dtype", TypeError, {"dtype": torch.float64}),
    ],
)
def test_wrong_sizes_and_types(words, kind, options):
    with pytest.raises(kind, match=words):
        ShardedQueue(**({"size": 40, "features": D, "perm_block": 16} | options))


def test_a_wrong_push_changes_nothing():
    queue = ShardedQueue(40, D, perm_block=16)
    before = queue.queue.clone()
    for keys, kind in (([[0.0]], TypeError), (torch.zeros(2, D).double(), TypeError), (torch.zeros(D), ValueError)):
        with pytest.raises(kind, match="keys"):
            queue.push(keys)
    assert torch.equal(queue.queue, before) and queue.position.item() == 0


def test_gather_without_other_processes_is_a_plain_push():
    queue, plain = (Queue(8, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    queue.push(torch.ones(3, 4), gather=True)
    plain.push(torch.ones(3, 4))
    assert torch.equal(queue.queue, plain.queue) and queue.position == plain.position
    with pytest.raises(TypeError, match="gather is a int"):
        queue.push(torch.ones(3, 4), gather=1)
