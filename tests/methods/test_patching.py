"""Patching: equal to what hooks do by hand, on models as their library has them; sums, directions, groups, lists."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.engine.gradients.test_lists import RAN, batch, net
from tests.tables.language import MODELS, Pair, made
from tests.tables.method import in_training
from tests.tables.models import images, smooth_net


def same(one: Tensor, other: Tensor, within: float = 1e-11) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


# ---------------------------------------------------------------- by hand, on other people's models


def first_leaf(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


def output(pair: Pair, x: Any) -> Tensor:
    """The explained number."""
    return attrfn.select(pair.target)(pair.model(**x) if isinstance(x, dict) else pair.model(x))


def patched_by_a_hook(pair: Pair, layer: str, position: int) -> Tensor:
    """The explained number at x with the layer's first leaf at one position as it is at the start."""
    kept: list[Tensor] = []
    module = pair.model.get_submodule(layer)
    handle = module.register_forward_hook(lambda m, given, out: kept.append(first_leaf(out).detach()))
    output(pair, pair.start)
    handle.remove()

    def put(m: nn.Module, given: Any, out: Any) -> Any:
        new = first_leaf(out).clone()
        new[:, position] = kept[0][:, position]
        return new if isinstance(out, Tensor) else (new, *out[1:])

    handle = module.register_forward_hook(put)
    found = output(pair, pair.x)
    handle.remove()
    return found


def check(pair: Pair) -> None:
    """Exact patching is what hooks do; the reference rule sums; equal inputs count for nothing, dropout or not."""
    change = (output(pair, pair.x) - output(pair, pair.start)).detach()
    assert change.abs().min() > 1e-6
    layers = [pair.stream, pair.attention, pair.heads]
    exact = attrfn.activation_patching(pair.model, layers, pair.x, pair.start, target=pair.target)
    for layer, found in zip(layers[:2], exact, strict=False):
        by_hand = (output(pair, pair.x) - patched_by_a_hook(pair, layer, 1)).detach()
        assert by_hand.abs().max() > 1e-9
        same(first_leaf(found)[:, 1, 0], by_hand)
    for rule in ("gradient", "reference"):
        pair.model.train()
        settings: dict[str, Any] = {"target": pair.target, "rule": rule}
        nothing = attrfn.attribution_patching(pair.model, layers, pair.x, pair.x, **settings)
        assert all(float(first_leaf(each).abs().max()) < 1e-13 for each in nothing)
        nothing = attrfn.activation_patching(pair.model, layers[2], pair.x, pair.x, target=pair.target)
        assert float(nothing.abs().max()) < 1e-13  # rows of a batch round by their place
        pair.model.eval()


@in_training
def test_a_language_model() -> None:
    check(made("llama"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
@in_training
def test_models_as_they_are(name: str, how: str) -> None:
    if name == "t5" and how == "sdpa":
        pytest.skip("it has one kind of attention")
    check(made(name, how))


def test_the_reference_sums_over_every_cut_of_a_stream() -> None:
    """Of a residual stream; the other rules have no such sum. (Norms of this model compute in float32.)"""
    pair = made("gpt2")
    change = output(pair, pair.x) - output(pair, pair.start)
    layers = ["transformer.h.0", "transformer.h.1", "transformer.ln_f"]
    found = attrfn.attribution_patching(pair.model, layers, pair.x, pair.start, target=pair.target, rule="reference")
    for each in found:
        same(each.flatten(1).sum(1), change, 1e-9)
    by_gradient = attrfn.attribution_patching(pair.model, layers, pair.x, pair.start, target=pair.target)
    assert (by_gradient[0].flatten(1).sum(1) - change).abs().max() > 1e-3 * change.abs().max()


# ---------------------------------------------------------------- rules


def test_rules_agree_where_the_model_is_linear() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double(), batch()
    exact = attrfn.activation_patching(model, "0", x, 0.25, target=1)
    for rule in ("gradient", "path", "reference"):
        same(attrfn.attribution_patching(model, "0", x, 0.25, target=1, rule=rule), exact)


def test_rules_are_methods_that_there_are() -> None:
    model, x = net(), batch()
    layers: list[Any] = ["first", "second", attrfn.at("shared", call=1)]
    settings: dict[str, Any] = {"target": 1}
    here, there = (attrfn.layer_activation(model, layers, z) for z in (x, torch.full_like(x, 0.25)))
    steps = [a - b for a, b in zip(here, there, strict=True)]
    slopes = attrfn.layer_gradient_x_activation(model, layers, x, 1, multiply_by_inputs=False)
    means = attrfn.internal_influence(model, layers, x, 0.25, 7, target=1)
    lifted = attrfn.layer_deep_lift(model, layers, x, 0.25, target=1)
    expected = {
        "gradient": [d * g for d, g in zip(steps, slopes, strict=True)],
        "path": [d * g for d, g in zip(steps, means, strict=True)],
        "reference": lifted,
    }
    for rule, each in expected.items():
        found = attrfn.attribution_patching(model, layers, x, 0.25, rule=rule, n_steps=7, **settings)
        for one, other in zip(found, each, strict=True):
            same(one, other)


def test_one_pass_is_for_all_places() -> None:
    """The two inputs, and the gradient: three passes, however many places."""
    model, x = net(), batch()
    for rule, most in {"gradient": 2, "reference": 2}.items():
        RAN.clear()
        attrfn.attribution_patching(model, ["first", "second", "last"], x, 0.25, target=1, rule=rule)
        assert len(RAN) == most


def test_a_path_takes_masks_that_are_the_same() -> None:
    """Of a mapping as a tokenizer gives it: the mask of both inputs is held fixed."""
    pair = made("llama")
    table = pair.model.get_submodule("model.embed_tokens")
    x, start = ({"inputs_embeds": table(z["input_ids"]).detach(), "attention_mask": z["attention_mask"]}
                for z in (pair.x, pair.start))  # fmt: skip
    found = attrfn.attribution_patching(pair.model, pair.stream, x, start, target=pair.target, rule="path")
    slopes = attrfn.internal_influence(
        pair.model, pair.stream, x, {"inputs_embeds": start["inputs_embeds"]}, 5, target=pair.target
    )
    h, before = (attrfn.layer_activation(pair.model, pair.stream, z) for z in (x, start))
    same(found, (h - before) * slopes)


# ---------------------------------------------------------------- exact


def test_what_is_one_place() -> None:
    """Units of (N, d), positions of (N, T, d), places of (N, C, H, W), and each head by itself."""
    flat, x = net(), batch()
    same(attrfn.activation_patching(flat, "first", x, 0.25, target=1),
         attrfn.layer_feature_ablation(flat, "first", x, 0.25, target=1))  # fmt: skip
    by_head = attrfn.activation_patching(flat, attrfn.heads("second.2", 3), x, 0.25, target=1)
    groups = torch.arange(3).repeat_interleave(2)
    alone = attrfn.layer_feature_ablation(flat, attrfn.at("second.2", "input"), x, 0.25, groups, target=1)
    same(by_head, alone.unflatten(1, (3, 2)))
    maps, picture = smooth_net(), images()
    found = attrfn.activation_patching(maps, "head", picture, 0.25, target=1)
    assert found.shape == maps.head(picture).shape
    assert found[0].unique().numel() == 4
    same(found, attrfn.layer_feature_ablation(maps, "head", picture, 0.25, torch.arange(4).reshape(2, 2), target=1))
    pair = made("llama")
    heads = attrfn.activation_patching(pair.model, pair.heads, pair.x, pair.start, target=pair.target)
    assert heads.shape == (2, 5, 4, 4)
    assert heads[0].unique().numel() == 5 * 4


def test_groups_of_a_list_are_a_tuple() -> None:
    model, x = net(), batch()
    groups = torch.tensor([0, 0, 1, 1, -1])
    found = attrfn.activation_patching(model, ["first", "last"], x, 0.25, (groups, None), target=1)
    same(found[0], attrfn.layer_feature_ablation(model, "first", x, 0.25, groups, target=1))
    same(found[1], attrfn.activation_patching(model, "last", x, 0.25, target=1))
    assert (found[0][:, 4] == 0).all()


def test_the_other_direction_is_the_call_exchanged() -> None:
    """f(x' with h(x) there) - f(x'), by replacing, is minus the call with both exchanged."""
    model, x, start = net(), batch(), batch().flip(0)
    found = -attrfn.activation_patching(model, "first", start, x, torch.zeros(5).long(), target=1)
    h = attrfn.layer_activation(model, "first", x)
    raised = attrfn.with_activations(model, {"first": h})(start)[:, 1] - model(start)[:, 1]
    same(found, raised[:, None].expand_as(h))


def test_what_precedes_the_layer_runs_once_for_all_patches() -> None:
    """A pass for each input, and one for all patches of a chunk; a part of it behind the layer alone is batched."""
    model, x = net(), batch()
    RAN.clear()
    attrfn.activation_patching(model, "second", x, 0.25, target=1)
    assert len(RAN) == 3


class Gained(nn.Module):
    """Its layer takes a positional tensor, and one by a keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer = nn.Linear(4, 4).double(), GainedLayer().double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        return self.layer(h, gain=h.tanh())


class GainedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, h: Tensor, gain: Tensor) -> Tensor:
        return self.linear(h) * gain


def test_a_place_of_positional_and_keyword_tensors() -> None:
    model, place = Gained(), attrfn.at("layer", "input")
    x, start = torch.randn(2, 3, 4, dtype=torch.float64)
    here, there = (attrfn.layer_activation(model, place, z) for z in (x, start))
    assert list(here) == [0, "gain"]
    rest = attrfn.from_layer(model, place, x)
    same(rest(here), model(x))
    for found in (
        attrfn.activation_patching(model, place, x, start, target=1),
        attrfn.layer_feature_ablation(model, place, x, start, target=1),
    ):
        for key in here:
            for k in range(4):
                changed = {**here, key: torch.where(torch.arange(4) == k, there[key], here[key])}
                same(found[key][:, k], (model(x) - rest(changed))[:, 1].detach())
    for found in (attrfn.deep_lift(rest, here, there, target=1), attrfn.shapley_values(rest, here, there, target=1)):
        same(sum(part.sum(1) for part in found.values()), (model(x) - rest(there))[:, 1].detach())


# ---------------------------------------------------------------- edges


class Block(nn.Module):
    """Attention and a gated MLP, each behind a norm, added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(6), nn.RMSNorm(6)
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.mlp = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 3)).transpose(1, 2) for t in self.qkv(self.before(h)).chunk(3, -1))
        h = h + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h + self.mlp(self.between(h))


class Transformer(nn.Module):
    """(N, T, 4) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.blocks = nn.Linear(4, 6), nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h)).mean(1)


WRITERS: list[Any] = ["embedding", "blocks.0.out", "blocks.0.mlp", "blocks.1.out", "blocks.1.mlp"]
READERS: list[Any] = ["blocks.0.before", "blocks.0.between", "blocks.1.before", "blocks.1.between", "norm"]
RULES = ("gradient", "path", "reference")


def transformer() -> tuple[Transformer, Tensor, Tensor]:
    torch.manual_seed(0)
    x, start = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    return Transformer().double().eval(), x, start


@pytest.mark.parametrize("rule", RULES)
def test_the_edges_of_a_writer_sum_to_its_own_number(rule: str) -> None:
    model, x, start = transformer()
    settings: dict[str, Any] = {"target": 1, "rule": rule, "n_steps": 3}
    found = attrfn.edges(model, WRITERS, READERS, x, start, **settings)
    assert found.shape == (5, 5, 2, 3)
    nodes = attrfn.attribution_patching(model, WRITERS, x, start, **settings)
    for edge, node in zip(found, nodes, strict=True):
        same(edge.sum(0), node.sum(-1))
    for w in range(5):  # the reader before a writer cannot take it in
        assert (found[w, :w] == 0).all()
        assert (found[w, w:].abs().sum((1, 2)) > 0).all()


def test_the_reference_edges_sum_to_the_difference() -> None:
    model, x, start = transformer()
    found = attrfn.edges(model, WRITERS, READERS, x, start, target=1, rule="reference")
    change = (model(x) - model(start))[:, 1]
    same(found[0].sum(0).sum(-1), change, 1e-10)
    same(found[:, -1].sum(0).sum(-1), change, 1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_an_edge_is_the_writers_difference_through_the_readers_own_input(rule: str) -> None:
    """Whatever others are asked with it, in whatever way the steps are run."""
    model, x, start = transformer()
    settings: dict[str, Any] = {"target": 1, "rule": rule, "n_steps": 3}
    found = attrfn.edges(model, WRITERS, READERS, x, start, **settings)
    some = attrfn.edges(model, [WRITERS[3], WRITERS[0]], READERS[2:4], x, start, **settings, vectorize=False)
    same(some, found[[3, 0]][:, 2:4])
    same(attrfn.edges(model, WRITERS[1], READERS[3], x, start, **settings, vectorize="fold")[0, 0], found[1, 3])
    site = attrfn.at(READERS[3], "input")
    if rule == "gradient":
        multiplier = attrfn.layer_gradient_x_activation(model, site, x, 1, multiply_by_inputs=False)
    elif rule == "path":
        multiplier = attrfn.internal_influence(model, site, x, start, 3, target=1)
    else:
        multiplier = attrfn.layer_deep_lift(model, site, x, start, target=1, multiply_by_inputs=False)
    h, before = (attrfn.layer_activation(model, WRITERS[1], z) for z in (x, start))
    same(found[1, 3], ((h - before) * multiplier).sum(-1))


class Residual(nn.Module):
    """A stream that linear layers read and write themselves; tokens first if `turned`."""

    def __init__(self, turned: bool = False, dropped: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.turned, self.embedding, self.head = turned, nn.Linear(3, 4), nn.Linear(4, 2)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Dropout(dropped)) for _ in range(2))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x.transpose(0, 1) if self.turned else x)
        for layer in self.layers:
            h = h + layer(h)
        return self.head(h).tanh().mean(0 if self.turned else 1)


LAYERS: list[Any] = ["layers.0", "layers.1", "head"]


def pairs(n: int = 2, tokens: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x, start = torch.randn(2, n, tokens, 3, dtype=torch.float64)
    return x, start


@pytest.mark.parametrize("rule", RULES)
def test_heads_of_an_input_are_written_with_the_output(rule: str) -> None:
    """So no reader of the layer's own input can take them in."""
    model, (x, start) = Residual(), pairs()
    settings: dict[str, Any] = {"target": 1, "rule": rule, "n_steps": 3}
    found = attrfn.edges(model, attrfn.heads("layers.0", 2), LAYERS, x, start, **settings)
    whole = attrfn.edges(model, "layers.0", LAYERS, x, start, **settings)
    assert (found[:, 0] == 0).all()
    same(found.sum(0), whole[0])
    node = attrfn.attribution_patching(model, attrfn.heads("layers.0", 2), x, start, **settings)
    same(found.sum(1), node.sum(-1).movedim(-1, 0))


@pytest.mark.filterwarnings("ignore:the model is in train mode:attrfn.AttributionWarning")
def test_heads_of_a_layer_that_drops_units() -> None:
    model, (x, start) = Residual(dropped=0.5).train(), pairs()
    with pytest.raises(ValueError, match=r"heads of the input of Sequential cannot be writers.*drops units"):
        attrfn.edges(model, attrfn.heads("layers.1", 2), "head", x, start, target=1)
    torch.manual_seed(3)
    found = attrfn.edges(model, attrfn.heads("layers.1.0", 2), "head", x, start, target=1)
    torch.manual_seed(3)
    same(found.sum(0), attrfn.edges(model, "layers.1.0", "head", x, start, target=1)[0])


@pytest.mark.parametrize("vectorize", [True, False, "fold"])
@pytest.mark.parametrize(("n", "tokens"), [(2, 1), (2, 5), (2, 2), (1, 3)])
def test_a_stream_of_tokens_first(n: int, tokens: int, vectorize: Any) -> None:
    x, start = pairs(n, tokens)
    settings: dict[str, Any] = {"target": 1, "rule": "path", "n_steps": 3}
    turned = attrfn.edges(Residual(turned=True), "embedding", LAYERS, x, start, **settings, vectorize=vectorize)
    same(turned.transpose(2, 3), attrfn.edges(Residual(), "embedding", LAYERS, x, start, **settings))


def test_heads_are_writers_each() -> None:
    """What goes into the projection is written by it: the heads' edges sum to those of the attention's output."""
    model, x, start = transformer()
    heads = [attrfn.heads(f"blocks.{k}.out", 2) for k in (0, 1)]
    found = attrfn.edges(model, ["embedding", *heads], READERS, x, start, target=1)
    whole = attrfn.edges(model, ["blocks.0.out", "blocks.1.out"], READERS, x, start, target=1)
    assert found.shape == (5, 5, 2, 3)
    same(found[1:3].sum(0), whole[0])
    same(found[3:].sum(0), whole[1])
    nodes = attrfn.attribution_patching(model, heads, x, start, target=1)
    same(found[1:3].sum(1), nodes[0].sum(-1).movedim(-1, 0))
    parts = attrfn.edges(model, attrfn.heads("blocks.0.out", 3, io="output"), READERS, x, start, target=1)
    same(parts.sum(0), whole[0])


def test_no_pair_is_held_in_full_width() -> None:
    """Of 40 writers and 40 readers the sums are held, and the activations of each, not the pairs of them."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(256, 256) for _ in range(40))

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = x + part(x)
            return x.sum((1, 2))

    model, x = Wide().eval(), torch.randn(1, 8, 256)
    layers: list[Any] = list(model.parts)
    largest: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            largest.extend(t.numel() for t in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(t))
            return out

    attrfn.edges(model, layers, layers, x, 0.0)  # what is found once is found
    with Sizes():
        found = attrfn.edges(model, layers, layers, x, 0.0)
    assert found.shape == (40, 40, 1, 8)
    assert max(largest) <= 40 * 8 * 256


def test_edges_of_a_language_model() -> None:
    """As its library has it: of token ids, attention answering a tuple, norms in single precision."""
    pair = made("llama")
    blocks = [f"model.layers.{k}" for k in (0, 1)]
    writers: list[Any] = ["model.embed_tokens"]
    readers: list[Any] = []
    for block in blocks:
        writers += [attrfn.heads(f"{block}.self_attn.o_proj", 4), f"{block}.mlp"]
        readers += [f"{block}.input_layernorm", f"{block}.post_attention_layernorm"]
    found = attrfn.edges(pair.model, writers, [*readers, "model.norm"], pair.x, pair.start, target=pair.target,
                         rule="reference")  # fmt: skip
    assert found.shape == (1 + 2 * 5, 5, 2, 5)
    change = output(pair, pair.x) - output(pair, pair.start)
    same(found[0].sum(0).sum(-1), change, 1e-5)
    same(found[:, -1].sum(0).sum(-1), change, 1e-5)


class Positioned(nn.Module):
    """Places are added to all examples alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places, self.head = nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head((self.words(ids) + self.places(torch.arange(ids.shape[1])[None])).tanh())


def test_a_place_that_is_the_same_for_all_examples() -> None:
    ids, other = torch.randint(0, 9, (2, 2, 5), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"layer Embedding gives the same for all examples: .* leave it out"):
        attrfn.activation_patching(Positioned(), ["words", "places"], ids, other, target=(-1, 1))
    assert attrfn.activation_patching(Positioned(), "words", ids, other, target=(-1, 1)).abs().sum() > 0
