"""Every operation of attrfn's tables in every spelling: its attributions sum, or it is refused by name."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn._model import kernels
from attrfn._model.kernels.fallbacks import WITHOUT_RULES
from attrfn._rules.deep_lift import slopes
from attrfn._rules.deep_lift.input_pass import MULTIPLIER_RULES
from attrfn._torch.natives import NATIVES
from attrfn._torch.operations import ELEMENTWISE, Kind, names
from attrfn._torch.operations import OPERATIONS as RECORDS
from attrfn._torch.written_out import COMPOSITES, GATES, WRITTEN_OUT
from tests.tables.operations import OPERATIONS
from tests.tables.operations_linear import LINEAR_CALLS
from tests.tables.operations_many import MANY, grouped_product
from tests.tables.operations_nn import FUNCTIONAL, MODULES, REFUSED

Call = Callable[..., Tensor]


def flat(output: Any) -> Tensor:
    """One number for each example, in which every entry counts differently."""
    parts = output if isinstance(output, (tuple, list)) else (output,)
    parts = [torch.view_as_real(p.resolve_conj().resolve_neg()) if p.is_complex() else p for p in leaves(parts)]
    total = torch.zeros(parts[0].shape[0], dtype=parts[0].dtype)
    for part in parts:
        values = part.reshape(len(total), -1)
        total = total + values @ (1 + torch.arange(values.shape[1]).to(values.dtype).sin())
    return total


def leaves(parts: Any) -> list[Tensor]:
    """The tensors that are not of integers, of any depth."""
    inner = [p if isinstance(p, (tuple, list)) else (p,) for p in parts]
    return [t for group in inner for t in group if t.is_floating_point() or t.is_complex()]


def complete(f: Call, x: Tensor, start: Tensor) -> None:
    """Every example's attributions sum to what `flat` says of it."""
    owed = (flat(f(x.clone())) - flat(f(start.clone()))).detach()
    found = attrfn.deep_lift(lambda z: flat(f(z)), x, start).flatten(1).sum(1)
    scale = flat(f(x.clone())).abs().detach() + owed.abs() + 1e-3
    assert owed.abs().max() > 1e-6
    assert ((found - owed).abs() <= 1e-9 * owed.abs() + 1e-13 * scale).all(), (found, owed)


# ---------------------------------------------------------------- elementwise, in every spelling

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "prelu": (torch.tensor([0.25], dtype=torch.float64),),
    "threshold": (0.4, -0.2),
    "clamp": (-0.7, 0.6),
    "pow": (3,),
}
POSITIVE = {"log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "logit"}
DIFFERENT = {"clamp_min", "clamp_max", "float_power"}
"""Aliases that take other arguments, or answer in another dtype."""


def spellings(name: str) -> Iterator[tuple[str, Call]]:
    """Every function, method, in-place form and module of an operation that torch has."""
    rest = ARGUMENTS.get(name, ())
    record = RECORDS[name]
    called = [name, *(other for other in record.others.split() if other not in DIFFERENT)]
    for home in (torch, F, torch.special, Tensor):
        for n in called:
            for form in (n, f"{n}_"):
                function = getattr(home, form, None)
                if function is not None:
                    yield f"{home.__name__}.{form}", lambda z, f=function: f(z.clone(), *rest)
    if record.inplace is not None:
        yield "inplace=True", lambda z: getattr(F, name)(z.clone(), *rest, inplace=True)
        yield "input=", lambda z: getattr(F, name)(input=z, **_named(name, rest))
    if record.module is not None:
        yield record.module.__name__, record.module(*(() if name == "prelu" else rest)).double().eval()
        if record.inplace is not None:
            inplace = record.module(*rest, inplace=True).eval()
            yield f"{record.module.__name__}(inplace)", lambda z: inplace(z.clone())


def _named(name: str, rest: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("threshold", "value"), rest, strict=True)) if name == "threshold" else {}


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_every_spelling_of_an_elementwise_operation(name: str) -> None:
    x, start = 3 * torch.randn(2, 2, 5, dtype=torch.float64)
    if name in POSITIVE:
        x, start = 0.05 + 0.9 * torch.rand(2, 2, 5, dtype=torch.float64)
    if name == "log1p":
        x, start = x.abs(), start.abs()
    found = {label: attrfn.deep_lift(lambda z, f=f: f(z).sum(1), x, start) for label, f in spellings(name)}
    assert len(found) > 1
    first, call = next(iter(spellings(name)))
    complete(call, x, start)
    for label, attribution in found.items():
        torch.testing.assert_close(attribution, found[first], msg=f"{label} is not as {first}")


def test_elementwise_operators() -> None:
    x, start = 0.1 + torch.rand(2, 3, 4, dtype=torch.float64)
    for f in (
        lambda z: 1 / z, lambda z: 3.5 / z, lambda z: 2.5**z, lambda z: torch.pow(2.5, z), lambda z: abs(z - 0.5),
        lambda z: z**-2, lambda z: z**1.5, lambda z: z**2.0, lambda z: z.float_power(3), lambda z: z**z,
        lambda z: z.pow(torch.tensor(3.0)), lambda z: z ** torch.tensor([1.0, 2.0, 0.5, -1.0]),
        lambda z: z.clamp(min=z.roll(1, 1)), lambda z: z.clamp(z.roll(2, 1), z.roll(1, 1)), lambda z: z.clamp_min(0.5),
        lambda z: z.clamp_max(0.5), lambda z: z.clamp(torch.tensor(0.4)), lambda z: z.clip(max=0.7),
        lambda z: torch.stack([F.prelu(row - 0.5, row[0]) for row in z]),
    ):  # fmt: skip
        complete(f, x, start)


def test_random_slopes_sum() -> None:
    """Those that the pass drew; the warning that a sum is missed would be an error here."""
    x, start = torch.randn(2, 3, 4)
    attrfn.deep_lift(lambda z: F.rrelu(z, training=True).sum(1), x, start)


# ---------------------------------------------------------------- operations of the tables

WITHOUT = {Kind.OPENED, Kind.CELL, Kind.FUSED, Kind.LINEAR, Kind.CONSTANT}
CALLED = {**OPERATIONS, **MANY}
CLASSES = names(*set(Kind) - WITHOUT - {Kind.ELEMENTWISE})


def test_what_stands_apart_from_a_record_is_of_an_operation_that_has_one() -> None:
    """Formulas stand beside their mathematics: one for each operation whose kind needs it, none for another."""
    assert set(COMPOSITES) == names(Kind.MADE)
    assert set(WRITTEN_OUT) == names(Kind.OPENED, Kind.CELL) | set(NATIVES)
    assert {name.partition(".")[0] for name in NATIVES} <= set(RECORDS)
    in_operations = {"mul_by_reciprocal", "reciprocal_mul", *(gates.name for gates in GATES.values())}
    assert set(MULTIPLIER_RULES) - in_operations == CLASSES | ELEMENTWISE
    assert set(kernels.REWRITES) - set(WITHOUT_RULES) <= set(RECORDS)
    tables = [value for name, value in vars(slopes).items() if isinstance(value, dict) and name[:2] != "__"]
    assert tables
    assert all(set(table) <= ELEMENTWISE for table in tables)


def test_no_two_records_have_one_name() -> None:
    spelled = [name for record in RECORDS.values() for name in (record.name, *record.others.split())]
    assert len(spelled) == len(set(spelled))


def test_every_entry_of_the_tables_has_a_call() -> None:
    """A new entry is tested by being added: it must be called in `tests.tables.operations`."""
    assert {name for name in CLASSES if not any(key.split(",")[0] == name for key in CALLED)} == {"grouped_mm"}


def test_products_of_groups_sum() -> None:
    """In single precision, for which alone torch has a kernel."""
    x, start = torch.randn(2, 2, 4, 6)
    f = attrfn.deep_lift(lambda z: grouped_product(z).sum((1, 2)), x, start)
    owed = grouped_product(x).sum((1, 2)) - grouped_product(start).sum((1, 2))
    torch.testing.assert_close(f.sum((1, 2)), owed, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore:index_reduce.. is in beta")
@pytest.mark.parametrize("label", CALLED)
def test_operation(label: str) -> None:
    call, shape = CALLED[label]
    x, start = 1.5 * torch.randn(2, 2, *shape, dtype=torch.float64)
    complete(call, x, start)


def test_every_linear_operation_has_a_call() -> None:
    linear = names(Kind.LINEAR)
    assert {name for name in linear if not name.endswith("_") or name.endswith("__")} - set(LINEAR_CALLS) == set()
    assert set(LINEAR_CALLS) - linear == set()


@pytest.mark.parametrize("name", [name for name, call in LINEAR_CALLS.items() if call is not None])
def test_linear_operation(name: str) -> None:
    """Linear means that the plain gradient sums."""
    x, start = torch.randn(2, 2, 4, 6, dtype=torch.float64)
    complete(LINEAR_CALLS[name], x, start)


# ---------------------------------------------------------------- all of torch.nn


def walked(*modules: str) -> list[str]:
    return [name for part in modules for name in getattr(nn.modules, part).__all__ if not name.startswith("Lazy")]


PARTS = (
    "activation", "normalization", "batchnorm", "instancenorm", "pooling", "padding", "dropout", "upsampling", "conv",
    "linear", "distance", "fold", "pixelshuffle", "channelshuffle", "flatten", "rnn", "transformer",
)  # fmt: skip
INNER = {"RNNBase", "RNNCellBase", "SyncBatchNorm"}
"""Bases of others, and what needs a process group."""


@pytest.mark.parametrize("name", [name for name in walked(*PARTS) if name not in INNER])
def test_every_module_is_covered_or_refused(name: str) -> None:
    make, shape = MODULES[name]
    net = make().double().eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.7)
    check(net, name, shape)


INTERNAL = {
    "assert_int_or_pair", "boolean_dispatch", "handle_torch_function", "has_torch_function",
    "has_torch_function_unary", "has_torch_function_variadic", "Optional", "one_hot", "scaled_mm", "scaled_grouped_mm",
    "grouped_mm", "linear_cross_entropy", "native_channel_shuffle",
}  # fmt: skip
"""No operations, or without a gradient."""


def functions() -> list[str]:
    found = [name for name in dir(F) if not name.startswith("_") and callable(getattr(F, name))]
    return [name for name in found if name not in INTERNAL and not isinstance(getattr(F, name), type)]


@pytest.mark.filterwarnings("ignore:.*is deprecated. Use", "ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", functions())
def test_every_function_is_covered_or_refused(name: str) -> None:
    call, shape = FUNCTIONAL[name]
    check(call, name, shape)


def check(call: Call, name: str, shape: tuple[int, ...]) -> None:
    x, start = torch.randn(2, 2, *shape, dtype=torch.float64)
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"'{REFUSED[name]}'.* has no DeepLIFT rule"):
            attrfn.deep_lift(lambda z: flat(call(z)), x, start)
    else:
        complete(call, x, start)


WITHOUT_RULE = {
    "erfinv": (), "atan2": (torch.ones(4),), "logcumsumexp": (1,), "mode": (1,), "nanmedian": (1,),
    "renorm": (2, 0, 1.0), "nanquantile": (0.5, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_RULE)
def test_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}', which ran in .*, has no DeepLIFT rule; give it one with"):
        attrfn.deep_lift(lambda z: flat(getattr(torch, name)(z, *WITHOUT_RULE[name])), torch.rand(2, 4))
