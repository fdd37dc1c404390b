"""Whether an attribution is about what the model has learned."""

import copy
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._again import as_one_apart
from attrfn._call import public_call
from attrfn._inputs import attributions_of, batch_size, describe, device_of, leaves_of, take
from attrfn._metrics.correlation import SIMILARITIES
from attrfn._model import uncompiled
from attrfn._references import refuse_nan
from attrfn._sampling import followed, own_generator, whole_number
from attrfn._types import Attributions, Inputs


@public_call
def randomization(
    attribute: Callable[[nn.Module, Any], Attributions],
    model: nn.Module,
    x: Inputs,
    *,
    layers: Sequence[nn.Module | str] | None = None,
    cascade: bool = True,
    similarity: str = "spearman",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""How alike attributions are before and after layers are drawn anew: a sanity check of a method.

    An attribution that stays the same says nothing of what the model has learned. A copy of the model is drawn anew:
    by `reset_parameters` where a module has it, otherwise from a normal distribution with the parameter's own mean and
    standard deviation.

    Args:
        attribute: From a model and `x` to an attribution, such as `lambda model, x: saliency(model, x, 3)`.
        model: The model, an `nn.Module`, which stays as it is.
        x: Inputs, `(N, *F)`; see `Inputs`.
        layers: Modules, or their dotted names, L of them, in the order in which they are drawn anew with all that is in
            them; `None`: all that own parameters, the last first, each without the modules in it.
        cascade: Each step adds a layer to those drawn anew; otherwise it is one layer alone.
        similarity: `"spearman"` (correlation of ranks), `"pearson"` or `"cosine"`, over all entries of an example.
        generator: Source of all random numbers; the global state is then left alone.

    Returns:
        Similarities, `(L, N)`, without unit; 0 where an attribution does not vary, NaN where that of the model drawn
            anew is NaN.

    Raises:
        TypeError: If `attribute` is no function that returns an attribution, `model` no `nn.Module`, or another
            argument of a wrong type.
        ValueError: If a layer is not in the model, or has no parameters, there is no such `similarity`, or the
            attribution of the model itself is NaN.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        >>> randomization(lambda model, x: x, net, torch.tensor([[1.0, 2.0, 4.0]]))
        tensor([[1.],
                [1.]])

    References:
        Adebayo et al., Sanity checks for saliency maps, 2018. arXiv:1810.03292
    """
    take(x, floating=False)
    likeness = _likeness(attribute, similarity)
    original = _module(model)
    names = _names(original, layers)
    generator = own_generator(generator, device_of(x))
    before, redrawn, found = _rows(_asked(attribute, model, x), x), _copy(original), list[Tensor]()
    refuse_nan("attribute must return", before)
    for k in followed(range(len(names)), len(names), "layers"):
        redrawn = redrawn if cascade else _copy(original)
        _draw_anew(redrawn.get_submodule(names[k]), whole_number(2**62, device_of(x), generator), layers is None)
        after = _rows(_asked(attribute, redrawn, x), x)
        found.append(likeness(before.double(), after.double()).to(before.dtype))
    return torch.stack(found)


def _likeness(attribute: Any, similarity: Any) -> Callable[[Tensor, Tensor], Tensor]:
    if not callable(attribute):
        raise TypeError(f"attribute must be a function of a model and x, but is {describe(attribute)}")
    if not isinstance(similarity, str) or similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {tuple(SIMILARITIES)}, but is {describe(similarity)}")
    return SIMILARITIES[similarity]


def _module(model: Any) -> nn.Module:
    model = uncompiled(model)
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"model must be an nn.Module, whose layers are drawn anew, but is {describe(model)}")
    return model


def _asked(attribute: Callable[[nn.Module, Any], Attributions], model: nn.Module, x: Inputs) -> Attributions:
    """An attribution of one model; another copy has other tensors, to which its passes may write."""
    return as_one_apart(lambda: attribute(model, x))


@torch.inference_mode(False)
def _copy(model: nn.Module) -> nn.Module:
    """A copy, in which what modules kept of a pass has no graph."""
    kept = [leaf for module in model.modules() for value in vars(module).values() for leaf in leaves_of(value)]
    results = {id(leaf): leaf for leaf in kept if isinstance(leaf, Tensor) and not leaf.is_leaf}
    return copy.deepcopy(model, {key: leaf.detach().clone() for key, leaf in results.items()})


def _names(model: nn.Module, layers: Any) -> list[str]:
    """The dotted names of what is drawn anew."""
    modules = dict(model.named_modules())
    if layers is None:
        inside = {id(part) for module in modules.values() for part in _parts(module)[1:]}
        owning = {name: module for name, module in modules.items() if any(map(_own, _parts(module)))}
        names = [name for name, module in owning.items() if id(module) not in inside][::-1]
    elif isinstance(layers, (list, tuple)):
        given: Sequence[Any] = layers
        places: dict[int, Any] = {id(module): name for name, module in modules.items()}
        names = [layer if isinstance(layer, str) else places.get(id(layer), layer) for layer in given]
    else:
        raise TypeError(f"layers must be a list of modules or their names, or None, but is {describe(layers)}")
    for name in names:
        if not isinstance(name, str) or name not in modules:
            what = repr(name) if isinstance(name, str) else describe(name)
            raise ValueError(f"layers must be in the model, but {what} is not; its layers are {[*modules][1:]}")
        if next(modules[name].parameters(), None) is None:
            raise ValueError(f"layers must have parameters to draw anew, but {name!r} has none; leave it out")
    if not names:
        raise ValueError("layers has no module with parameters, which could be drawn anew")
    return names


def _parts(module: nn.Module) -> list[nn.Module]:
    """A module, and those by which its own parameters are parametrized."""
    parts = getattr(module, "parametrizations", None)
    return [module, *parts.modules()] if isinstance(parts, nn.ModuleDict) else [module]


def _own(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are a module's own, not its children's."""
    return list(module.parameters(recurse=False))


def _rows(attribution: Any, x: Inputs) -> Tensor:
    """All entries of each example, `(N, D)`."""
    leaves, n = attributions_of(attribution).tensors, batch_size(x)
    if any(t.shape[:1] != (n,) for t in leaves):
        shapes = [tuple(t.shape) for t in leaves]
        raise ValueError(f"attribute must return a row for each example of x, {n} in dimension 0, but has {shapes}")
    return torch.cat([t.detach().reshape(n, -1) for t in leaves], 1)


@torch.inference_mode(False)
@torch.no_grad()
def _draw_anew(layer: nn.Module, seed: int, alone: bool) -> None:
    """Give a layer other parameters, its children's too or it `alone`; the global state of random numbers stays."""
    cuda = sorted({p.device.index for p in layer.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(cuda), _keeping_children(layer) if alone else nullcontext():
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        for module in _parts(layer) if alone else layer.modules():
            _draw_own(module)


def _draw_own(module: nn.Module) -> None:
    """Draw the parameters of one module anew, by its own means where it has them."""
    reset: Any = getattr(module, "reset_parameters", None)
    own = {p: p._version for p in _own(module)}
    if own and callable(reset):
        reset()
    drawn = any(p._version != version for p, version in own.items())
    for p in own if not drawn else [p for p, version in own.items() if p._version == version]:
        _draw_from_normal(p)


@contextmanager
def _keeping_children(layer: nn.Module) -> Generator[None]:
    """Put back what a layer's own `reset_parameters` draws anew of its children."""
    own = {id(t) for part in _parts(layer) for t in (*_own(part), *part.buffers(recurse=False))}
    tensors = [t for t in (*layer.parameters(), *layer.buffers()) if id(t) not in own]
    before = [(t, t._version, t.clone()) for t in tensors]
    yield
    for tensor, version, value in before:
        if tensor._version != version:
            tensor.copy_(value)


def _draw_from_normal(p: Tensor) -> None:
    """Draw numbers anew, of their own mean and deviation."""
    for part in (p.real, p.imag) if p.is_complex() else (p,) * p.is_floating_point():
        if part.numel():
            part.normal_(float(part.mean()), float(part.std(correction=0)))
