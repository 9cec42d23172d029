"""One rank of tests/python/test_sharded.py: python sharded_worker.py RANK WORLD FOLDER. Leaves FOLDER/WORLD-RANK.pt."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch_device

torch_device.prepare()

import torch  # noqa: E402
from sharded_cases import CASES, D, FT, SEED, run  # noqa: E402
from support import batch  # noqa: E402
from torch import distributed  # noqa: E402
from torch.distributed import checkpoint as dcp  # noqa: E402

import flashnce  # noqa: E402
from flashnce.torch import InfoNCE, Mix, Queue, ShardedQueue, info_nce, scores  # noqa: E402

RANK, WORLD, FOLDER = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
LAST = WORLD - 1


def draws() -> dict[str, torch.Tensor]:
    """What the seed draws for this rank's rows of a queue whose last block is not full."""
    queue = ShardedQueue(85, D, perm_block=16)
    first, count = queue.rows.start, len(queue.rows)
    mix = Mix(1.6, per="element")
    permutation = flashnce.permutation(count, seed=SEED, perm_block=16, first_row=first, k_global=85)
    lambda_neg = flashnce.sample_lambda("negative", mix, count, D, seed=SEED, first_row=first)
    return {"permutation": torch.from_numpy(permutation) + first, "lambda_neg": torch.from_numpy(lambda_neg)}


def pushes(queue: ShardedQueue, steps: range) -> None:
    """Batches of many sizes, some of no key and some of more than the queue holds."""
    for step in steps:
        generator = torch.Generator().manual_seed(100 * step + RANK)
        count = (3, 7, 0, 40, 1, 33)[(step + RANK) % 6]
        queue.push(3 * torch.randn(count, D, generator=generator), normalize=step % 5 > 0)


def ring() -> dict[str, torch.Tensor]:
    """The ring after pushes in several processes, and its states: of this rank and whole."""
    queue = ShardedQueue(85, D, perm_block=16, generator=torch.Generator().manual_seed(1))
    results = {"start": queue.full_queue()}
    pushes(queue, range(40))
    if WORLD == 2:
        # The 3 processes that ran before left their ring.
        left = torch.load(FOLDER / "3-0.pt")["ring"]
        queue.load_state_dict({"queue": left["queue"], "position": left["position"]})
        pushes(queue, range(40, 60))
    results |= {"queue": queue.full_queue(), "position": queue.position.clone(), "state": queue.state_dict()}
    twin = ShardedQueue(85, D, perm_block=16)
    twin.load_state_dict(results["state"])
    assert torch.equal(twin.full_queue(), results["queue"]) and torch.equal(twin.position, queue.position)
    return results


def error_of(function, *arguments, **options) -> str:
    """What the call raises on this rank."""
    try:
        function(*arguments, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def errors() -> dict[str, str]:
    """Calls that are wrong on one rank; the last of all shows that the ranks are still together."""
    q, k, _ = batch(4, 1, D)
    queue, odd = ShardedQueue(96, D, perm_block=16), RANK == LAST

    def wrong(good, bad):
        return bad if odd else good

    def loss(**options):
        info_nce(q, k, queue, **({"seed": 1} | FT | options))

    def meet():
        queue.push(k) if odd else loss()

    found = {
        "features": error_of(ShardedQueue, 96, wrong(D, D + 1), perm_block=16),
        "perm_block": error_of(ShardedQueue, 96, D, perm_block=wrong(16, 24)),
        "dtype": error_of(ShardedQueue, 96, D, perm_block=16, dtype=wrong(torch.float32, torch.float64)),
        "size": error_of(ShardedQueue, wrong(96, 95), D, perm_block=16),
        "keys": error_of(queue.push, wrong(k, k[:, 1:])),
        "normalize of push": error_of(queue.push, k, normalize=not odd),
        "k": error_of(info_nce, q, wrong(k, k[1:]), queue),
        "ids": error_of(loss, ids=wrong(None, torch.arange(4))),
        "form": error_of(loss, form=wrong("info_nce", "decoupled")),
        "weight": error_of(loss, weight=wrong(None, torch.ones(3))),
        "temperature": error_of(loss, temperature=wrong(0.2, 0.25)),
        "temperature tensor": error_of(loss, temperature=torch.tensor(wrong(0.2, 0.25))),
        "wrong temperature": error_of(loss, temperature=-1.0),
        "seed": error_of(loss, seed=wrong(1, 2)),
        "seed tensor": error_of(loss, seed=torch.tensor(wrong(1, 2))),
        "seed or none": error_of(loss, seed=wrong(1, None)),
        "alpha": error_of(loss, negative=Mix(wrong(1.6, 1.5))),
        "per": error_of(loss, positive=wrong(Mix(2.0, shift=1.0), None)),
        "return_scores": error_of(loss, return_scores=odd),
        "permutation": error_of(loss, permutation=wrong(None, torch.arange(96))),
        "call": error_of(meet),
    }
    # The last rank is not in that group.
    found["group"] = error_of(lambda: ShardedQueue(96, D, perm_block=16, group=OTHERS).push(k))
    own = queue.state_dict()
    of_first = torch.zeros(1, dtype=torch.int64)
    found["first_row"] = error_of(queue.load_state_dict, own | {f"first_row_{RANK}_of_{WORLD}": of_first})
    found["position"] = error_of(queue.load_state_dict, own | {"position": torch.tensor([96])})
    found["shard size"] = error_of(queue.load_state_dict, own | {f"queue_{RANK}_of_{WORLD}": torch.zeros(7, D)})
    found["nothing"] = error_of(loss)
    return found


def under_ddp() -> dict[str, object]:
    """Shards of a model that DistributedDataParallel wraps, and of one that grew too late for it to know."""

    def wrapped(inside: torch.nn.ModuleDict, before: dict, after: dict) -> ShardedQueue:
        inside.update(before)
        outside = torch.nn.ModuleDict({"inside": inside, "encoder": torch.nn.Linear(2, 2)})
        inside.update(after)
        torch.nn.parallel.DistributedDataParallel(outside)
        return inside["queue"]

    def queue(check: bool) -> ShardedQueue:
        return ShardedQueue(96, D, perm_block=16, check=check, generator=torch.Generator().manual_seed(1))

    q, k, _ = batch(4, 1, D)
    kept = wrapped(torch.nn.ModuleDict(), {"queue": queue(True)}, {})
    found = {"kept": torch.equal(kept.full_queue(), queue(True).full_queue())}
    late = wrapped(torch.nn.ModuleDict(), {}, {"queue": queue(True)})
    found["loss"], found["push"] = error_of(info_nce, q, k, late), error_of(late.push, k)
    found["full_queue"] = error_of(late.full_queue)
    blind = wrapped(torch.nn.ModuleDict(), {}, {"queue": queue(False)})
    found["unchecked"] = error_of(blind.check_shard)
    return found


def checkpointed() -> dict[str, object]:
    """Shards through torch.distributed.checkpoint, and under the short names of older states."""
    rings = [ShardedQueue(96, D, perm_block=16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    model, other = (torch.nn.ModuleDict({"queue": ring}) for ring in rings)
    model["queue"].push(torch.full((4, D), 1.0 + RANK))
    expected = model["queue"].full_queue()
    dcp.save({"model": model.state_dict()}, checkpoint_id=FOLDER / f"dcp-{WORLD}")
    state = {"model": other.state_dict()}
    dcp.load(state, checkpoint_id=FOLDER / f"dcp-{WORLD}")
    other.load_state_dict(state["model"])
    found = {"loaded": torch.equal(other["queue"].full_queue(), expected), "position": other["queue"].position.item()}
    older = ShardedQueue(96, D, perm_block=16)
    own = model["queue"]
    older.load_state_dict({"queue": own.queue, "position": own.position, "first_row": own.first_row})
    return found | {"older": torch.equal(older.full_queue(), expected), "names": list(own.state_dict())}


def unequal() -> dict[str, str]:
    """Other numbers of rows on the last rank where nothing else is checked; and a rank whose data ends before."""
    q, k, _ = batch(4, 1, D)
    rows = 4 if RANK != LAST else 3
    queue = ShardedQueue(96, D, perm_block=16, check=False)
    found = {}
    if torch_device.is_cpu():  # elsewhere equal numbers are the caller's promise
        found = {"keys": error_of(queue.push, k[:rows]), "q": error_of(info_nce, q[:rows], k[:rows], queue)}
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(D, D))

    def epoch(**options) -> None:
        with model.join(**options):
            for _ in range(2):
                info_nce(model(q.detach()), k, queue).backward()

    found["join"] = error_of(epoch)
    found["join that throws"] = error_of(epoch, throw_on_early_termination=True)
    return found


def gathered() -> dict[str, object]:
    """A replicated queue that every rank pushes the keys of all ranks to, and the calls that are wrong on one rank."""
    queue = Queue(20, D, generator=torch.Generator().manual_seed(1))
    for step in range(6):
        generator = torch.Generator().manual_seed(100 * step + RANK)
        queue.push(torch.randn((3, 1, 0, 9)[(step + RANK) % 4], D, generator=generator), gather=True)
    keys = torch.ones(2, D)
    return {
        "queue": queue.queue.clone(),
        "position": queue.position.clone(),
        "keys": error_of(queue.push, keys if RANK != LAST else keys[:, 1:], gather=True),
        "type": error_of(queue.push, keys if RANK != LAST else keys.half(), gather=True),
        "kept": torch.equal(queue.queue, queue.state_dict()["queue"]),
    }


def seeds() -> dict[str, torch.Tensor]:
    """Seeds are those of rank 0, whatever the generators of the others."""
    q, k, _ = batch(4, 1, D)
    found = {}
    for check in (True, False):
        queue = ShardedQueue(96, D, perm_block=16, check=check, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(20 + RANK)
        criterion = InfoNCE(0.2, "ft")
        loss, drawn = criterion(q, k, queue, return_scores=True)
        found[f"drawn {check}"], found[f"loss {check}"] = drawn.seed, loss.detach()
        found[f"again {check}"] = criterion(q, k, queue, seed=int(drawn.seed)).detach()
    return found


def statistics_alone() -> dict[str, torch.Tensor]:
    q, k, _ = batch(4, 1, D)
    queue = ShardedQueue(96, D, perm_block=16, generator=torch.Generator().manual_seed(1))
    found = scores(q, k, queue, temperature=0.2)
    return {name: value for name, value in found._asdict().items() if value is not None}


torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method=f"file://{FOLDER}/store-{WORLD}", rank=RANK, world_size=WORLD, timeout=timedelta(seconds=60)
)
OTHERS = distributed.new_group(list(range(LAST)))
torch.save(
    {
        "cases": {name: run(case, WORLD, RANK) for name, case in CASES.items()},
        "draws": draws(),
        "ring": ring(),
        "errors": errors(),
        "gathered": gathered(),
        "unequal": unequal(),
        "seeds": seeds(),
        "ddp": under_ddp(),
        "checkpoint": checkpointed(),
        "scores": statistics_alone(),
    },
    FOLDER / f"{WORLD}-{RANK}.pt",
)
distributed.destroy_process_group()
