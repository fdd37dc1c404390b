"""What a call says when it fails: short, and in the words of the caller."""

import dis
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, TracebackType
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import call, describe, is_int, leaves_of, refuse_class
from attrfn._torch import transformed

_CAPTUMS = {
    "inputs": "pass x, the second argument (of a layer method the third)",
    "forward_func": "pass model, the first argument",
    "additional_forward_args": "close over them, such as lambda x: model(x, mask), or make them members of x",
    "internal_batch_size": "pass chunk_size",
    "perturbations_per_eval": "pass chunk_size",
    "n_samples_batch_size": "pass chunk_size",
    "nt_samples_batch_size": "pass chunk_size to smooth_grad",
    "nt_samples": "pass n_samples to smooth_grad",
    "nt_type": "pass kind to smooth_grad",
    "stdevs": "noise is added by smooth_grad(lambda x: ..., stdevs=...)(x)",
    "return_convergence_delta": "call convergence_delta(model, attributions, x, baselines, target=...)",
    "neuron_selector": "pass selector, the third argument",
    "abs": "pass absolute",
    "attribute_to_layer_input": 'pass at(layer, "input") as the layer',
    "attribute_to_neuron_input": 'pass at(layer, "input") as the layer',
    "relu_attributions": "pass relu",
    "attr_dim_summation": "pass sum_channels",
    "grad_kwargs": "pass create_graph=True to keep the graph",
    "draw_baseline_from_distrib": "pass baselines a function of x that draws them",
    "perturb_func": "pass perturb",
    "perturb_radius": "pass radius",
    "n_perturb_samples": "pass n_samples",
    "explanation_func": "pass attribute, a function of x",
    "device_ids": "pass the model and x where they are to run",
}
"""Keywords of Captum's, and attrfn's way."""

_SHARDED = {
    "storage of size 0": "the pass stopped at a layer, so that FSDP let go of weights before the gradient was taken: "
    "shard with fully_shard(..., reshard_after_forward=False)",
    "mixed torch.Tensor and DTensor": "a part of the model is sharded over devices, and here it meets numbers that are "
    "not: of a layer, name one whose activation is no DTensor; of vmap and forward derivatives, pass vectorize=False",
}
"""Of errors about models over several devices, what they come of and what to do."""

_REFUSALS = (TypeError, ValueError, IndexError)
_PLAIN = (RuntimeError, TypeError, ValueError, IndexError, KeyError, NotImplementedError, AssertionError)


class Given:
    """What a public function was called with, asked for by name."""

    def __init__(
        self, function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], *, makes: bool = False
    ) -> None:
        self.function, self.places = function, {name: k for k, name in enumerate(parameters)}
        self.in_order = [name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY]
        self.makes = makes
        """Whether the function answers a function, which is then called with x."""

    def value(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An argument; `None` where it was left out, or where there is none of that name."""
        place = self.places.get(name, len(args))
        return kwargs.get(name, args[place] if place < len(args) else None)

    def class_as_baseline(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
        """The whole number that came for `baselines` where no target was given, which may have been meant for one."""
        value = self.value("baselines", args, kwargs) if "target" in self.places else None
        if not is_int(value):
            return None
        return int(value) if self.value("target", args, kwargs) is None else None

    def in_place_of(self, error: Exception, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Exception | None:
        """What helps more than an error of this call; `None`, and perhaps more is said in the error, where nothing."""
        if isinstance(error, TypeError) and (other := self._refused(args, kwargs)) is not None:
            return other
        number = self.class_as_baseline(args, kwargs)
        if number is not None and type(error) is ValueError and str(error).startswith("target is None"):
            error.args = (f"{error}; {number} was taken for baselines: to explain that class, pass target={number}",)
        _add_sharding(error)
        x = self.value("x", args, kwargs)
        if x is not None and not transformed():
            _add_inputs(error, x)
        return None

    def _refused(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TypeError | None:
        try:
            refuse_class(self.value("model", args, kwargs))
        except TypeError as error:
            return error.with_traceback(None)
        if self.makes and len(args) > len(self.in_order):
            call = f"{self.function.__name__}({', '.join(self.in_order)})".replace("attribute", "f")
            return TypeError(f"{call} answers a function, to be called with x: write {call}(x)")
        unknown = [name for name in kwargs if name not in self.places and name in _CAPTUMS]
        if not unknown:
            return None
        ways = "; ".join(f"in place of {name!r}, {_CAPTUMS[name]}" for name in unknown)
        return TypeError(
            f"{self.function.__name__}() got an unexpected keyword argument {unknown[0]!r}, which is Captum's: {ways}"
        )


def shortened(error: Exception) -> Exception:
    """Of the way to an error of the model's own is left what lies in the model; to a refusal, the refusal beside.

    Of any other error, which is a fault of attrfn's, all is left but this call's frame.
    """
    if error.__cause__ is not None:
        _shorten(error.__cause__)
    _shorten(error)
    return error


def _shorten(error: BaseException) -> None:
    links = _links(error)
    if not links:
        return
    inside = _of_model(links)
    if inside is None and type(error) in _REFUSALS and _raises(links[-1]):
        inside = [*(_behind_call(links) or []), links[-1]]
    error.__traceback__ = _linked(links[1:] if inside is None else inside)


def _add_inputs(error: Exception, x: Any) -> None:
    """Say in an error of the model's own, of a kind whose message can be added to, what x was."""
    if type(error) not in _PLAIN or len(error.args) != 1 or not isinstance(error.args[0], str):
        return
    if _of_model(_links(error)) is None or hasattr(error, "of_x"):
        return
    error.of_x = True  # pyright: ignore[reportAttributeAccessIssue]
    hint = "; of an image, pass x.float() / 255" if holds_bytes(x) else ""
    error.args = (f"{error.args[0]}\nThe model was given x, {_shown(x)}{hint}.",)


def _add_sharding(error: Exception) -> None:
    for words, told in _SHARDED.items():
        if type(error) is RuntimeError and words in str(error) and told not in str(error):
            error.args = (f"{error}\n{told[0].upper()}{told[1:]}.",)


def holds_bytes(x: Any) -> bool:
    """Whether some member is a tensor of bytes, as images are stored."""
    return any(isinstance(leaf, Tensor) and leaf.dtype == torch.uint8 for leaf in leaves_of(x))


def _shown(x: Any) -> str:
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key!r}: {_shown(item)}" for key, item in x.items()) + "}"
    return "(" + ", ".join(_shown(item) for item in x) + ")" if isinstance(x, tuple) else describe(x)


def _links(error: BaseException) -> list[TracebackType]:
    found: list[TracebackType] = []
    link = error.__traceback__
    while link is not None:
        found.append(link)
        link = link.tb_next
    return found


def _of_model(links: list[TracebackType]) -> list[TracebackType] | None:
    """Of the way to an error what lies in the model; `None` if it was not the model that failed."""
    return _behind_call(links) if links and _fails_for_model(links[-1]) else None


def _behind_call(links: list[TracebackType]) -> list[TracebackType] | None:
    """What lies behind the last call of a model, attrfn's own frames left out; `None` where none was called."""
    starts = [k for k, one in enumerate(links) if one.tb_frame.f_code is _CALL]
    return [one for one in links[starts[-1] + 1 :] if not _ours(one)] if starts else None


_CALL: CodeType = call.__code__
_RUNS = (
    "attrfn._inputs",
    "attrfn._model.run",
    "attrfn._model.kernels.rewrites",
    "attrfn._model.kernels.forwards",
    "attrfn._rules.rule_pass",
    "attrfn._rules.override",
    "attrfn._rules.deep_lift.passes",
    "attrfn._rules.deep_lift.baseline_pass",
    "attrfn._rules.deep_lift.input_pass",
)
"""The files that run an operation for the model."""


def _fails_for_model(last: TracebackType) -> bool:
    """Whether the frame in which an error arose is none of attrfn's, or has run something for the model."""
    return not _ours(last) or (_home(last) in _RUNS and not _raises(last))


def _raises(link: TracebackType) -> bool:
    """Whether an error is raised there by a line of its own."""
    return dis.opname[link.tb_frame.f_code.co_code[link.tb_lasti]] == "RAISE_VARARGS"


def _ours(link: TracebackType) -> bool:
    return _home(link).startswith("attrfn.")


def _home(link: TracebackType) -> str:
    return link.tb_frame.f_globals.get("__name__", "")


def _linked(links: list[TracebackType]) -> TracebackType | None:
    chain = None
    for one in reversed(links):
        chain = TracebackType(chain, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return chain
