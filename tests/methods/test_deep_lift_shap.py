"""DeepLIFT SHAP: its passes, its draws, where its sums are missed; and its layer and neuron forms."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import attrfn
from tests.tables.forms import total
from tests.tables.language import WORDS, made
from tests.tables.models import Split, images, rows, smooth_net


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def mask(h: Tensor) -> Tensor:
    """A comparison as a factor: no operation through which DeepLIFT could see that it differs."""
    return (h * (h > 0).double()).sum(1)


def test_deep_lift_shap_says_where_a_sum_is_missed() -> None:
    x, references = rows(), rows(4) - 0.5
    exact = attrfn.deep_lift_shap(lambda h: h.relu().sum(1), x, references)
    assert exact.isfinite().all()
    for vectorize in (True, False):
        with pytest.warns(attrfn.AttributionWarning, match="deep_lift of one of the references sums to .* but the out"):
            attrfn.deep_lift_shap(mask, x, references, vectorize=vectorize)
    net = Split(nn.Identity(), nn.Linear(3, 1).double())
    with pytest.warns(attrfn.AttributionWarning, match="deep_lift of one of the references"):
        attrfn.neuron_deep_lift_shap(net, "head", lambda h: mask(h), x, references)


@pytest.mark.parametrize("vectorize", [True, False])
def test_spectral_norm(vectorize: bool) -> None:
    """Its weight is worked out anew in every pass, from parameters that one pass sees wrapped."""
    normed = torch.nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(normed(nn.Linear(4, 5)), nn.Tanh(), normed(nn.Linear(5, 1))).double().eval()
    x, references = torch.randn(2, 3, 4, dtype=torch.float64)
    found = attrfn.deep_lift_shap(net, x, references, vectorize=vectorize)
    torch.testing.assert_close(total(found), (net(x) - net(references).mean())[:, 0])


class Rows(TorchDispatchMode):
    """Counts the numbers that pass through an operation no pull-back uses."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten.deg2rad.default:
            self.count += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("chunk_size", "passes"), [(6, 6 + 1), (3, 6 + 2), (1, 6 + 6)])
def test_baselines_share_the_forward_pass_of_x(chunk_size: int, passes: int) -> None:
    x, sample = torch.randn(2, 5), torch.randn(6, 5)
    with Rows() as rows:
        attrfn.deep_lift_shap(lambda x: x.deg2rad().sin().sum(1), x, sample, chunk_size=chunk_size)
    assert rows.count == passes * x.numel()


# ---------------------------------------------------------------- layers and neurons


def test_of_a_layer_or_a_neuron_it_is_the_mean_over_the_references() -> None:
    net, x, references = smooth_net(), images(2), images(3)
    found = attrfn.layer_deep_lift_shap(net, "head", x, references, target=1)
    alone = [attrfn.layer_deep_lift(net, "head", x, row, target=1) for row in references.split(1)]
    same(found, torch.stack(alone).mean(0))
    found = attrfn.neuron_deep_lift_shap(net, "head", (1, 0, 0), x, references)
    alone = [attrfn.neuron_deep_lift(net, "head", (1, 0, 0), x, row) for row in references.split(1)]
    same(found, torch.stack(alone).mean(0))
    # which is another thing than the attribution from their mean:
    assert not torch.allclose(found, attrfn.neuron_deep_lift(net, "head", (1, 0, 0), x, references.mean(0, True)))


def test_neurons_behind_attention() -> None:
    """The pass that ends at the neuron leaves attention to the rules around it, references being one `vmap` too."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, activation="gelu")
    net = nn.Sequential(nn.Linear(3, 4), layer, nn.Flatten(), nn.Linear(12, 2)).double().eval()
    x, sample = torch.randn(2, 3, 3, dtype=torch.float64), torch.randn(4, 3, 3, dtype=torch.float64)
    one, loop = (attrfn.neuron_deep_lift_shap(net, layer, (1, 2), x, sample, vectorize=v) for v in (True, False))
    torch.testing.assert_close(one, loop)
    unit = attrfn.neuron(net, layer, (1, 2))
    torch.testing.assert_close(one.sum((1, 2)), (unit(x) - unit(sample).mean()).detach())


@pytest.mark.parametrize("how", ["eager", pytest.param("sdpa", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["bert", pytest.param("gpt2", marks=pytest.mark.slow), "llama"])
def test_a_padding_mask_without_references_is_of_all_rows_one(name: str, how: str) -> None:
    """In a `vmap` over references a model that branches on its mask would be refused."""
    model, x, _, target, *_ = made(name, how)
    x["attention_mask"][1, 3:] = 0
    embedding, kept = model.get_input_embeddings(), x["attention_mask"].clone()  # pyright: ignore
    words = torch.randint(3, WORDS, (3, x["input_ids"].shape[1]))
    place, at = embedding(x["input_ids"]).detach(), embedding(words).detach()

    def of_words(z: Tensor, mask: Tensor) -> Any:
        return model(inputs_embeds=z, attention_mask=mask)

    # norms of Llama are single precision
    embedded = {"inputs_embeds": place, "attention_mask": kept}
    expected = torch.stack([
        attrfn.layer_deep_lift(model, embedding, x, {"input_ids": row.expand_as(x["input_ids"])}, target=target)
        for row in words
    ]).mean(0)  # fmt: skip
    for vectorize in (True, False, "fold"):
        given: Any = {"target": target, "vectorize": vectorize, "chunk_size": 2}
        same(attrfn.layer_deep_lift_shap(model, embedding, x, {"input_ids": words}, **given), expected, 1e-6)
        same(attrfn.deep_lift_shap(model, embedded, {"inputs_embeds": at}, **given)["inputs_embeds"], expected, 1e-6)
        same(attrfn.deep_lift_shap(of_words, (place, kept), (at, None), **given)[0], expected, 1e-6)
    same(x["attention_mask"], kept)


@pytest.mark.parametrize("vectorize", [True, False, "fold"])
def test_members_without_references_are_tiled_with_the_rest(vectorize: Any) -> None:
    """One of numbers, one of whole numbers for each example, and one without examples; in the order of x."""
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, scale, column, three = (
        torch.randn(3, 4, dtype=torch.float64),
        torch.rand(3, 1, dtype=torch.float64),
        torch.arange(3),
        3.0,
    )

    def model(scale: Tensor, x: Tensor, given: tuple[Tensor, float]) -> Tensor:
        return net(x * scale).gather(1, given[0][:, None])[:, 0] * given[1]

    data, references = (scale, x, (column, three)), torch.randn(4, x.shape[1], dtype=torch.float64)
    found = attrfn.deep_lift_shap(model, data, (None, references, None), vectorize=vectorize, chunk_size=3)
    expected = attrfn.deep_lift_shap(lambda z: model(scale, z, (column, three)), x, references, vectorize=False)
    same(found[1], expected)
    same(found[0], torch.zeros_like(scale))
