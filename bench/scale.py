"""Is a data set explained by mapping over it, in any number of processes?

10,000 images of 16 x 16 and a small CNN: saliency and integrated gradients of each image's likeliest class, in one
process, and in two by `torchrun` with `DistributedSampler` (gloo). Two cores either way: two threads in one process, or
one in each of two. The union of what the two found must be what one finds, to the last bit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import attrfn
from bench.digits import net
from bench.harness import THREADS, Bar, Row, Setting, spread

ROOT = Path(__file__).resolve().parent.parent
BATCH = 100
NAMES = ("1 process", "2 processes")


def saliency(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return attrfn.saliency(model, x, target)


def integrated(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return attrfn.integrated_gradients(model, x, 0.0, 8, target=target)


METHODS: dict[str, Callable[..., Tensor]] = {"saliency": saliency, "IG, 8 steps": integrated}


def problem(setting: Setting) -> tuple[nn.Module, TensorDataset]:
    """The model and the images, the same in every process."""
    torch.manual_seed(setting.seed)
    count = setting.pick(10_000, 400)
    return net(nn.ReLU, setting.pick(16, 4)).eval(), TensorDataset(torch.arange(count), setting.randn(count, 1, 16, 16))


def explained(model: nn.Module, loader: DataLoader[Any], method: str) -> tuple[Tensor, Tensor]:
    """Which images, and the attribution of each."""
    which, found = [], []
    for numbers, x in loader:
        with torch.no_grad():
            target = model(x).argmax(1)
        which.append(numbers)
        found.append(METHODS[method](model, x, target))
    return torch.cat(which), torch.cat(found)


def serial(setting: Setting, method: str) -> tuple[Tensor, float]:
    model, data = problem(setting)
    loader = DataLoader(data, batch_size=BATCH)
    explained(model, DataLoader(data, batch_size=BATCH, sampler=range(BATCH)), method)
    start = time.perf_counter()
    _, found = explained(model, loader, method)
    return found, time.perf_counter() - start


def worker(setting: Setting, method: str, home: Path) -> None:
    """One of the processes that `torchrun` starts."""
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(max(1, THREADS // world))
    model, data = problem(setting)
    sampler = DistributedSampler(data, shuffle=False)
    explained(model, DataLoader(data, batch_size=BATCH, sampler=range(BATCH)), method)
    dist.barrier()
    start = time.perf_counter()
    which, found = explained(model, DataLoader(data, batch_size=BATCH, sampler=sampler), method)
    dist.barrier()
    torch.save({"which": which, "found": found, "seconds": time.perf_counter() - start}, home / f"{rank}.pt")
    dist.destroy_process_group()


def in_processes(setting: Setting, method: str, count: int) -> tuple[Tensor, float]:
    """The attributions in the order of the images, put together from what the processes wrote."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        given = ["-m", "bench.scale", "--setting", json.dumps(setting._asdict()), "--method", method, "--home", home]
        done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        parts = [torch.load(Path(home) / f"{rank}.pt") for rank in range(count)]
    which = torch.cat([part["which"] for part in parts])
    return torch.cat([part["found"] for part in parts])[which.argsort()], max(part["seconds"] for part in parts)


def rows(setting: Setting) -> Iterator[Row]:
    if setting.device != "cpu":
        return
    count = len(problem(setting)[1])
    for method in METHODS:
        pairs = []
        for _ in range(setting.pick(3, 1)):
            alone, seconds = serial(setting, method)
            union, together = in_processes(setting, method, 2)
            pairs.append((seconds, together))
        same = bool(torch.equal(alone, union))
        yield {
            "work": f"{method}, {count} images", "model": "CNN, 16 x 16",
            "ms": {name: spread([1e3 * pair[k] for pair in pairs]) for k, name in enumerate(NAMES)},
            "images a second": {name: round(count / min(pair[k] for pair in pairs)) for k, name in enumerate(NAMES)},
            "ratios": {"1 process / 2 processes": spread([a / b for a, b in pairs])},
            "bars": [Bar("images of the union that differ", 0, at_least=False).judged(_differing(alone, union))],
            "equal": same,
        }  # fmt: skip


def _differing(one: Tensor, other: Tensor) -> int:
    return int((one != other).flatten(1).any(1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--setting", type=json.loads, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--home", type=Path, required=True)
    given = parser.parse_args()
    worker(Setting(**given.setting), given.method, given.home)


if __name__ == "__main__":
    main()
