"""Exported programs: equal to the attribution wherever they run, or refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.exports import SIZES, expected, explained, program, soon

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch's own

ALONE = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "attrfn":
            raise ImportError(name)

sys.meta_path.insert(0, Without())
try:
    import attrfn
except ImportError:
    import torch
else:
    raise SystemExit("attrfn is here")
for path in sys.argv[1:]:
    program = torch.export.load(path + ".pt2").module()
    with torch.no_grad():
        torch.save([program(*x) for x in torch.load(path + ".in")], path + ".out")
assert "attrfn" not in sys.modules
"""


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@soon(("residual", "deep_lift"))
def test_programs_run_without_attrfn(names: list[tuple[str, str]], tmp_path: Path) -> None:
    """In a process of their own, in which attrfn cannot be imported."""
    paths = [tmp_path / f"{name}-{method}" for name, method in names]
    for path, (name, method) in zip(paths, names, strict=True):
        torch.export.save(program(name, method), f"{path}.pt2")
        torch.save([(explained()[name].inputs(n),) for n in SIZES], f"{path}.in")
    subprocess.run([sys.executable, "-I", "-c", ALONE, *map(str, paths)], check=True)
    for path, (name, method) in zip(paths, names, strict=True):
        found = torch.load(f"{path}.out")
        assert [output.shape[0] for output, _ in found] == list(SIZES)
        same(found, expected(name, method))


# ---------------------------------------------------------------- what a program is


@pytest.mark.parametrize("name", ["residual", pytest.param("encoder", marks=pytest.mark.slow)])
def test_weights_keep_their_names(name: str) -> None:
    weights = explained()[name].model.state_dict()
    found = program(name, "saliency").state_dict
    assert sorted(found) == sorted(weights)
    assert all(torch.equal(found[key], value) for key, value in weights.items())


class Odd(nn.Module):
    """A tied weight, a buffer that is not saved, weights that nothing uses, and an activation set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(2, 2)
        self.last.weight = self.first.weight
        self.register_buffer("scale", torch.tensor([2.0, 3.0, 5.0]), persistent=False)
        self.aside: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.aside = self.first(x * self.scale)
        return self.last(self.aside.tanh())


def test_tied_unsaved_and_unused_weights() -> None:
    net, x = Odd(), torch.randn(2, 3)
    found = attrfn.export(net, lambda model, x: attrfn.integrated_gradients(model, x, n_steps=3, target=1), x)
    assert sorted(found.state_dict) == sorted(net.state_dict())
    same(found.module()(2 * x)[1], attrfn.integrated_gradients(net, 2 * x, n_steps=3, target=1))


def test_the_model_is_as_it_was() -> None:
    net, x = Odd(), torch.randn(2, 3)
    before = [set(vars(module)) for module in net.modules()]
    attrfn.export(net, lambda model, x: attrfn.layer_grad_cam(model, "first", x, model(x).argmax(1)), x)
    with pytest.raises(ValueError, match="fixes the number of examples"):
        attrfn.export(net, lambda model, x: attrfn.saliency(model, x, [0, 1]) * model(x), x)
    assert [set(vars(module)) for module in net.modules()] == before
    assert type(net.aside) is Tensor
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_steps_are_a_loop() -> None:
    of = explained()["residual"]

    def path(n_steps: int) -> torch.export.ExportedProgram:
        return attrfn.export(of.model, lambda m, x: attrfn.integrated_gradients(m, x, 0.1, n_steps, target=3), of.x)

    many = path(100)
    assert len(many.graph.nodes) == len(path(2).graph.nodes)
    x = of.inputs(3)
    same(many.module()(x)[1], attrfn.integrated_gradients(of.model, x, 0.1, 100, target=3))
    assert not many.module()(x)[1].requires_grad


def test_what_the_attribution_closes_over_is_copied() -> None:
    net, x, start = nn.Sequential(nn.Linear(3, 2), nn.Tanh()), torch.randn(1, 3), torch.zeros(3)
    found = attrfn.export(net, lambda model, x: attrfn.deep_lift(model, x, start, target=1), x).module()
    before = found(x)
    start += 1
    same(found(x), before)


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_size_that_is_fixed(dynamic: bool) -> None:
    net, x, targets = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(2, 3), [1, 3]

    def attribute(model: nn.Module, x: Tensor) -> Tensor:
        return attrfn.integrated_gradients(model, x, n_steps=5, target=targets)

    if dynamic:
        with pytest.raises(ValueError, match=r"fixes the number of examples, here 2 .*dynamic_batch=False"):
            attrfn.export(net, attribute, x)
    else:
        found = attrfn.export(net, attribute, x, dynamic_batch=False)
        same(found.module()(-x), (net(-x), attribute(net, -x)))


# ---------------------------------------------------------------- containers


class Pair(nn.Module):
    """Two inputs and a mask, by position or by name; an output with `.logits`."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Linear(3, 4)

    def forward(self, mask: Tensor, left: Tensor, right: Tensor) -> Any:
        return {"logits": self.tail(left.tanh() * right * mask), "mask": mask}


def pairs(n: int) -> dict[str, Tensor]:
    return {"mask": (torch.randn(n, 3) > 0).long(), "left": torch.randn(n, 3), "right": torch.randn(n, 3)}


def test_a_mapping_of_one_example() -> None:
    net = Pair()
    found = attrfn.export(net, lambda model, x: attrfn.deep_lift(model, x, target=2), pairs(1)).module()
    x = pairs(4)
    output, attribution = found(**x)
    same(output, net(**x)["logits"])
    assert attribution["mask"] is None
    same(attribution, attrfn.deep_lift(net, x, target=2))


def test_a_tuple_and_a_list_of_layers() -> None:
    net = Pair()

    def attribute(model: nn.Module, x: Any) -> Any:
        whole = attrfn.input_x_gradient(model, x, 2)
        return {"inputs": whole, "layers": attrfn.layer_gradient_x_activation(model, ["tail"], x, 2)}

    found = attrfn.export(net, attribute, tuple(pairs(2).values())).module()
    x = tuple(pairs(3).values())
    same(found(*x)[1], attribute(net, x))


def test_one_tensor_given_twice_is_two_inputs() -> None:
    net, same_tensor = Pair(), torch.randn(2, 3)
    found = attrfn.export(
        net, lambda m, x: attrfn.input_x_gradient(m, x, 2), (same_tensor.sign(), same_tensor, same_tensor)
    )
    x = tuple(pairs(3).values())
    same(found.module()(x[0].float(), *x[1:])[1][1:], attrfn.input_x_gradient(net, x, 2)[1:])


@pytest.mark.slow
def test_token_ids_of_a_hugging_face_model() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=30, **sizes)).eval()

    def attribute(model: Any, x: Any) -> Tensor:
        words, padding = model.get_input_embeddings(), {"input_ids": torch.zeros_like(x["input_ids"])}
        return attrfn.layer_integrated_gradients(model, words, x, padding, n_steps=5, target=1)

    def batch(ids: list[list[int]]) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor(ids), "attention_mask": (torch.tensor(ids) != 0).long()}

    found = attrfn.export(bert, attribute, batch([[2, 17, 5, 3]])).module()
    x = batch([[2, 30 - 1, 3, 0], [2, 4, 5, 6], [2, 3, 0, 0]])
    with torch.no_grad():
        same(found(**x), (bert(**x).logits, attribute(bert, x)))


# ---------------------------------------------------------------- what cannot be one


def test_a_program_that_differs_is_refused() -> None:
    calls: list[int] = []

    def attribute(model: nn.Module, x: Tensor) -> Tensor:
        calls.append(1)
        return attrfn.saliency(model, x, 1) * len(calls)

    with pytest.raises(RuntimeError, match=r"the program's attribution at N = 1 .* misses the attribution by 1 "):
        attrfn.export(nn.Linear(3, 2), attribute, torch.randn(1, 3))


class Branching(nn.Module):
    """Another way for many examples."""

    def forward(self, x: Tensor) -> Tensor:
        return (x**2).sum(1) if x.shape[0] < 20 else (x**3).sum(1)


def test_a_branch_on_the_number_of_examples_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"the program's output at N = 20"):
        attrfn.export(Branching(), attrfn.saliency, torch.randn(2, 3))
    found = attrfn.export(Branching(), attrfn.saliency, torch.randn(2, 3), dynamic_batch=False)
    same(found.module()(torch.ones(2, 3))[1], 2 * torch.ones(2, 3))


@pytest.mark.parametrize("layer", [nn.LSTM, pytest.param(nn.GRU, marks=pytest.mark.slow)])
def test_recurrent_layers(layer: type[nn.Module]) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.tail = layer(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.tail(self.layer(x)[0][:, -1])

    net = Recurrent()
    found = attrfn.export(net, lambda model, x: attrfn.saliency(model, x, 1), torch.randn(1, 4, 3)).module()
    x = torch.randn(3, 4, 3)
    same(found(x)[1], attrfn.saliency(net, x, 1))
