"""Models over several processes: sharded by FSDP2, by tensor parallelism, replicated by DDP; each as in one process."""

import copy
import datetime
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import attrfn

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(2, 4, 3, padding=1), nn.LayerNorm(8)
        self.first, self.second, self.output = nn.Linear(24, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(torch.relu(self.conv(x)).flatten(1)))
        return self.output(torch.tanh(self.second(self.norm(h))))


LOOP: dict[str, Any] = {"target": 1, "vectorize": False}
METHODS: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    "saliency": lambda net, x, base: attrfn.saliency(net, x, 1),
    "guided": lambda net, x, base: attrfn.guided_backprop(net, x, 1),
    "path": lambda net, x, base: attrfn.integrated_gradients(net, x, base, 8, **LOOP),
    "fold": lambda net, x, base: attrfn.integrated_gradients(net, x, base, 8, target=1, vectorize="fold"),
    "deep_lift": lambda net, x, base: attrfn.deep_lift(net, x, base, target=1),
    "map": lambda net, x, base: attrfn.layer_grad_cam(net, net.conv, x, 1, channel_dim=1),
    "activation": lambda net, x, base: attrfn.layer_activation(net, net.second, x),
    "layer": lambda net, x, base: attrfn.layer_integrated_gradients(net, net.first, x, base, 6, **LOOP),
    "layer_deep_lift": lambda net, x, base: attrfn.layer_deep_lift(net, net.second, x, base, target=1),
    "ablation": lambda net, x, base: attrfn.feature_ablation(net, x, base, target=1, vectorize="fold"),
    "shapley": lambda net, x, base: attrfn.shapley_values(net, x, base, groups=torch.arange(6)[None], **LOOP),
    "neuron": lambda net, x, base: attrfn.neuron_gradient(net, net.first, 3, x),
}


def sharded(net: Net, **options: Any) -> nn.Module:
    fully_shard = importlib.import_module("torch.distributed.fsdp").fully_shard
    for part in (net.first, net.second, net):
        fully_shard(part, mesh=mesh(), **options)
    return net


def tensor_parallel(net: Net) -> nn.Module:
    plan: Any = {
        "first": ColwiseParallel(output_layouts=Replicate()),
        "second": ColwiseParallel(),
        "output": RowwiseParallel(),
    }
    return parallelize_module(net, mesh(), plan)


def replicated(net: Net) -> nn.Module:
    return nn.parallel.DistributedDataParallel(net)


def mesh() -> Any:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def given() -> tuple[Net, Tensor, Tensor]:
    torch.manual_seed(0)
    return Net().double().eval(), torch.randn(4, 2, 6).double(), torch.zeros(1, 2, 6).double()


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def compared(way: Callable[[Net], nn.Module], methods: list[str], *, of_all: bool) -> None:
    """Each method of a model over all processes, against the model before; `of_all`: each of them has all of x."""
    net, x, base = given()
    expected = {name: METHODS[name](net, x, base) for name in methods}
    over = way(copy.deepcopy(net))
    mine = slice(None) if of_all else slice(dist.get_rank(), None, dist.get_world_size())
    for name in methods:
        found = METHODS[name](over, x[mine], base)
        torch.testing.assert_close(whole(found), expected[name][mine], msg=lambda text, name=name: f"{name}: {text}")


def in_one(rank: int, path: str) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    minute = datetime.timedelta(minutes=1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2, timeout=minute)
    try:
        compared(lambda net: sharded(net, reshard_after_forward=False), list(METHODS), of_all=False)
        compared(sharded, [name for name in METHODS if name != "neuron"], of_all=False)
        compared(tensor_parallel, list(METHODS), of_all=True)
        compared(replicated, ["saliency", "guided", "path", "fold", "deep_lift", "ablation", "shapley"], of_all=False)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_one, (str(tmp_path / "meeting"),), 2)


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("way", [sharded, tensor_parallel])
def test_a_group_of_one(way: Callable[[Net], nn.Module], alone: None) -> None:
    compared(way, [name for name in METHODS if name != "neuron" or way is tensor_parallel], of_all=True)


def test_shards_are_trained_on_as_before(alone: None) -> None:
    """What FSDP binds is left to it: an ordinary step after an attribution finds the weights that it keeps."""
    net, x, base = given()
    over = sharded(copy.deepcopy(net))
    attrfn.deep_lift(over, x, base, target=1)
    attrfn.layer_activation(over, "second", x)
    over(x).sum().backward()
    net(x).sum().backward()
    for (name, p), q in zip(over.named_parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(whole(p.grad), q.grad, msg=name)


def test_a_pass_that_stops_where_shards_are_let_go_says_what_to_do(alone: None) -> None:
    net, x, _ = given()
    with pytest.raises(RuntimeError, match=r"FSDP let go of weights before .*reshard_after_forward=False"):
        attrfn.neuron_gradient(sharded(net), "first", 3, x)


def test_a_layer_over_devices_cannot_be_patched_with_numbers_that_are_not(alone: None) -> None:
    net, x, base = given()
    with pytest.raises(RuntimeError, match=r"mixed torch.Tensor and DTensor(.|\n)*whose activation is no DTensor"):
        attrfn.activation_patching(tensor_parallel(net), "second", x, base.expand_as(x), **LOOP)
