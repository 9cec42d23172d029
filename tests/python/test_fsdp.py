"""fully_shard on two processes: a learned temperature among the sharded parameters, and the steps of one process."""

from __future__ import annotations

import pytest
import torch
from processes import outputs_of
from support import cpu_only

WORKER = """
import copy
import sys
import torch
from support import assert_close, bound
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from flashnce.torch import InfoNCE, Queue

rank, store, world = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
torch.set_num_threads(1)


class Model(nn.Module):
    def __init__(self, gather):
        super().__init__()
        self.encoder = nn.Linear(12, 16)
        self.queue = Queue(64, 16, generator=torch.Generator().manual_seed(1))
        self.criterion = InfoNCE(nn.Parameter(torch.full((1,), 0.2)))
        self.gather = gather

    def forward(self, x):
        q, k = self.encoder(x), self.encoder(x + 0.3)
        return self.criterion(q, k, self.queue, detach_key=True) + self.criterion(q, k, batch=True, gather=self.gather)


torch.manual_seed(0)
alone = Model(False)
model = copy.deepcopy(alone)
model.gather = True
mesh = init_device_mesh("cpu", (world,))
fully_shard(model.encoder, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizers = [torch.optim.SGD(one.parameters(), lr=0.002) for one in (model, alone)]
x = torch.randn(8, 12, generator=torch.Generator().manual_seed(2))
for step in range(3):
    losses = [model(x[4 * rank : 4 * rank + 4]), alone(x)]
    whole = losses[0].detach().clone()
    distributed.all_reduce(whole)
    assert_close(whole / world, losses[1], 4 * bound(0.2))
    for loss, optimizer in zip(losses, optimizers):
        optimizer.zero_grad()
        loss.backward()
    for name, parameter in model.named_parameters():
        expected = dict(alone.named_parameters())[name]
        assert_close(parameter.grad.full_tensor(), expected.grad, 16 * bound(0.2), name)
    for optimizer in optimizers:
        optimizer.step()
tau = model.criterion.temperature
assert type(tau).__name__ == "DTensor" and tau.full_tensor().item() != 0.2
assert abs(tau.full_tensor().item() - alone.criterion.temperature.item()) < 1e-5
distributed.barrier()
distributed.destroy_process_group()
print("done", rank)
"""


@cpu_only
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_steps_are_those_of_one_process(tmp_path):
    pytest.importorskip("torch.distributed.fsdp", reason="this torch has no fully_shard")
    if not hasattr(torch.distributed.fsdp, "fully_shard"):
        pytest.skip("this torch has no fully_shard")
    assert outputs_of(WORKER, tmp_path) == [["done", str(rank)] for rank in range(2)]
