"""Models that write or draw as they run: in-place first operations, train-mode batch norm, dropout."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._model.kept.memory import Memory
from attrfn._sampling import held
from tests.tables.method import Method, in_training, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images, rows, smooth_net

every = pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
pytestmark = in_training

# ---------------------------------------------------------------- a first operation in place


class Doubled(Split):
    """2x first, written over the input, as some models preprocess. `unspoilt` is the same without writing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))

    def unspoilt(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


@pytest.mark.parametrize("vectorize", [True, False])
@every
def test_the_input_is_not_written_over(row: Method, vectorize: bool) -> None:
    net = smooth_net()
    head = nn.Sequential(*net.head, nn.ReLU()) if row.relu else net.head
    net, x = Doubled(head, net.tail).eval(), images()
    before = x.clone()
    given = {"vectorize": vectorize} if row.steps else {}
    expected = row.call(net.unspoilt, x, **row.by_module(net), **given)
    found = row.call(net, x, **given)
    assert torch.equal(x, before)
    assert x._version == 0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_baselines_are_not_written_over() -> None:
    net = smooth_net()
    net, x, start = Doubled(net.head, net.tail).eval(), images(), images()
    before = start.clone()
    attrfn.integrated_gradients(net, x, start, 3, target=0)
    attrfn.deep_lift(net, x, start, target=0)
    attrfn.layer_integrated_gradients(net, "head", x, start, 3, target=0)
    attrfn.layer_deep_lift(net, "head", x, start, target=0)
    attrfn.convergence_delta(net, x, x, start, target=0)
    assert torch.equal(start, before)
    assert start._version == 0


def test_judges_do_not_write_over_the_input() -> None:
    net = smooth_net()
    net, x = Doubled(net.head, net.tail).eval(), images()
    before = x.clone()
    attrfn.convergence_delta(net, x, x, target=0)
    attrfn.infidelity(net, x, x, lambda x, generator: (0.1 * x, 0.9 * x), target=0, n_samples=2)
    attrfn.sensitivity_max(lambda x: attrfn.saliency(net, x, 0), x, n_samples=2)
    attrfn.smooth_grad(lambda x: attrfn.saliency(net, x, 0), n_samples=2)(x)
    attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(2))
    assert torch.equal(x, before)
    assert x._version == 0


# ---------------------------------------------------------------- batch norm in train mode


def normed(momentum: float | None = 0.1) -> Split:
    """Batch norm that has seen one batch, in train mode: (N, 3) -> (N, 4)."""
    norm = nn.BatchNorm1d(5, momentum=momentum)
    net = Split(nn.Sequential(nn.Linear(3, 5), norm, nn.Tanh()), nn.Linear(5, 4)).double().train()
    net(rows(6))
    return net


def buffers(net: nn.Module) -> list[tuple[Any, ...]]:
    return [(id(b), b._version, b.clone().flatten().tolist()) for b in net.buffers()]


class Holder:
    """A callable of the caller's own, which holds its net where no closure shows it."""

    def __init__(self, net: nn.Module) -> None:
        self.nets = {"net": net}

    def __call__(self, x: Tensor) -> Tensor:
        return self.nets["net"](x)


CALLABLES: dict[str, Callable[[nn.Module], Callable[..., Any]]] = {
    "module": lambda net: net,
    "function": lambda net: lambda x: net(x),
    "method": lambda net: net.forward,
    "object": Holder,
}

BY_INPUT: dict[str, Callable[..., Tensor]] = {
    "saliency": lambda model, x: attrfn.saliency(model, x, 1, absolute=False),
    "integrated_gradients": lambda model, x: attrfn.integrated_gradients(model, x, n_steps=3, target=1),
    "by the loop": lambda model, x: attrfn.integrated_gradients(model, x, n_steps=3, target=1, vectorize=False),
    "deep_lift": lambda model, x: attrfn.deep_lift(model, x, target=1),
    "convergence_delta": lambda model, x: attrfn.convergence_delta(model, x, x, target=1),
}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("kind", CALLABLES.values(), ids=CALLABLES)
@pytest.mark.parametrize("method", BY_INPUT.values(), ids=BY_INPUT)
def test_buffers_of_batch_norm_stay(
    method: Callable[..., Tensor], kind: Callable[..., Any], momentum: float | None
) -> None:
    """`num_batches_tracked` too: all of a buffer that can be told, its version included."""
    net, x = normed(momentum), rows(6)
    before = buffers(net)
    method(kind(net), x)
    assert buffers(net) == before
    assert net.head[1].training


@every
def test_buffers_stay_in_every_method(row: Method) -> None:
    net = smooth_net()
    activation = nn.ReLU() if row.relu else nn.Tanh()
    net = Split(nn.Sequential(*net.head, nn.BatchNorm2d(3).double(), activation), net.tail).train()
    before = buffers(net)
    row.call(net, images())
    row.call(net, images(), create_graph=True)
    assert buffers(net) == before


def test_batch_norm_uses_the_batch() -> None:
    """Equal to plain autograd through the statistics of the batch; on a path, of the batch at each point."""
    net, x = normed(), rows(6)
    found = attrfn.saliency(net, x, 1, absolute=False)
    path = attrfn.integrated_gradients(net, x, n_steps=3, target=1, method="riemann_middle")

    def slope(at: Tensor) -> Tensor:
        leaf = at.clone().requires_grad_()
        return torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0]

    torch.testing.assert_close(found, slope(x))
    expected = x * torch.stack([slope(x * (k + 0.5) / 3) for k in range(3)]).mean(0)
    torch.testing.assert_close(path, expected)
    assert not torch.allclose(found, attrfn.saliency(net.eval(), x, 1, absolute=False))


def test_other_buffers_written_in_train_mode_stay() -> None:
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), nn.Tanh()).double().train()
    net(rows())
    before = [b.clone() for b in net.buffers()]
    attrfn.saliency(net, rows(), 1)
    attrfn.integrated_gradients(net, rows(), target=1, vectorize=False)
    assert all(map(torch.equal, net.buffers(), before))


class Bound(nn.Module):
    """Binds tensors to its names at every run: a buffer made anew, a cache filled once, its activation set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))
        self.scale: Tensor | None = None
        self.kept: Tensor | None = torch.zeros(1)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs = self.runs + 1
        if self.scale is None:
            self.scale = 1 + 0 * x[:1].detach().mean()
        self.hidden, self.kept, self.count = x * self.scale, None, self.count + 1
        return self.hidden


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@every
def test_tensors_that_a_model_binds_are_put_back(row: Method, train: bool) -> None:
    """They would be of a transform that is over, and the count beside them would be of other tensors."""
    net = suited(row)
    net.head.add_module("binding", Bound())
    net.train(train)
    bound = net.head.binding
    before, kept = bound.runs, bound.kept
    row.call(net, images())
    assert bound.runs is before
    assert bound.scale is None
    assert bound.kept is kept
    assert not hasattr(bound, "hidden")
    assert bound.count == 0
    net(images()).sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_scripted_model_runs_where_no_rule_is_asked_for() -> None:
    net, x = nn.Linear(3, 4).double(), rows()
    traced = torch.jit.trace(net, x)
    torch.testing.assert_close(attrfn.saliency(traced, x, 1), attrfn.saliency(net, x, 1))
    found = attrfn.integrated_gradients(traced, x, n_steps=3, target=1, vectorize=False)
    torch.testing.assert_close(found, attrfn.integrated_gradients(net, x, n_steps=3, target=1))


def scripted() -> tuple[nn.Module, nn.Module]:
    """A model with a scripted part, and the same in Python."""
    torch.manual_seed(0)
    first, rest = nn.Sequential(nn.Linear(3, 6), nn.Tanh()).double(), nn.Sequential(nn.Linear(6, 4), nn.Tanh()).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.script(first), rest), nn.Sequential(first, rest)


FORMS: dict[str, Callable[[nn.Module], Any]] = {
    "module": lambda net: net,
    "function": lambda net: lambda z: net(z),
    "method of an object": lambda net: SimpleNamespace(net=net, ask=lambda z: net(z)).ask,
}
SECOND: dict[str, Callable[..., Tensor]] = {
    "hessians": lambda net, x, **how: attrfn.integrated_hessians(net, x, n_steps=3, target=1, **how),
    "a gradient as a loss": lambda net, x, **how: torch.autograd.grad(
        attrfn.integrated_gradients(net, x, n_steps=3, target=1, create_graph=True, **how).square().sum(), x
    )[0],
    "conductance": lambda net, x, **how: attrfn.layer_conductance(net, net[1][0], x, None, 3, target=1, **how),
}


@pytest.mark.parametrize(
    ("way", "form"),
    [(way, form) for way in SECOND for form in FORMS if way != "conductance" or form == "module"],
)
def test_derivatives_that_torch_script_loses(way: str, form: str) -> None:
    """Torch gives wrong numbers in silence: second derivatives of nested transforms, and no forward ones."""
    (hidden, plain), x = scripted(), rows().requires_grad_()
    expected = SECOND[way](FORMS[form](plain), x)
    for how in (False, "fold"):
        torch.testing.assert_close(SECOND[way](FORMS[form](hidden), x, vectorize=how), expected)
    with pytest.raises(RuntimeError, match=r"TorchScript RecursiveScriptModule(.|\n)*vectorize=False"):
        SECOND[way](FORMS[form](hidden), x)
    if way == "conductance":
        SECOND[way](hidden, x, derivative="difference")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("way", SECOND)
def test_a_traced_part_keeps_its_derivatives(way: str) -> None:
    (_, plain), x = scripted(), rows().requires_grad_()
    traced = nn.Sequential(torch.jit.trace(plain[0], rows()), plain[1])
    torch.testing.assert_close(SECOND[way](traced, x), SECOND[way](plain, x))


# ---------------------------------------------------------------- dropout


def dropping() -> Split:
    """Dropout in train mode. (N, 3) -> (N, 4)."""
    head = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Tanh())
    return Split(head, nn.Sequential(nn.Dropout(0.25), nn.Linear(16, 4))).double().train()


PATHS: dict[str, Callable[..., Tensor]] = {
    "integrated_gradients": lambda net, x, **given: attrfn.integrated_gradients(net, x, n_steps=6, target=1, **given),
    "layer_integrated_gradients": lambda net, x, **given: attrfn.layer_integrated_gradients(
        net, "head.0", x, n_steps=6, target=1, **given
    ),
    "layer_conductance": lambda net, x, **given: attrfn.layer_conductance(
        net, "head.0", x, n_steps=6, target=1, **given
    ),
    "internal_influence": lambda net, x, **given: attrfn.internal_influence(
        net, "head.0", x, n_steps=6, target=1, **given
    ),
}
paths = pytest.mark.parametrize("method", PATHS.values(), ids=PATHS)


@paths
def test_chunks_see_one_draw_of_dropout(method: Callable[..., Tensor]) -> None:
    net, x = dropping(), rows()
    found: list[Tensor] = []
    for chunk_size in (None, 1, 4, 6):
        torch.manual_seed(3)
        found.append(method(net, x, chunk_size=chunk_size))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-12)
    torch.manual_seed(4)
    assert not torch.allclose(method(net, x), found[0])


def test_dropout_on_a_path_is_one_draw() -> None:
    """Equal to plain autograd that takes the same masks at every point; the state moves on as by one pass."""
    net, x = dropping(), rows()

    def slope(at: Tensor) -> Tensor:
        torch.manual_seed(3)
        leaf = at.clone().requires_grad_()
        return torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0]

    expected = x * torch.stack([slope(x * (k + 0.5) / 4) for k in range(4)]).mean(0)
    after = torch.get_rng_state()
    for given in ({}, {"chunk_size": 1}, {"chunk_size": 3}, {"vectorize": False}):
        torch.manual_seed(3)
        found = attrfn.integrated_gradients(net, x, n_steps=4, target=1, method="riemann_middle", **given)
        torch.testing.assert_close(found, expected)
        assert torch.equal(torch.get_rng_state(), after), given


def test_deep_lift_drops_the_same_in_both_passes() -> None:
    net, x = dropping(), rows()
    torch.manual_seed(3)
    found = attrfn.deep_lift(net, x, 0.5, target=1)
    outputs: list[Tensor] = []
    for at in (x, torch.full_like(x, 0.5)):
        torch.manual_seed(3)
        outputs.append(net(at)[:, 1])
    torch.testing.assert_close(found.sum(1), (outputs[0] - outputs[1]).detach())


@pytest.mark.parametrize("how", ["hook", "pre-hook", "forward of its own"])
def test_what_is_bound_to_a_module_of_torchs_own_is_put_back(how: str) -> None:
    """Such a module binds nothing itself, so that it is looked at only if the caller made it do more."""
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU()).double()
    first: Any = net[0]

    def keep(module: Any, *values: Any) -> None:
        module.kept = values[-1]

    if how == "hook":
        first.register_forward_hook(keep)
    elif how == "pre-hook":
        first.register_forward_pre_hook(keep)
    else:
        own = first.forward
        first.forward = lambda x: (keep(first, x), own(x))[1]
    x = torch.randn(3, 5, dtype=torch.float64)
    net(x)
    before = first.kept
    attrfn.saliency(net, x, 1)
    attrfn.layer_gradient_x_activation(net, net[0], x, 1)
    assert first.kept is before


def test_saliency_draws_as_the_model_does() -> None:
    net, x = dropping(), rows().requires_grad_()
    torch.manual_seed(3)
    (expected,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    torch.testing.assert_close(attrfn.saliency(net, x, 1, absolute=False), expected)
    assert torch.equal(torch.get_rng_state(), after)


# ---------------------------------------------------------------- what no pass writes to


@pytest.mark.parametrize("vectorize", [True, "fold"])
@every
def test_what_is_not_written_is_not_copied(row: Method, vectorize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lazy copy becomes a real one as soon as somebody asks for the address of its numbers."""
    shared: list[bool] = []
    changed = Memory.changed

    def noted(memory: Memory) -> bool:
        shared.append(torch._C._is_cow_tensor(memory.alias))  # pyright: ignore
        return changed(memory)

    monkeypatch.setattr(Memory, "changed", noted)
    monkeypatch.setattr(held, "_SMALL", 0)  # so that what the passes hold is counted here too
    row.call(suited(row), images(), **(dict[str, Any](vectorize=vectorize) if row.steps else {}))
    assert shared
    assert all(shared)
