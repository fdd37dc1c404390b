"""Containers within containers: each floating member is an input as those beside it are, or the error names it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import attrfn


class Pair(NamedTuple):
    first: Any
    second: Any


class Checked(Pair):
    """As PackedSequence: a named tuple that looks at what it is made of."""

    def __new__(cls, first: Any, second: Any) -> "Checked":
        assert second is not None
        return super().__new__(cls, first, second)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        return self.out((self.inner(x) + h * c).tanh() + c**2)


WAYS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "tuple": (lambda x, h, c: (x, (h, c)), lambda p: p),
    "list": (lambda x, h, c: (x, [h, c]), lambda p: p),
    "named": (lambda x, h, c: (x, Pair(h, c)), lambda p: p),
    "checked": (lambda x, h, c: (x, Checked(h, c)), lambda p: p),
    "mapping": (lambda x, h, c: (x, {"h": h, "c": c}), lambda p: (p["h"], p["c"])),
    "deeper": (lambda x, h, c: (x, {"h": [h], "of": ({"c": c},)}), lambda p: (p["h"][0], p["of"][0]["c"])),
}


def model_of(net: Net, way: str) -> Callable[..., Tensor]:
    return lambda x, states: net(x, *WAYS[way][1](states))


def floats(value: Any) -> list[Tensor]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in floats(item)]
    return [] if value is None else [value]


METHODS: dict[str, Callable[..., Any]] = {
    "saliency": lambda model, x, start, rows: attrfn.saliency(model, x, 1, absolute=False),
    "integrated_gradients": lambda model, x, start, rows: attrfn.integrated_gradients(model, x, start, 6, target=1),
    "rtol": lambda model, x, start, rows: attrfn.integrated_gradients(model, x, start, 65, target=1, rtol=0.01),
    "deep_lift": lambda model, x, start, rows: attrfn.deep_lift(model, x, start, target=1),
    "gradient_shap": lambda model, x, start, rows: attrfn.gradient_shap(
        model, x, rows, target=1, stdevs=0.1, generator=torch.Generator().manual_seed(1)
    ),
    "deep_lift_shap": lambda model, x, start, rows: attrfn.deep_lift_shap(model, x, rows, target=1),
    "smooth_grad": lambda model, x, start, rows: attrfn.smooth_grad(
        lambda z: attrfn.saliency(model, z, 1), generator=torch.Generator().manual_seed(1)
    )(x),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", WAYS)
def test_nested_members_are_inputs_as_others_are(way: str, method: str) -> None:
    net = Net().double()
    x, h, c = torch.randn(2, 3).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    start = 0.1 * torch.randn(1, 3).double(), 0.2 * torch.randn(2, 4).double(), 0.3 * torch.randn(1, 4).double()
    rows = torch.randn(3, 3).double(), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    pack = WAYS[way][0]
    found = METHODS[method](model_of(net, way), pack(x, h, c), pack(*start), pack(*rows))
    expected = METHODS[method](net, (x, h, c), start, rows)
    assert type(found[1]) is type(pack(x, h, c)[1])
    for a, b in zip(floats(found), expected, strict=True):
        torch.testing.assert_close(a, b)
    assert all(t.abs().max() > 0 for t in floats(found))


@pytest.mark.parametrize("vectorize", [True, False])
def test_one_number_goes_with_all_members_of_a_part(vectorize: bool) -> None:
    net = Net().double()
    x, h, c = torch.randn(2, 3).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    model = model_of(net, "deeper")
    given = WAYS["deeper"][0](x, h, c)
    for start, same in (
        (0.5, (0.5, 0.5, 0.5)),
        (None, (0.0, 0.0, 0.0)),
        ((None, 0.5), (0.0, 0.5, 0.5)),
        ((0.25, {"of": 0.5}), (0.25, h, 0.5)),  # what a mapping omits stays
        ((0.25, {"h": [None], "of": ({"c": 0.5},)}), (0.25, 0.0, 0.5)),
    ):
        found = attrfn.integrated_gradients(model, given, start, 5, target=1, vectorize=vectorize)
        for a, b in zip(floats(found), attrfn.integrated_gradients(net, (x, h, c), same, 5, target=1), strict=True):
            torch.testing.assert_close(a, b)


def test_noise_is_contained_as_x_is() -> None:
    x, h = torch.ones(2, 3), torch.ones(2, 4)
    seen: list[Any] = []

    def attribute(z: Any) -> Any:
        seen.append(z)
        return z

    attrfn.smooth_grad(attribute, n_samples=1, stdevs=(0.0, {"h": 0.5}), vectorize=False)((x, {"h": h, "k": h}))
    noisy, states = seen[-1]
    assert torch.equal(noisy, x)
    assert torch.equal(states["k"], h)
    assert (states["h"] != h).all()


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        (
            (None, (0.1,)),
            ValueError,
            r"^baselines\[1\] must be contained as x\[1\] is, which is a tuple of 2, but is a ",
        ),
        ((None, torch.zeros(1, 4)), ValueError, r"^baselines\[1\] must be contained as x\[1\] is"),
        ((None, (0.1, "zero")), TypeError, r"^baselines\[1\]\[1\] must be contained as x\[1\]\[1\] is"),
        ((None, (0.1, torch.zeros(5))), ValueError, r"^baselines\[1\]\[1\] must broadcast to the shape of its input"),
        ((None, (0.1, torch.zeros(4, dtype=torch.int64))), TypeError, r"^baselines\[1\]\[1\] must be floating point"),
    ],
)
def test_errors_name_the_member(start: Any, error: type[Exception], words: str) -> None:
    x = (torch.randn(2, 3), (torch.randn(2, 4), torch.randn(2, 4)))
    with pytest.raises(error, match=words):
        attrfn.integrated_gradients(model_of(Net(), "tuple"), x, start, target=1)


def test_stdevs_have_the_members_of_x() -> None:
    x = {"x": torch.randn(2, 3), "states": {"h": torch.randn(2, 4)}}
    for stdevs, words in (
        ({"y": 0.1}, r"^stdevs has the keys \['y'\], which x, with the keys \['x', 'states'\], has not"),
        ({"states": {"c": 0.1}}, r"^stdevs\['states'\] has the keys \['c'\]"),
    ):
        with pytest.raises(ValueError, match=words):
            attrfn.smooth_grad(lambda z: z, stdevs=stdevs)(x)
        with pytest.raises(ValueError, match=words):
            attrfn.gradient_shap(lambda x, states: x.sum(1), x, x, stdevs=stdevs)


# ---------------------------------------------------------------- members that are no numbers


WITH_IDS: dict[str, Callable[..., Any]] = {
    "integrated_gradients": attrfn.integrated_gradients,
    "deep_lift": attrfn.deep_lift,
    "gradient_shap": attrfn.gradient_shap,
    "deep_lift_shap": attrfn.deep_lift_shap,
}


@pytest.mark.parametrize("method", WITH_IDS)
def test_a_reference_of_a_member_that_is_held_fixed_is_refused(method: str) -> None:
    x = (torch.randn(2, 4), torch.tensor([[0], [1]]))
    words = torch.nn.Embedding(3, 4)
    with pytest.raises(ValueError, match=r"^baselines\[1\] was given for a member of x that is not floating point and"):
        WITH_IDS[method](
            lambda x, ids: (x * words(ids[:, 0])).sum(1), x, (torch.zeros(2, 4), torch.zeros(2, 1, dtype=torch.int64))
        )


def test_a_layer_behind_ids_has_references_of_them() -> None:
    words = nn.Embedding(5, 4).double()
    ids, sample = torch.tensor([[0, 1], [2, 3]]), torch.tensor([[4, 4], [1, 0], [2, 2]])

    def model(ids: Tensor) -> Tensor:
        return words(ids).sum(1).tanh().sum(1)

    found = attrfn.layer_deep_lift_shap(model, words, ids, sample)
    torch.testing.assert_close(found.sum((1, 2)), model(ids) - model(sample).mean())


# ---------------------------------------------------------------- numbers of NumPy


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8])
def test_numbers_of_numpy_are_numbers(kind: Any) -> None:
    net, x = Net().double(), torch.randn(2, 3).double()

    def model(x: Tensor) -> Tensor:
        return net(x, x[:, :1], x[:, :1])

    torch.testing.assert_close(
        attrfn.integrated_gradients(model, x, kind(2), np.int32(5), target=1, chunk_size=np.int64(2)),
        attrfn.integrated_gradients(model, x, 2.0, 5, target=1),
    )
    noisy = attrfn.smooth_grad(lambda z: z, stdevs=kind(2), n_samples=np.int16(3), generator=torch.Generator())(x)
    assert torch.isfinite(noisy).all()
    with pytest.raises(TypeError, match="must be an int"):
        attrfn.integrated_gradients(model, x, 0.0, np.float64(5), target=1)
    with pytest.raises(TypeError):
        attrfn.integrated_gradients(model, x, np.bool_(True), 5, target=1)


# ---------------------------------------------------------------- packed sequences


class Reader(nn.Module):
    """Of packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, sequences: PackedSequence) -> Tensor:
        padded, _ = pad_packed_sequence(self.lstm(sequences)[0], batch_first=True)
        return self.out(padded.square().sum(1))


def test_packed_sequences_are_an_input() -> None:
    net, x = Reader().double(), torch.randn(3, 5, 3).double()
    packed = pack_padded_sequence(x, torch.tensor([5, 2, 3]), batch_first=True, enforce_sorted=False)
    data = packed.data.clone().requires_grad_()
    slope = torch.autograd.grad(net(PackedSequence(data, *packed[1:]))[:, 1].sum(), data)[0]
    found = attrfn.saliency(net, packed, 1, absolute=False)
    assert isinstance(found, PackedSequence)
    torch.testing.assert_close(found.data, slope)
    _, lengths = pad_packed_sequence(found, batch_first=True)
    assert lengths.tolist() == [5, 2, 3]
    path = attrfn.integrated_gradients(net, packed, n_steps=12, target=1, vectorize=False)
    zeros = PackedSequence(torch.zeros_like(packed.data), *packed[1:])
    sums = pad_packed_sequence(path, batch_first=True)[0].sum((1, 2))
    torch.testing.assert_close(sums, (net(packed) - net(zeros))[:, 1].detach(), rtol=1e-5, atol=1e-7)


def test_packed_sequences_are_an_activation() -> None:
    net, x = Reader().double(), torch.randn(3, 5, 3).double()
    packed = pack_padded_sequence(x, torch.tensor([5, 2, 3]), batch_first=True, enforce_sorted=False)
    output, (h, c) = attrfn.layer_gradient_x_activation(net, "lstm", packed, 1)
    assert isinstance(output, PackedSequence)
    torch.testing.assert_close(output.batch_sizes, packed.batch_sizes)
    value = net.lstm(packed)[0]
    slope = torch.autograd.grad(
        net.out(pad_packed_sequence(value, batch_first=True)[0].square().sum(1))[:, 1].sum(), value.data
    )
    torch.testing.assert_close(output.data, value.data.detach() * slope[0])
    assert not h.any()
    assert not c.any()
