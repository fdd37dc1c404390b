"""What holds of every picture: whatever holds the numbers, what is refused, and what is left alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor

from attrfn import plot
from tests.tables.pictures import closed_figures as closed_figures
from tests.tables.pictures import pixels


class Picture(NamedTuple):
    """`draw`: of `values`, which its errors call `name`; any further arguments are options."""

    draw: Callable[..., Any]
    values: Tensor
    name: str


def whole(*shape: int) -> Tensor:
    """Whole numbers that every dtype holds exactly, rising so that they serve as times too."""
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape) - 2


ONES = torch.ones(1, 4, 4)
NAMES = ["a", "b", "c"]
ON_AXES = {
    "image": Picture(plot.image, whole(2, 4, 4), "attribution"),
    "photograph": Picture(lambda v, **o: plot.image(ONES, v, style="side_by_side", **o), whole(3, 4, 4), "image"),
    "bars": Picture(lambda v, **o: plot.bars(NAMES, v, **o), whole(4, 3), "attribution"),
    "layer": Picture(plot.layer, whole(2, 3), "attribution"),
    "series": Picture(lambda v, **o: plot.series(v, torch.ones(2, 5), **o), whole(2, 5), "attribution"),
    "signal": Picture(lambda v, **o: plot.series(torch.ones(2, 5), v, **o), whole(2, 5), "signal"),
    "times": Picture(lambda v, **o: plot.series(torch.ones(5), torch.ones(5), times=v, **o), whole(5), "times"),
    "gaps": Picture(lambda v, **o: plot.convergence({2: v}, **o), whole(3), r"gaps\[2\]"),
    "lines": Picture(lambda v, **o: plot.convergence({"a": {2: v}}, **o), whole(3), r"gaps\['a'\]\[2\]"),
    "curves": Picture(plot.curves, whole(2, 5), "outputs"),
    "sites": Picture(lambda v, **o: plot.sites(NAMES[:2], NAMES, v, **o), whole(2, 3), "attribution"),
    "edges": Picture(lambda v, **o: plot.edges(NAMES[:2], NAMES, v, **o), whole(2, 3), "attribution"),
    "pairs": Picture(plot.pairs, whole(3, 3), "interactions"),
    "named curves": Picture(lambda v, **o: plot.curves({"a": v}, **o), whole(2, 5), r"outputs\['a'\]"),
}
FIGURES = ON_AXES | {
    "rows": Picture(lambda v: plot.grid(v, {"a": torch.ones(2, 1, 4, 4)}), whole(2, 3, 4, 4), "rows"),
    "columns": Picture(lambda v: plot.grid(torch.ones(2, 1, 4, 4), {"a": v}), whole(2, 1, 4, 4), r"columns\['a'\]"),
}
PICTURES = FIGURES | {
    "text": Picture(lambda v: plot.text(NAMES, v), whole(3), "attribution"),
    "texts": Picture(lambda v: plot.text([NAMES, NAMES], v), whole(2, 3), "attribution"),
    "ragged": Picture(lambda v: plot.text([NAMES, ["d"]], [v, torch.ones(1)]), whole(3), r"attribution\[0\]"),
    "answer": Picture(lambda v: plot.answer(NAMES, NAMES[:2], v), whole(2, 3), "attribution"),
    "ansi": Picture(lambda v: plot.ansi(NAMES, v), whole(3), "attribution"),
}
GIVEN: dict[str, Callable[[Tensor], Any]] = {
    "bfloat16": lambda v: v.to(torch.bfloat16),
    "float16": lambda v: v.half(),
    "float64": lambda v: v.double(),
    "int64": lambda v: v.long(),
    "needs a gradient": lambda v: v.clone().requires_grad_() * 1,
    "inference": lambda v: torch.inference_mode()(v.clone)(),
    "strided": lambda v: v.repeat_interleave(2, dim=-1)[..., ::2],
    "sparse": lambda v: v.to_sparse(),
    "array": lambda v: v.numpy(),
    "backward array": lambda v: np.flip(np.flip(v.numpy()).copy()),
    "read-only array": lambda v: np.broadcast_to(v.numpy(), v.shape),
    "lists": lambda v: v.tolist(),
    "tensors": lambda v: list(v),
    "cuda": lambda v: v.cuda(),
}
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def seen(drawn: Any) -> Any:
    if isinstance(drawn, str):
        return drawn
    figure = drawn.figure if hasattr(drawn, "axison") else drawn
    return pixels(figure.axes[0])


@cache
def expected(picture: str) -> Any:
    return seen(PICTURES[picture].draw(PICTURES[picture].values))


SOON = ("image", "bars", "bfloat16", "lists")
"""Every picture takes its numbers by one function: some with all, all with some, and the rest when it may be slow."""


def marks(picture: str, name: str) -> list[pytest.MarkDecorator]:
    slow = [] if picture in SOON or name in SOON else [pytest.mark.slow]
    return [pytest.mark.cuda, NO_CUDA, *slow] if name == "cuda" else slow


@pytest.mark.parametrize(
    ("picture", "name"), [pytest.param(p, name, marks=marks(p, name)) for p in PICTURES for name in GIVEN]
)
def test_what_holds_the_numbers_changes_nothing(picture: str, name: str) -> None:
    draw, values, _ = PICTURES[picture]
    np.testing.assert_array_equal(seen(draw(GIVEN[name](values))), expected(picture))


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_the_numbers_are_what_is_drawn(picture: Picture) -> None:
    other = (picture.values**2 + torch.linspace(0, 1, picture.values.numel()).reshape(picture.values.shape)).cumsum(-1)
    assert np.any(seen(picture.draw(other)) != seen(picture.draw(picture.values)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_what_is_not_finite_is_refused_by_name(picture: Picture, value: float) -> None:
    values = picture.values.clone()
    values.view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"{picture.name} must be finite, .* the first at \(.*nan_to_num"):
        picture.draw(values)
    assert plt.get_fignums() == []


# A list for several texts is of their attributions: uneven rows are no fault of it.
ONE_ARRAY = {name: picture for name, picture in PICTURES.items() if name not in ("texts", "answer")}


@pytest.mark.parametrize("wrong", ["bool", "complex", "words", "meta", "none", "uneven"])
@pytest.mark.parametrize("picture", ONE_ARRAY.values(), ids=ONE_ARRAY)
def test_what_is_no_number_is_refused_by_name(picture: Picture, wrong: str) -> None:
    given = {
        "bool": picture.values > 0,
        "complex": picture.values.to(torch.complex64),
        "words": "attribution",
        "meta": picture.values.to("meta"),
        "none": object(),
        "uneven": [[1.0], [1.0, 2.0]],
    }[wrong]
    with pytest.raises(TypeError, match=f"{picture.name} must (be a tensor or an array|hold real numbers)"):
        picture.draw(given)
    assert plt.get_fignums() == []


FITS = {("layer", (2, 2, 2, 2, 2)), ("gaps", ()), ("lines", ())}
SHAPES = [(0,), (2, 0), (2, 2, 2, 2, 2), ()]


@pytest.mark.parametrize(("name", "shape"), [pair for pair in product(PICTURES, SHAPES) if pair not in FITS])
def test_shapes_that_do_not_fit_are_refused_by_name(name: str, shape: tuple[int, ...]) -> None:
    picture = PICTURES[name]
    with pytest.raises(ValueError, match=rf"{picture.name} must be .*but has the shape \({shape[0] if shape else ''}"):
        picture.draw(torch.ones(shape))
    assert plt.get_fignums() == []


@pytest.mark.parametrize("picture", ON_AXES.values(), ids=ON_AXES)
def test_draws_on_the_axes_given(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("show was called"))
    figure, (ax, other) = plt.subplots(1, 2)
    assert picture.draw(picture.values, ax=ax, title="a title") is ax
    assert ax.get_title() == "a title"
    assert not other.has_data()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("picture", ON_AXES.values(), ids=ON_AXES)
def test_axes_must_be_axes(picture: Picture) -> None:
    with pytest.raises(TypeError, match="ax must be matplotlib Axes, but is a str; pass one of"):
        picture.draw(picture.values, ax="upper left")


@pytest.mark.parametrize("picture", FIGURES.values(), ids=FIGURES)
def test_a_figure_of_its_own_cuts_nothing_off(picture: Picture) -> None:
    drawn = picture.draw(picture.values, **({"title": "A title"} if picture in ON_AXES.values() else {}))
    figure = drawn.figure if hasattr(drawn, "axison") else drawn
    figure.canvas.draw()
    inside = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert inside.x0 >= -0.5
    assert inside.y0 >= -0.5
    assert inside.x1 <= figure.bbox.x1 + 0.5
    assert inside.y1 <= figure.bbox.y1 + 0.5


# matplotlib is imported on use

CALLS = """
import sys, json
sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None
from attrfn import plot
said = {}
for name, call in {
    "image": lambda: plot.image([[1.0]]), "grid": lambda: plot.grid([[1.0]], {"a": [[1.0]]}),
    "bars": lambda: plot.bars(["a"], [1.0]), "layer": lambda: plot.layer([[1.0]]),
    "series": lambda: plot.series([1.0], [1.0]), "convergence": lambda: plot.convergence({1: 1.0}),
    "curves": lambda: plot.curves([1.0, 0.0]),
    "sites": lambda: plot.sites(["a"], ["b"], [[1.0]]), "edges": lambda: plot.edges(["a"], ["b"], [[1.0]]),
    "answer": lambda: plot.answer(["a"], ["b"], [[1.0]]),
    "text": lambda: plot.text(["a"], [1.0]), "ansi": lambda: plot.ansi(["a"], [1.0]),
}.items():
    try: said[name] = type(call()).__name__
    except ImportError as error: said[name] = str(error)
print(json.dumps(said))
"""


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_missing_extra_is_one_line() -> None:
    said = json.loads(run(CALLS))
    assert said.pop("text") == said.pop("ansi") == said.pop("answer") == "str"
    assert len(said) == 9
    for line in said.values():
        assert line.startswith("attrfn.plot needs matplotlib")
        assert line.endswith(": pip install 'attrfn[plot]'")
        assert "\n" not in line
