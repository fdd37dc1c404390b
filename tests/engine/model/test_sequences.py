"""Sequences: how likely an answer is, what two answers differ by, and every token of an answer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrfn


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


IDS = torch.tensor([[1, 2, 0, 3, 1], [3, 1, 2, -100, -100]])
PASSES: list[str] = []


class Language(nn.Module):
    """Embeddings to logits of five tokens, each position seeing those before it. (N, T, 3) -> (N, T, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(3, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        PASSES.append("a pass")
        return self.head(self.mix(x).cumsum(1).tanh())


def language() -> tuple[Language, Tensor]:
    torch.manual_seed(0)
    return Language().double().eval(), torch.randn(2, 5, 3, dtype=torch.float64)


def by_hand(logits: Tensor, ids: Tensor, starts: list[int]) -> Tensor:
    """One token after the other."""
    found: list[Tensor] = []
    for row, tokens, start in zip(logits, ids.tolist(), starts, strict=True):
        parts = [row[t - 1].softmax(-1)[k].log() for t, k in enumerate(tokens) if t >= max(start, 1) and k >= 0]
        found.append(torch.stack(parts).sum() if parts else row.sum() * 0)
    return torch.stack(found)


@pytest.mark.parametrize("start", [0, 1, 2, 4, [0, 2], torch.tensor([3, 1]), torch.tensor(2)])
def test_how_likely_an_answer_is(start: Any) -> None:
    net, x = language()
    starts = torch.as_tensor(start).expand(2).tolist()
    expected = by_hand(net(x), IDS, starts)
    same(attrfn.log_prob(IDS, start)(net(x)), expected)
    same(attrfn.log_prob(IDS, start)({"logits": net(x)}), expected)
    assert expected[0] < 0


def test_it_is_a_target() -> None:
    """Of a gradient, of a path in one batch, and of DeepLIFT, which sums: it is a part of the model."""
    net, x = language()
    target = attrfn.log_prob(IDS, 2)
    leaf = x.clone().requires_grad_()
    slopes = torch.autograd.grad(by_hand(net(leaf), IDS, [2, 2]).sum(), leaf)[0]
    same(attrfn.saliency(net, x, target, absolute=False), slopes)
    same(attrfn.saliency(lambda x: {"logits": net(x)}, x, target, absolute=False), slopes)
    change = target(net(x)) - target(net(torch.zeros_like(x)))
    same(attrfn.deep_lift(net, x, target=target).sum((1, 2)), change, 1e-10)
    same(attrfn.integrated_gradients(net, x, n_steps=30, target=target, vectorize="fold").sum((1, 2)), change, 1e-8)


def test_the_difference_of_two_targets() -> None:
    net, x = language()
    for pair in [((-1, 2), (-1, 0)), (attrfn.log_prob(IDS, 1), attrfn.log_prob(IDS.flip(0), 1))]:
        one, other = (attrfn.saliency(net, x, target, absolute=False) for target in pair)
        same(attrfn.saliency(net, x, attrfn.contrast(*pair), absolute=False), one - other)
    same(attrfn.contrast([1, 2], 0)(net(x)[:, 0]), net(x)[:, 0][[0, 1], [1, 2]] - net(x)[:, 0, 0])


# ---------------------------------------------------------------- every token of an answer

ANSWER = [(1, 2), (2, 0), (3, -2), (-1, 1)]


@pytest.mark.parametrize(
    "attribute",
    [
        lambda net, x, t: attrfn.saliency(net, x, t, absolute=False),
        lambda net, x, t: attrfn.layer_gradient_x_activation(net, "mix", x, t),
        lambda net, x, t: attrfn.integrated_gradients(net, x, n_steps=3, target=t),
        lambda net, x, t: attrfn.layer_deep_lift(net, "mix", x, target=t),
        lambda net, x, t: attrfn.attribution_patching(net, ["mix", "head"], x, 0.0, target=t)[0],
    ],
    ids=["saliency", "layer", "path", "DeepLIFT", "patching"],
)
def test_tuples_of_integers_share_their_passes(attribute: Any) -> None:
    net, x = language()
    alone = torch.stack([attribute(net, x, t) for t in ANSWER])
    PASSES.clear()
    attribute(net, x, ANSWER[0])
    once = len(PASSES)
    PASSES.clear()
    found = attrfn.over_targets(lambda t: attribute(net, x, t), ANSWER)
    assert len(PASSES) <= once
    same(found, alone, 1e-11)


def test_other_tuples_are_a_loop() -> None:
    net, x = language()

    def attribute(t: Any) -> Tensor:
        return attrfn.saliency(net, x, t, absolute=False)

    for targets in ([(1, 2), (slice(1, 3), 0)], [(1, 2), [(0, 1), (2, 1)]]):
        same(attrfn.over_targets(attribute, targets), torch.stack([attribute(t) for t in targets]))
    same(attrfn.over_targets(attribute, ANSWER, vectorize=False), attrfn.over_targets(attribute, ANSWER))
    with pytest.raises(IndexError, match=r"target \[2, 0, 5\] is out of range for a model output of shape \(2, 5, 5\)"):
        attrfn.over_targets(attribute, [(1, 2), (2, 0), (3, 5)])


@pytest.mark.parametrize(
    ("start", "error", "match"),
    [
        ([-1, 1], IndexError, "start counts from 0, but is -1"),
        (torch.tensor([0, -2]), IndexError, "start counts from 0, but is -2"),
        ([1, 9], ValueError, "start is 9, but ids has 4 positions, so that no token is left"),
        (np.array([1, 4]), ValueError, "start is 4, but ids has 4 positions"),
        (np.int64(-1), IndexError, "start counts from 0, but is -1"),
        (True, TypeError, "start must be an int"),
    ],
)
def test_starts_that_do_not_fit(start: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        attrfn.log_prob(torch.tensor([[1, 2, 3, 4]] * 2), start)


def test_starts_of_numpy() -> None:
    ids, logits = torch.tensor([[1, 2, 3, 4]] * 2), torch.randn(2, 4, 5)
    one: Any = np.int64(2)
    each: Any = np.array([1, 3])
    assert torch.equal(attrfn.log_prob(ids, one)(logits), attrfn.log_prob(ids, 2)(logits))
    assert torch.equal(attrfn.log_prob(ids, each)(logits), attrfn.log_prob(ids, [1, 3])(logits))
