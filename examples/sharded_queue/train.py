#!/usr/bin/env python3
"""MoCo with the feature transformation on several processes, the queue of negatives spread over them.

    python train.py --processes 3
    torchrun --nproc-per-node 3 train.py

Each process encodes its own part of a batch and holds a part of the queue; the first one also trains a twin on the
whole batch with the whole queue. The losses of both are printed side by side: they are one training, up to rounding.
"""

import argparse
import copy
import gc
import os
import sys
import tempfile

# Without this, PyTorch's idle threads spin, and processes that share cores slow each other down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import torch
    from flashnce.torch import InfoNCE, ShardedQueue
except ImportError as error:
    sys.exit(f"train.py: {error}: PyTorch and the Python package flashnce are needed (pip install .)")
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

INPUTS, FEATURES, CLASSES = 64, 32, 20
# Between the losses of two ways of adding up the same numbers, after so many steps of training.
ALLOWED = 1e-3


def options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2, help="where torchrun does not say (default 2)")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32, help="rows of each process (default 32)")
    parser.add_argument("--queue-size", type=int, default=4096, help="negatives over all processes (default 4096)")
    parser.add_argument("--perm-block", type=int, default=256, help="rows mixed among themselves (default 256)")
    parser.add_argument("--temperature", type=float, default=0.2)
    return parser.parse_args()


class Trainer:
    """The networks, the optimiser and the queue, of one group of processes."""

    def __init__(self, chosen, group=None):
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(INPUTS, 128), nn.ReLU(), nn.Linear(128, FEATURES))
        self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        # With generators of one seed the first content is the same for any number of processes.
        self.queue = ShardedQueue(
            chosen.queue_size, FEATURES, perm_block=chosen.perm_block, group=group,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        self.criterion = InfoNCE(chosen.temperature, "ft")
        self.parallel = DistributedDataParallel(self.encoder, process_group=group)
        self.optimizer = torch.optim.SGD(self.encoder.parameters(), lr=0.1, momentum=0.9)

    def step(self, first, second, seed):
        """The mean loss of this process's rows of two views of a batch."""
        q = self.parallel(first)
        with torch.no_grad():
            k = self.key_encoder(second)
        # Against the negatives of all processes. DistributedDataParallel averages the gradients.
        loss = self.criterion(q, k, self.queue, seed=seed)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for ours, theirs in zip(self.key_encoder.parameters(), self.encoder.parameters()):
                ours.lerp_(theirs, 0.01)
        # The keys of all processes, in the order of the ranks.
        self.queue.push(k)
        return loss.detach()


def views(rows, step):
    """Two noisy views of random members of a few classes: the same batch on every process."""
    generator = torch.Generator().manual_seed(step)
    centres = torch.randn(CLASSES, INPUTS, generator=torch.Generator().manual_seed(7))
    members = centres[torch.randint(CLASSES, (rows,), generator=generator)]
    members = members + 0.7 * torch.randn(rows, INPUTS, generator=generator)
    return [members + 0.3 * torch.randn(rows, INPUTS, generator=generator) for _ in range(2)]


def train(chosen):
    """One process. Returns whether the losses of the first one and of its twin agreed throughout."""
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    alone = distributed.new_group([0])
    sharded = Trainer(chosen)
    twin = Trainer(chosen, alone) if rank == 0 else None
    if rank == 0:
        print(f"{processes} processes with shards of {sharded.queue.sizes} of {len(sharded.queue)} negatives")
        print(f"{'step':>5} {'sharded':>12} {'one process':>12} {'difference':>12}")
    largest = 0.0
    for step in range(chosen.steps):
        first, second = views(chosen.batch_size * processes, step)
        mine = slice(rank * chosen.batch_size, (rank + 1) * chosen.batch_size)
        loss = sharded.step(first[mine], second[mine], seed=step)
        distributed.all_reduce(loss)
        if rank == 0:
            expected = twin.step(first, second, seed=step).item()
            difference = abs(loss.item() / processes - expected) / abs(expected)
            largest = max(largest, difference)
            if step % max(chosen.steps // 10, 1) == 0 or step == chosen.steps - 1:
                print(f"{step:5} {loss.item() / processes:12.6f} {expected:12.6f} {difference:12.1e}")
    queue = sharded.queue.full_queue()
    agreed = largest <= ALLOWED
    if rank == 0:
        agreed = agreed and torch.allclose(queue, twin.queue.queue, atol=ALLOWED)
        verdict = "ok" if agreed else "FAILED"
        print(f"{verdict}: the losses differ by at most {largest:.1e} of their size, the queues by rounding")
    return agreed


def run(rank, processes, store, chosen):
    """One process, from its first exchange to its last; where `store` is None torchrun started it."""
    torch.set_num_threads(1)
    where = {} if store is None else {"init_method": f"file://{store}", "rank": rank, "world_size": processes}
    distributed.init_process_group("gloo", **where)
    agreed = train(chosen)
    distributed.barrier()
    # DistributedDataParallel must be gone before its group: a group that it keeps alive can stop for ever at exit.
    gc.collect()
    distributed.destroy_process_group()
    if not agreed:
        sys.exit(1)


def main():
    chosen = options()
    if "RANK" in os.environ:  # torchrun
        run(0, 0, None, chosen)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        arguments = (chosen.processes, os.path.join(folder, "store"), chosen)
        context = torch.multiprocessing.spawn(run, arguments, nprocs=chosen.processes, join=False)
        try:
            while not context.join():
                pass
        except torch.multiprocessing.ProcessExitedException:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
