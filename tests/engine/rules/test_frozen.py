"""`FROZEN_ATTENTION` and `FROZEN_NORMS` are the gradient of the model in which a `detach` is written by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

import attrfn
from attrfn import FROZEN_ATTENTION, FROZEN_NORMS
from tests.engine.rules.test_override import compiled


def gradient(model: Any, x: Tensor, target: Any = 1) -> Tensor:
    return attrfn.saliency(model, x, target, absolute=False)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- attention, written by hand


class Attention(nn.Module):
    """Two heads over five tokens, `how` their weights are made. (N, 5, 4) -> (N, 3)."""

    def __init__(self, how: str, causal: bool) -> None:
        super().__init__()
        self.how, self.causal = how, causal
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.out(self.mixed(q, k, v).transpose(1, 2).flatten(2).mean(1)).tanh()

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.how == "fused":
            return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        if self.how == "of a program":
            return torch.ops.aten.scaled_dot_product_attention.default(q, k, v, None, 0.0, self.causal)
        logits = q @ k.transpose(-1, -2) / 2**0.5
        if self.causal:
            logits = logits.masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf)
        return WEIGHTS[self.how](logits) @ v


WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda a: a.softmax(-1).detach(),
    "F.softmax": lambda a: F.softmax(a, -1),
    "Tensor.softmax": lambda a: a.softmax(dim=-1),
    "torch.softmax": lambda a: torch.softmax(input=a, dim=-1),
    "torch.special.softmax": lambda a: torch.special.softmax(a, -1),
    "nn.Softmax": nn.Softmax(-1),
    "F.softmin": lambda a: F.softmin(-a, -1),
    "softmax of a program": lambda a: torch.ops.aten.softmax.int(a, -1),
    "_softmax of a program": lambda a: torch.ops.aten._softmax.default(a, -1, False),
}
WAYS = ["fused", "of a program", *list(WEIGHTS)[1:]]


def pair(how: str, causal: bool) -> tuple[nn.Module, nn.Module]:
    """The model, and the same with a detach."""
    model, by_hand = Attention(how, causal).double(), Attention("detached", causal).double()
    by_hand.load_state_dict(model.state_dict())
    return model, by_hand


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("how", WAYS)
def test_the_weights_of_attention_are_held(how: str, causal: bool) -> None:
    (model, by_hand), x = pair(how, causal), torch.randn(2, 5, 4, dtype=torch.float64)
    frozen, expected = attrfn.with_rules(model, FROZEN_ATTENTION), gradient(by_hand, x)
    same(gradient(frozen, x), expected)
    assert not torch.allclose(expected, gradient(model, x))
    assert torch.equal(frozen(x), model(x))
    leaf = x.clone().requires_grad_()
    assert torch.equal(frozen(leaf), model(leaf))


@pytest.mark.parametrize("how", ["fused", "F.softmax"])
def test_held_under_transforms(how: str) -> None:
    (model, by_hand), x = pair(how, True), torch.randn(2, 5, 4, dtype=torch.float64)
    frozen, expected = attrfn.with_rules(model, FROZEN_ATTENTION), gradient(by_hand, x)
    same(torch.func.vmap(lambda t: gradient(frozen, x, t))(torch.arange(3))[1], expected)
    same(torch.func.grad(lambda x: frozen(x)[:, 1].sum())(x), expected)
    path: dict[str, Any] = {"n_steps": 3, "target": 1}
    same(attrfn.integrated_gradients(frozen, x, **path), attrfn.integrated_gradients(by_hand, x, **path))


@pytest.mark.compiles
@pytest.mark.parametrize("how", ["fused", pytest.param("F.softmax", marks=pytest.mark.slow)])
def test_held_in_a_graph_and_in_a_program(how: str) -> None:
    (model, by_hand), x = pair(how, True), torch.randn(2, 5, 4, dtype=torch.float64)

    def frozen(model: Any, x: Tensor) -> Tensor:
        return gradient(attrfn.with_rules(model, FROZEN_ATTENTION), x)

    same(compiled(lambda x: frozen(model, x))(x), gradient(by_hand, x))
    program = attrfn.export(model, frozen, x)
    same(program.module()(x)[1], gradient(by_hand, x))


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention(need_weights: bool) -> None:
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()

    def model(x: Tensor) -> Tensor:
        return layer(x, x, x, need_weights=need_weights)[0].tanh().mean(1)

    def by_hand(x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2)
                   for t in F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1))  # fmt: skip
        weights = (q @ k.transpose(-1, -2) / 2**0.5).softmax(-1).detach()
        return layer.out_proj((weights @ v).transpose(1, 2).flatten(2)).tanh().mean(1)

    x = torch.randn(2, 5, 4, dtype=torch.float64)
    same(gradient(attrfn.with_rules(model, FROZEN_ATTENTION), x), gradient(by_hand, x))


def test_a_softmax_of_the_output_is_held_too() -> None:
    """Then nothing is left of a probability: the target is a part of the model."""
    net, x = nn.Linear(4, 3).double(), torch.randn(2, 4, dtype=torch.float64)
    frozen = attrfn.with_rules(net, FROZEN_ATTENTION)
    with pytest.warns(attrfn.AttributionWarning, match="the attribution is zero"):
        assert not gradient(frozen, x, lambda out: out.softmax(-1)[:, 1]).any()
    weighed = gradient(frozen, x, lambda out: (out.softmax(-1) * out).sum(1))
    same(weighed, net(x).softmax(-1) @ net.weight)


def test_dropout_in_attention_draws_as_the_models() -> None:
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5).sum((1, 2, 3))

    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    torch.testing.assert_close(attrfn.with_rules(model, FROZEN_ATTENTION)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    x = torch.randn(2, 2, 5, 4)

    def model(x: Tensor) -> Tensor:
        h = F.scaled_dot_product_attention(x, x, x)
        return F.layer_norm(h, (4,)).sin().sum((1, 2, 3))

    frozen = attrfn.with_rules(model, {**FROZEN_ATTENTION, **FROZEN_NORMS})
    found, expected = gradient(frozen, x.to(dtype), None), gradient(frozen, x.to(dtype).float(), None)
    assert found.dtype == dtype
    assert (found.float() - expected).norm() < 0.02 * expected.norm()


# ---------------------------------------------------------------- norms, written by hand


def held(value: Tensor, dims: Any, mean: bool, eps: float) -> Tensor:
    centred = value - value.mean(dims, keepdim=True) if mean else value
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps).detach()


def in_groups(h: Tensor, size: int) -> Tensor:
    groups = h.transpose(1, 2).reshape(h.shape[0], 6 // size, -1)
    return held(groups, -1, True, 1e-5).reshape(h.shape[0], 6, -1).transpose(1, 2)


def instance(h: Tensor) -> Tensor:
    return nn.InstanceNorm1d(6).double()(h.transpose(1, 2)).transpose(1, 2)


NORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "F.layer_norm": (lambda h: F.layer_norm(h, (6,)), lambda h: held(h, -1, True, 1e-5)),
    "nn.LayerNorm": (nn.LayerNorm((5, 6), 1e-3).double(), lambda h: held(h, (-1, -2), True, 1e-3)),
    "F.rms_norm": (lambda h: F.rms_norm(h, [6], eps=1e-6), lambda h: held(h, -1, False, 1e-6)),
    "nn.RMSNorm": (nn.RMSNorm(6).double(), lambda h: held(h, -1, False, torch.finfo(torch.float64).eps)),
    "F.group_norm": (lambda h: F.group_norm(h.transpose(1, 2), 2).transpose(1, 2), lambda h: in_groups(h, 3)),
    "nn.InstanceNorm1d": (instance, lambda h: in_groups(h, 1)),
    "rsqrt": (lambda h: h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6), lambda h: held(h, -1, False, 1e-6)),
    "rsqrt_": (
        lambda h: h * (h.square().mean(-1, keepdim=True) + 1e-6).rsqrt_(),
        lambda h: held(h, -1, False, 1e-6),
    ),
    "layer_norm of a program": (
        lambda h: torch.ops.aten.layer_norm.default(h, [6]),
        lambda h: held(h, -1, True, 1e-5),
    ),
}


def around(norm: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A model with a norm: with weights behind, so that its gradient is that of its input. (N, 5, 4) -> (N, 3)."""
    return lambda x: (norm((x @ FIRST).tanh()) @ SECOND).sin().mean(1)


FIRST = torch.linspace(-1, 1.3, 24).double().reshape(4, 6).sin()
SECOND = torch.linspace(-2, 1, 18).double().reshape(6, 3).cos()


@pytest.mark.parametrize("name", NORMS)
def test_the_scales_of_norms_are_held(name: str) -> None:
    model, by_hand = (around(norm) for norm in NORMS[name])
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    frozen, expected = attrfn.with_rules(model, FROZEN_NORMS), gradient(by_hand, x)
    same(gradient(frozen, x), expected)
    assert not torch.allclose(expected, gradient(model, x), rtol=1e-3)
    assert torch.equal(frozen(x), model(x))
    same(torch.func.vmap(lambda t: gradient(frozen, x, t))(torch.arange(3))[1], expected)


@pytest.mark.parametrize("name", ["F.layer_norm", "F.group_norm", "nn.RMSNorm"])
def test_weights_of_norms_have_their_gradient(name: str) -> None:
    """With everything held, that of the weights is the true one: the output is linear in them."""
    weight, x = torch.rand(6, dtype=torch.float64, requires_grad=True), torch.randn(2, 5, 4, dtype=torch.float64)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "F.layer_norm": lambda h: F.layer_norm(h, (6,), weight, weight),
        "F.group_norm": lambda h: F.group_norm(h.transpose(1, 2), 2, weight=weight, bias=weight).transpose(1, 2),
        "nn.RMSNorm": lambda h: F.rms_norm(h, (6,), weight=weight),
    }
    model = around(kinds[name])
    of_weight = [
        torch.autograd.grad(f(x)[:, 1].sum(), weight)[0] for f in (attrfn.with_rules(model, FROZEN_NORMS), model)
    ]
    same(*of_weight)


OTHERS = ["F.rms_norm", "F.group_norm", "nn.InstanceNorm1d", "rsqrt"]


@pytest.mark.compiles
@pytest.mark.parametrize("name", ["F.layer_norm", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_norms_in_a_graph(name: str) -> None:
    model, by_hand = (around(norm) for norm in NORMS[name])
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    found = compiled(lambda x: gradient(attrfn.with_rules(model, FROZEN_NORMS), x))(x)
    same(found, gradient(by_hand, x))


@pytest.mark.parametrize(("rules", "named"), [(FROZEN_ATTENTION, "softmax"), (FROZEN_NORMS, "group_norm")])
def test_where_no_operation_of_a_set_ran_it_is_said(rules: Any, named: str) -> None:
    with pytest.warns(
        attrfn.AttributionWarning, match=rf"rules were given for \['{named}'.* but no such operation ran"
    ):
        attrfn.with_rules(nn.Linear(3, 2), rules)(torch.randn(4, 3))


# ---------------------------------------------------------------- second derivatives


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(4, 2, batch_first=True), nn.LayerNorm(4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).tanh().mean(1))


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("rules", [FROZEN_ATTENTION, FROZEN_NORMS], ids=["attention", "norms"])
def test_what_is_held_is_still_a_function_of_the_parameters(rules: Any, closure: bool) -> None:
    """The derivative of an attribution by fourth-order differences; a detach would be blind to a part of it."""
    net, x = Block().double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    leaves, weight = list(net.parameters()), torch.randn(2, 5, 4, dtype=torch.float64)
    frozen = attrfn.with_rules(net, rules)

    def loss(create_graph: bool = False) -> Tensor:
        model = (lambda x: frozen(x)) if closure else frozen
        return (attrfn.saliency(model, x, 1, absolute=False, create_graph=create_graph) * weight).sum()

    found = torch.autograd.grad(loss(True), leaves, allow_unused=True)
    direction = [torch.randn_like(p) for p in leaves]

    def at(step: float) -> Tensor:
        with torch.no_grad():
            for p, way in zip(leaves, direction, strict=True):
                p += step * way
        value = loss()
        with torch.no_grad():
            for p, way in zip(leaves, direction, strict=True):
                p -= step * way
        return value

    slope = sum((g * way).sum() for g, way in zip(found, direction, strict=True) if g is not None)
    expected = (8 * (at(1e-4) - at(-1e-4)) - (at(2e-4) - at(-2e-4))) / 12e-4
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-10)


# ---------------------------------------------------------------- models of transformers


class ByHand(TorchFunctionMode):
    """Softmaxes and scales with a `detach`, in whatever model runs: told by the functions themselves."""

    def __init__(self, attention: bool) -> None:
        super().__init__()
        self.attention = attention

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.attention and func is F.softmax:
            return func(*args, **kwargs).detach()
        if self.attention and func is F.scaled_dot_product_attention:
            return self.written(*args, **kwargs)
        if not self.attention and func is torch.rsqrt:
            return func(*args, **kwargs).detach()
        if not self.attention and func is F.layer_norm:
            given = {**dict(zip(("x", "shape", "weight", "bias", "eps"), args, strict=False)), **kwargs}
            assert len(given.get("shape") or given["normalized_shape"]) == 1
            return held(given.get("x", args[0]), -1, True, given["eps"]) * given["weight"] + given["bias"]
        return func(*args, **kwargs)

    def written(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, is_causal: bool = False,
                scale: Any = None, **_: Any) -> Tensor:  # fmt: skip
        if k.shape[1] != q.shape[1]:  # queries in groups share keys and values
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        logits = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
        if is_causal:
            attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
        return logits.softmax(-1).detach() @ v


SIZES: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
MODELS: dict[str, Callable[[str], nn.Module]] = {
    "BERT": lambda how: BertForSequenceClassification(
        BertConfig(vocab_size=20, num_labels=3, attn_implementation=how, **SIZES)
    ),
    "GPT-2": lambda how: GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8, attn_implementation=how)
    ),
    "Llama": lambda how: LlamaForCausalLM(
        LlamaConfig(vocab_size=20, num_key_value_heads=1, attn_implementation=how, **SIZES)
    ),
    "ViT": lambda how: ViTForImageClassification(
        ViTConfig(image_size=8, patch_size=4, num_labels=3, attn_implementation=how, **SIZES)
    ),
}


def of_embeddings(name: str, how: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A model of numbers, and its input."""
    net = MODELS[name](how).double().eval()
    if name == "ViT":
        return lambda x: net(x).logits, torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        logits = net(inputs_embeds=x, attention_mask=torch.ones(x.shape[:2], dtype=torch.long)).logits
        return logits if logits.ndim == 2 else logits[:, -1]

    return model, torch.randn(2, 4, 8, dtype=torch.float64)


@pytest.mark.parametrize("rules", [FROZEN_ATTENTION, FROZEN_NORMS], ids=["attention", "norms"])
@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers(name: str, how: str, rules: Any) -> None:
    model, x = of_embeddings(name, how)
    leaf = x.clone().requires_grad_()
    with ByHand(attention=rules is FROZEN_ATTENTION):
        (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    frozen = attrfn.with_rules(model, rules)
    found = gradient(frozen, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, gradient(model, x), rtol=1e-4)
    assert torch.equal(frozen(x), copy.copy(model)(x))
