"""How near are Shapley values to the truth, at one budget of evaluations, and in how much time?

CNNs that learned digits of 8 x 8 pixels, in 16 patches, against all 65,536 coalitions, in float64; and a table model
of 100 columns, a sum of networks of ten columns each, whose values are those of its parts. An error is the squared
distance from the truth as a share of the truth's square, of each image (row) and draw, by a seed of its own; shown are
median and mean. A budget counts every evaluation. Captum's answers are of one image at a time; shap and shapiq are
asked where they are installed.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import KernelShap, ShapleyValueSampling
from torch import Tensor, nn

import attrfn
from bench import floors, memory
from bench.harness import Bar, Row, Setting, Work, compared, near, spread
from bench.models import frozen

P, KERNEL, SAMPLING = 16, "captum KernelShap", "captum ShapleyValueSampling"
PATCHES = (torch.arange(8)[:, None] // 2 * 4 + torch.arange(8) // 2)[None]
BUDGETS = (2, 5, 10, 20)
MASKS = (
    "(lambda x, cell: attrfn.shapley_values(net, x, 0.0, {n}, target=1, estimator='kernel', "
    "groups=cell[:, None] * 4 + cell))"
    "(x[:1, :, :64, :64], torch.arange(min(64, x.shape[-1])) * 4 // min(64, x.shape[-1]))"
)
NETS: dict[str, Callable[[], nn.Module]] = {
    "GELU, max pooling": lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    ),
    "tanh": lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.Tanh(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 10),
    ),
}  # fmt: skip


class Asked(NamedTuple):
    """A model whose Shapley values are known."""

    net: Any
    x: Tensor
    target: Any
    groups: Tensor | None
    players: int
    truth: Tensor  # (N, P)

    def alone(self, k: int) -> "Asked":
        """The k-th example."""
        some = slice(k, k + 1)
        target = self.target[some] if isinstance(self.target, list) else self.target
        return self._replace(x=self.x[some], target=target, truth=self.truth[some])

    def values(self, n_evals: int, seed: int, **how: Any) -> Tensor:
        """Ours, of all examples at once, `(N, P)`."""
        whole = torch.ones(len(self.x), self.players)
        game = attrfn.masked(self.net, self.x, 0.0, self.groups)
        generator = torch.Generator().manual_seed(seed)
        return attrfn.shapley_values(game, whole, 0.0, n_evals, target=self.target, generator=generator, **how)

    def game(self, k: int) -> Callable[[Any], Any]:
        """The k-th example's, of arrays of masks."""
        alone = self.alone(k)
        f, pick = attrfn.masked(self.net, alone.x, 0.0, self.groups), attrfn.select(alone.target)

        def values(z: Any) -> Any:
            rows = torch.tensor(np.asarray(z, dtype=np.float32))
            with torch.no_grad():
                return torch.func.vmap(lambda row: pick(f(row))[0])(rows).numpy().astype(float)

        return values


def digits(setting: Setting, name: str, n: int) -> Asked:
    from sklearn.datasets import load_digits

    data = load_digits()
    torch.manual_seed(setting.seed)
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    order, net = torch.randperm(len(y)), NETS[name]()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(setting.pick(6, 1)):
        for rows in order[:1500].split(50):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    shown, net = order[1500 : 1500 + n], net.eval()
    target = y[shown].tolist()
    asked = Asked(net.double(), x[shown].double(), target, PATCHES, P, torch.zeros(0))
    game = attrfn.masked(asked.net, asked.x, 0.0, PATCHES)
    truth = attrfn.shapley_values(game, torch.ones(n, P).double(), 0.0, 2**P, target=target)
    return asked._replace(net=net.float(), x=asked.x.float(), truth=truth)


class Parts(nn.Module):
    """A sum of networks, each of ten of a hundred columns."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.columns = torch.stack([torch.randperm(100)[:10] for _ in range(parts)])
        self.first, self.last = nn.Parameter(torch.randn(parts, 10, 16) / 3), nn.Parameter(torch.randn(parts, 16))

    def each(self, x: Tensor) -> Tensor:
        return (torch.einsum("npc,pch->nph", x[:, self.columns], self.first).tanh() * self.last).sum(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.each(x).sum(1)


def table(setting: Setting, n: int) -> Asked:
    torch.manual_seed(setting.seed)
    net, x = Parts(setting.pick(40, 4)).requires_grad_(False), setting.randn(n, 100)
    truth = torch.zeros(n, 100)
    for k, columns in enumerate(net.columns):
        part = attrfn.shapley_values(lambda x, k=k: net.each(x)[:, k], x, 0.0, 2**10, groups=_ten(columns))
        truth[:, columns] += part[:, columns]
    return Asked(net, x, None, None, 100, truth)


def _ten(columns: Tensor) -> Tensor:
    """Groups: some columns are players, the others stay."""
    groups = torch.full((100,), -1)
    groups[columns] = torch.arange(len(columns))
    return groups


# ---------------------------------------------------------------- peers


def captum_kernel(it: Asked, k: int, budget: int, seed: int) -> Tensor:
    return _captum(KernelShap(it.net), it, k, seed, n_samples=budget, return_input_shape=False)


def captum_sampling(it: Asked, k: int, budget: int, seed: int) -> Tensor:
    found = _captum(ShapleyValueSampling(it.net), it, k, seed, n_samples=max(1, budget // it.players))
    if it.groups is None:
        return found
    return torch.stack([found.flatten()[(it.groups.flatten() == i).nonzero()[0]] for i in range(it.players)]).T


def _captum(method: Any, it: Asked, k: int, seed: int, **how: Any) -> Tensor:
    torch.manual_seed(seed)
    target = it.target[k] if isinstance(it.target, list) else it.target
    mask = None if it.groups is None else it.groups[None]
    return method.attribute(it.x[k : k + 1], 0.0, target=target, feature_mask=mask, **how)


def shap_permutation(it: Asked, k: int, budget: int, seed: int) -> Tensor:
    import shap

    explainer = shap.explainers.Permutation(it.game(k), np.zeros((1, it.players)), seed=seed)
    budget = max(budget, 2 * it.players + 1)
    return torch.tensor(explainer(np.ones((1, it.players)), max_evals=budget, silent=True).values)


def shapiq_kernel(it: Asked, k: int, budget: int, seed: int) -> Tensor:
    import shapiq

    found = shapiq.KernelSHAP(n=it.players, random_state=seed).approximate(budget, it.game(k))
    return torch.tensor(found.get_n_order_values(1))[None]


PEERS = {KERNEL: captum_kernel, SAMPLING: captum_sampling}
OTHERS = {"shap Permutation": shap_permutation, "shapiq KernelSHAP": shapiq_kernel}


def installed() -> dict[str, Any]:
    """The others that are there."""
    found: dict[str, Any] = {}
    for name, peer in OTHERS.items():
        try:
            __import__(name.split()[0])
        except ImportError:
            continue
        found[name] = peer
    return found


# ---------------------------------------------------------------- what is compared


def errors(it: Asked, found: Tensor) -> list[float]:
    return [float(e) for e in ((found - it.truth) ** 2).sum(1) / (it.truth**2).sum(1)]


def errors_of(it: Asked, peer: Callable[..., Tensor], budget: int, seeds: int) -> list[float]:
    """Of each image by draws of its own, so that one order is no part of all images' errors."""
    count = len(it.x)
    each = [torch.cat([peer(it, k, budget, seed * count + k) for k in range(count)]) for seed in range(seeds)]
    return [error for found in each for error in errors(it, found)]


def ours(**how: Any) -> Callable[[Asked, int, int, int], Tensor]:
    return lambda it, k, budget, seed: it.alone(k).values(budget, seed, **how)


def near_truth(it: Asked, times: int, seeds: int, peers: dict[str, Any]) -> Row:
    """The errors of all at `times` P evaluations."""
    budget = max(times * it.players, 2 * it.players + 2)
    asked = {"attrfn": ours(), **{f"by {name}": ours(estimator=name) for name in ("permutation", "kernel")}, **peers}
    found = {name: errors_of(it, peer, budget, seeds) for name, peer in asked.items()}
    return {
        "work": f"Shapley values, {times} P evaluations",
        "draws": seeds,
        "median error": {name: spread(e)["median"] for name, e in found.items()},
        "mean error": {name: float(f"{sum(e) / len(e):.3g}") for name, e in found.items()},
    }


def judged(row: Row, *bars: tuple[Bar, str, list[str]]) -> Row:
    """With bars on an error of ours over the least of some others'."""
    for bar, of, others in bars:
        least = min(row[of][name] for name in others)
        row.setdefault("ratios", {})[bar.ratio] = {"median": float(f"{row[of]['attrfn'] / least:.4g}")}
        row.setdefault("bars", []).append(bar.judged(row["ratios"][bar.ratio]["median"]))
    return row


def bars_of(row: Row, first: bool) -> list[tuple[Bar, str, list[str]]]:
    """Beside Captum, with the bounds of the first net, or never above it."""
    bounds = {KERNEL: 0.1 if first else 1.0, SAMPLING: 1 / 3 if first else 1.0}
    return [
        (Bar(f"{of}, attrfn / {name}", bound, at_least=False), of, [name])
        for name, bound in bounds.items()
        for of in ("mean error", "median error")
    ]


def within(others: dict[str, Any]) -> list[tuple[Bar, str, list[str]]]:
    if not others:
        return []
    bar = Bar("median error, attrfn / the best of shap's and shapiq's", 1.1, at_least=False)
    return [(bar, "median error", list(others))]


def exact(setting: Setting, it: Asked) -> Row:
    """All coalitions, beside the passes alone."""
    x, target, net = it.x[:1], it.target[:1], frozen(it.net)
    fold = setting.pick(1024, 256)
    players = setting.pick(P, 8)
    groups = PATCHES % players
    z = (torch.arange(2**players)[:, None] >> torch.arange(players)) & 1 > 0

    def bare() -> Tensor:
        with torch.no_grad():
            batch = x.expand(fold, -1, -1, -1).contiguous()
            return torch.cat([net(batch) for _ in range(max(1, len(z) // fold))])

    def by_hand() -> Tensor:
        """The values alone, of which nothing is made."""
        return floors.values_of_masks(net, x, torch.zeros_like(x), z, groups, fold)

    given: dict[str, Work] = {
        "attrfn": lambda: attrfn.shapley_values(it.net, x, 0.0, 2**players, groups=groups, target=target),
        "bare passes": lambda: bare().new_zeros(x.shape),
        "floor": lambda: by_hand().new_zeros(x.shape),
    }
    work = "Shapley values, all coalitions of 16"
    row = compared(setting, work, given, near(1.15), model="digits CNN", agree=None)
    del row["apart"]
    return row


def timed(setting: Setting, it: Asked) -> Row:
    """Times at 20 P evaluations, of two images."""
    budget, two = 20 * P, it._replace(x=it.x[:2], target=it.target[:2])
    given: dict[str, Work] = {"attrfn": lambda: two.values(budget, 0)}
    for name, peer in {**PEERS, **installed()}.items():
        given[name] = lambda peer=peer: torch.cat([peer(two, k, budget, 0) for k in range(2)])
    bars = [Bar(f"{name} / attrfn", 10, at_least=True) for name in PEERS]
    work = "Shapley values, 20 P evaluations, 2 images"
    return compared(setting, work, given, *bars, model="digits CNN, GELU, max pooling", agree=None)


def rows(setting: Setting) -> Iterator[Row]:
    n, seeds, others = setting.pick(8, 1), setting.pick(3, 1), installed()
    for first, name in zip((True, False), NETS, strict=True):
        it = digits(setting, name, max(n, 2))
        if first:
            yield exact(setting, it)
            yield timed(setting, it)
        for times in setting.pick(BUDGETS, (2, 20)):
            many = 12 * seeds if times == 2 else seeds  # where a draw is but one order
            row = near_truth(it, times, many, {**(PEERS if times == 20 else {}), **others})
            beside = bars_of(row, first) if times == 20 else []
            yield judged(row, *beside, *within(others)) | {"model": f"digits CNN, {name}"}
    few, many = setting.pick((100, 10_000), (20, 40))
    calls = {f"{masks} masks": MASKS.format(n=masks) for masks in (many, few)}
    flat = Bar(f"{many} masks / {few} masks", 1.1, at_least=False)
    yield memory.measured(setting, "peak memory of Shapley values, more masks over fewer", calls, flat)
    it = table(setting, n)
    for times in setting.pick(BUDGETS, (2,)):
        row = near_truth(it, times, seeds, others)
        yield judged(row, *within(others)) | {"model": "table of 100 columns"}
