"""Laws of value, over the table of methods: what an attribution must be, whatever the method."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.method import STEPS, Method, cut, is_nothing, sample, start, steps, suited, whole
from tests.tables.methods import METHODS
from tests.tables.models import Split, Weighted, images, relu_net, smooth_net
from tests.tables.references import Draw

NETS = {"smooth": smooth_net, "relu": relu_net}


def rows_where(flag: Callable[[Method], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [row for row in METHODS if flag(row)], ids=lambda row: row.name)


every = rows_where(lambda row: True)
repeatable = rows_where(lambda row: not row.random)


def same(one: Tensor, other: Tensor, within: float = 1e-11) -> None:
    torch.testing.assert_close(one, other, rtol=within, atol=within)


def explained_sum(row: Method, attribution: Tensor, net: Split, x: Tensor) -> tuple[Tensor, Tensor]:
    """Σ attribution, and f(x) - f(x') of the number that the row explains."""
    f = cut(net) if row.spec == "selector" else whole(net)
    before = torch.stack([f(start) for start in row.starts(x)]).mean(0)
    return attribution.flatten(1).sum(1), (f(x) - before).detach()


# ---------------------------------------------------------------- equals its reference


@repeatable
def test_equals_its_reference(row: Method) -> None:
    model, x = relu_net(), images()
    expected = row.reference(model, x).detach()
    assert expected.abs().sum() > 0.1
    same(row.call(model, x), expected)


@rows_where(lambda row: not row.random and not row.relu)
def test_equals_its_reference_on_a_smooth_net(row: Method) -> None:
    model, x = smooth_net(), images()
    same(row.call(model, x), row.reference(model, x).detach())


class Spy(Split):
    """The net, noting the points at which it was differentiated."""

    def __init__(self, net: Split, note: Callable[[Tensor], None]) -> None:
        super().__init__(net.head, net.tail)
        self.note = note

    def forward(self, x: Tensor) -> Tensor:
        followed = x.requires_grad
        if followed:  # first: the pass of a neuron ends in the head
            self.note(x.detach().clone())
        hidden = self.head(x)
        if hidden.requires_grad and not followed:
            self.note(x.detach().clone())
        return self.tail(hidden)


def draw_at(point: Tensor, x: Tensor, baselines: Tensor) -> Draw:
    """The draw (x, b, α) that led to `point` = b + α (x - b): the b on whose line to x it lies."""

    def off_line(b: Tensor) -> tuple[float, float]:
        alpha = float(((point - b) * (x - b)).sum() / ((x - b) ** 2).sum())
        return float((point - b - alpha * (x - b)).abs().max()), alpha

    found = [(*off_line(b[None]), b[None]) for b in baselines]
    distance, alpha, baseline = min(found, key=lambda each: each[0])
    assert distance < 1e-12
    assert 0 <= alpha <= 1
    return x, baseline, alpha


@rows_where(lambda row: row.mixes)
def test_equals_its_reference_of_two_examples(row: Method) -> None:
    """Of which there is one permutation."""
    net, x = smooth_net(), images(2)
    same(row.call(net, x), row.reference(net, x).detach())


@rows_where(lambda row: row.random and not row.mixes)
def test_equals_its_reference_at_its_own_draws(row: Method) -> None:
    net, x = smooth_net().requires_grad_(False), images()
    points: list[Tensor] = []
    attribution = row.call(Spy(net, points.append), x, vectorize=False)
    assert len(points) == row.settings["n_samples"]
    for i in range(len(x)):
        draws = [draw_at(point[i : i + 1], x[i : i + 1], sample(x)) for point in points]
        same(attribution[i : i + 1], row.reference(net, x[i : i + 1], draws).detach())


# ---------------------------------------------------------------- axioms


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@rows_where(lambda row: row.sums)
def test_complete(row: Method, net: Callable[[], Split]) -> None:
    model, x = net(), images()
    same(*explained_sum(row, row.call(model, x), model, x))


@rows_where(lambda row: row.in_limit)
def test_complete_in_the_limit(row: Method) -> None:
    net, x = smooth_net(), images()
    total, change = explained_sum(row, row.call(net, x, n_steps=20), net, x)
    same(total, change, 1e-9)


def mixtures(row: Method, a: float, f: Split, b: float, g: Split) -> tuple[nn.Module, nn.Module, nn.Module]:
    """a·f + b·g, f and g: what goes through a layer shares it, a neuron's own rows are mixed before it."""
    if row.place and row.spec == "target":
        return Split(f.head, Weighted(a, f.tail, b, g.tail)), f, Split(f.head, g.tail)
    if row.spec == "selector":
        return Split(Weighted(a, f.head, b, g.head), f.tail), f, g
    return Weighted(a, f, b, g), f, g


@rows_where(lambda row: row.linear)
def test_linear_in_the_model(row: Method) -> None:
    a, b = 2.0, -0.75
    both, f, g = mixtures(row, a, smooth_net(), b, smooth_net())
    x = images()
    same(row.call(both, x), a * row.call(f, x) + b * row.call(g, x))


@rows_where(lambda row: row.dummy)
def test_what_does_not_count_gets_nothing(row: Method) -> None:
    net, x = suited(row), images()
    blind = net.tail[1] if row.of == "layer" else net.head[0]  # the first weights behind what is attributed to
    with torch.no_grad():
        blind.weight[:, 0] = 0
    attribution = row.call(net, x)
    ignored = attribution[:, 0, 0, 0] if row.of == "layer" else attribution[:, 0]
    assert is_nothing(row, ignored)
    assert torch.count_nonzero(attribution) > 0


@repeatable
def test_batch_mates_do_not_matter(row: Method) -> None:
    net, x = suited(row), images()
    together = row.call(net, x)
    for i in range(len(x)):
        same(row.call(net, x[i : i + 1]), together[i : i + 1])


def multiplies(row: Method) -> bool:
    return {"baselines", "multiply_by_inputs"} <= {*inspect.signature(row.attribute).parameters}


@rows_where(multiplies)
def test_without_the_factor(row: Method) -> None:
    net, x = smooth_net(), images()
    # Of a sample of more than one the factor would differ from draw to draw.
    one = {"baselines": start(x)[:1]} if row.settings["baselines"] is sample else {}
    per_unit = row.call(net, x, multiply_by_inputs=False, **one)
    factor = net.head(x) - net.head(start(x)) if row.of == "layer" else x - start(x)
    same(factor.detach() * per_unit, row.call(net, x, **one))


# ---------------------------------------------------------------- how it is computed does not show


@pytest.mark.parametrize("chunk_size", [1, 2, 1000])
@rows_where(lambda row: row.steps)
def test_chunks_do_not_show(row: Method, chunk_size: int) -> None:
    net, x = smooth_net(), images()
    same(row.call(net, x, chunk_size=chunk_size), row.call(net, x))


@rows_where(lambda row: row.random)
def test_noise_does_not_depend_on_chunks(row: Method) -> None:
    net, x = smooth_net(), images()
    noisy = {"n_samples": 5} if row.mixes else {"stdevs": 0.3, "n_samples": 5}
    whole_run = row.call(net, x, **noisy)
    for how in ({"chunk_size": 1}, {"chunk_size": 2}, {"chunk_size": 1000}, {"vectorize": False}):
        same(row.call(net, x, **noisy, **how), whole_run)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@rows_where(lambda row: row.steps)
def test_vmap_equals_the_loop(row: Method, net: Callable[[], Split]) -> None:
    model, x = net(), images()
    same(row.call(model, x, vectorize=True), row.call(model, x, vectorize=False))


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@rows_where(lambda row: row.steps)
def test_one_batch_equals_the_loop(row: Method, net: Callable[[], Split], chunk_size: int | None) -> None:
    """Of four steps in chunks of three the last is a batch by itself."""
    model, x = net(), images()
    same(row.call(model, x, vectorize="fold", chunk_size=chunk_size), row.call(model, x, vectorize=False), 1e-12)


@rows_where(lambda row: row.steps)
def test_one_batch_equals_the_loop_in_single_precision(row: Method) -> None:
    net, x = smooth_net().float(), images().float()
    same(row.call(net, x, vectorize="fold"), row.call(net, x, vectorize=False), 1e-6)


@pytest.mark.parametrize("vectorize", ["loop", 2, None])
@rows_where(lambda row: row.steps)
def test_other_ways_are_refused(row: Method, vectorize: object) -> None:
    with pytest.raises((TypeError, ValueError), match="vectorize must be True, False or 'fold', but is"):
        row.call(smooth_net(), images(), vectorize=vectorize)


@pytest.mark.parametrize("method", ["gausslegendre", "riemann_left", "riemann_middle", "riemann_trapezoid"])
@rows_where(
    lambda row: (
        "method" in inspect.signature(row.attribute).parameters and row.settings.get("derivative") != "trapezoid"
    )
)
def test_chunks_do_not_show_with_any_rule(row: Method, method: str) -> None:
    net, x = smooth_net(), images(2)
    settings = {"method": method, "n_steps": STEPS + 3}
    same(row.call(net, x, chunk_size=3, **settings), row.call(net, x, vectorize=False, **settings))


@rows_where(lambda row: row.random)
def test_generator_alone_decides(row: Method) -> None:
    net, x = smooth_net(), images(6)
    noisy = {} if row.mixes else {"stdevs": 0.1}
    once = row.call(net, x, **noisy)
    torch.randn(3)
    before = torch.get_rng_state()
    same(row.call(net, x, **noisy), once, 0.0)
    assert torch.equal(torch.get_rng_state(), before)
    other = row.call(net, x, **noisy, generator=torch.Generator().manual_seed(8))
    assert not torch.equal(other, once)


def test_every_row_is_about_another_function_or_setting() -> None:
    names = [row.name for row in METHODS]
    assert len(names) == len(set(names))
    assert all(getattr(attrfn, row.attribute.__name__) is row.attribute for row in METHODS)


def test_references_of_sequential_nets_take_the_steps_apart() -> None:
    net, x = relu_net(), images()
    value = x
    for step in steps(net):
        value = step(value)
    same(value.detach(), whole(net)(x).detach(), 0.0)
