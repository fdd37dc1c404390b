"""Beside Captum's classes for text: each token of an answer, and the whole of it, in float64."""

from typing import Any

import captum.attr as captum
import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables.language import made

pytestmark = pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear")


class Digits:
    """A tokenizer whose tokens are numbers with blanks between."""

    eos_token_id = pad_token_id = None

    def encode(self, text: str, **_: Any) -> Tensor:
        return torch.tensor([[int(word) for word in text.split()]])

    def decode(self, ids: Tensor) -> str:
        return " ".join(str(int(k)) for k in ids)

    def convert_ids_to_tokens(self, ids: Any) -> list[str]:
        return [str(int(k)) for k in ids]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [int(token) for token in tokens]

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {
            "input_ids": [int(word) for word in text.split()],
            "offset_mapping": [(k, k + 1) for k in range(0, len(text), 2)],
        }


PROMPT, ANSWER = [3, 1, 4, 1, 5], [9, 2, 6]


def model() -> Any:
    return made("llama").model


def log_probabilities(net: Any) -> Any:
    return lambda ids: net(input_ids=ids, use_cache=False).logits.log_softmax(-1)


NORMS = 1e-6
"""The norms of the model compute in single precision, of sequences of another length with other rounding."""
WHOLE = torch.tensor([PROMPT + ANSWER])
TOKENS = [(len(PROMPT) + k - 1, token) for k, token in enumerate(ANSWER)]


def captums(method: Any, baseline: int = 0, **settings: Any) -> Any:
    text = captum.TextTokenInput(" ".join(map(str, PROMPT)), Digits(), baseline)  # pyright: ignore[reportArgumentType]
    return method.attribute(text, target=torch.tensor(ANSWER), **settings)


def test_each_token_of_an_answer() -> None:
    """All of ours from one forward pass, of which Captum takes one for each token."""
    net = model()
    embedding = net.get_submodule("model.embed_tokens")
    theirs = captums(captum.LLMGradientAttribution(captum.LayerGradientXActivation(net, embedding), Digits()))  # pyright: ignore
    runs: list[int] = []
    handle = embedding.register_forward_hook(lambda *_: runs.append(1))
    ours = attrfn.over_targets(
        lambda t: attrfn.layer_gradient_x_activation(log_probabilities(net), embedding, WHOLE[:, :-1], t), TOKENS
    )
    handle.remove()
    assert len(runs) == 1
    found = ours[:, 0, : len(PROMPT)].sum(-1)
    torch.testing.assert_close(found, theirs.token_attr, rtol=NORMS, atol=1e-7)
    whole = attrfn.layer_gradient_x_activation(net, embedding, WHOLE, attrfn.log_prob(WHOLE, len(PROMPT)))
    torch.testing.assert_close(whole[0, : len(PROMPT)].sum(-1), theirs.seq_attr, rtol=NORMS, atol=1e-7)


def test_each_token_replaced() -> None:
    """Without the keys and values that Captum keeps by default, with which it misses the difference by a fifth."""
    net = model()
    method = captum.LLMAttribution(captum.FeatureAblation(net), Digits())  # pyright: ignore[reportArgumentType]
    theirs = captums(method, 7, use_cached_outputs=False)
    groups = torch.tensor([*range(len(PROMPT)), *[-1] * len(ANSWER)])
    settings: dict[str, Any] = {"target": attrfn.log_prob(WHOLE, len(PROMPT))}
    found = attrfn.feature_ablation(
        lambda ids: net(input_ids=ids, use_cache=False), WHOLE, torch.full_like(WHOLE, 7), groups, **settings
    )
    torch.testing.assert_close(found[0, : len(PROMPT)], theirs.seq_attr.to(found), rtol=1e-5, atol=1e-6)  # float32
