"""DistributedDataParallel on two processes: gradients are averaged, seeds differ by rank, queues stay their own."""

from __future__ import annotations

import pytest
import torch
from processes import outputs_of

WORKER = """
import gc
import sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from flashnce.torch import InfoNCE, Queue, ignore_queues_in_ddp

rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.queue = nn.Linear(6, 6), Queue(32, 6, generator=torch.Generator().manual_seed(rank))
        self.criterion = InfoNCE(0.2, "ft")

    def forward(self, x, **options):
        q, k = self.encoder(x), self.encoder(x + 0.1).detach()
        result = self.criterion(q, k, self.queue, return_scores=True, **options)
        self.queue.push(k)
        return result


def gathered(tensor):
    out = [torch.empty_like(tensor) for _ in range(2)]
    torch.distributed.all_gather(out, tensor.contiguous())
    return out


torch.manual_seed(0)
plain = Model()
own = plain.queue.queue.clone()
names = ignore_queues_in_ddp(plain)
model = DDP(plain, broadcast_buffers=True)
x = torch.randn(8, 6, generator=torch.Generator().manual_seed(10 + rank))

torch.manual_seed(1)
loss, scores = model(x)
loss.backward()
seeds = gathered(scores.seed)
assert seeds[0] != seeds[1], seeds
assert torch.equal(plain.queue.queue[8:], own[8:]), "the broadcast took this rank's queue"

alone = Model()
alone.load_state_dict(plain.state_dict())
alone.queue.queue.copy_(own)
expected, _ = alone(x, seed=scores.seed)
expected.backward()
mean = sum(gathered(alone.encoder.weight.grad)) / 2
assert expected.item() == loss.item()
assert torch.allclose(plain.encoder.weight.grad, mean, rtol=1e-5, atol=1e-7)
assert not torch.allclose(alone.encoder.weight.grad, mean, rtol=1e-3)

torch.manual_seed(1)
_, scores = model(x, rng="shared")
seeds = gathered(scores.seed)
assert seeds[0] == seeds[1], seeds

compiled = torch.compile(plain.criterion, fullgraph=True, backend="aot_eager")
torch.manual_seed(1)
_, scores = compiled(x, x + 0.1, plain.queue, return_scores=True)
folded = gathered(scores.seed)
assert folded[0] == seeds[0] and folded[0] != folded[1], folded

control = DDP(Model())
control(x)
control(x)
queues = gathered(control.module.queue.queue[16:])
assert torch.equal(*queues), "without ignore_queues_in_ddp rank 0's queue is broadcast"
# DistributedDataParallel must be gone before its group: a group that it keeps alive can stop for ever at exit.
del model, control
gc.collect()
torch.distributed.destroy_process_group()
print("done", rank, *names)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes(tmp_path):
    assert torch.distributed.is_gloo_available()
    assert outputs_of(WORKER, tmp_path) == [["done", str(rank), "queue.queue", "queue.position"] for rank in range(2)]
