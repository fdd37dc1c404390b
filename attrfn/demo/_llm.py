"""Why this is the next token, to a language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attrfn
from attrfn.demo._shared import Refused
from attrfn.demo._transformers import smollm2
from attrfn.demo._words import Told, show, visible, way, write

NEEDS = ("transformers", "gguf")
PROMPT = "When Mary and John went to the store, John gave a drink to"
TOKENS = 256
ORDERS, STEPS = 8, 6


class Next(NamedTuple):
    """The first two of all tokens that may follow, their probabilities, and the difference of their logits."""

    ids: tuple[int, int]
    chances: tuple[float, float]
    ahead: float


def demonstrate(texts: Sequence[str], out: Path | None, seed: int) -> None:
    model, tokenizer = smollm2()
    ids: list[int] = tokenizer.encode("".join(texts) or PROMPT).ids
    if len(ids) > TOKENS:
        raise Refused(f"the prompt has {len(ids)} tokens, and {TOKENS} are explained at most")
    words = [tokenizer.decode([k]) for k in ids]
    found = following(model, torch.tensor([ids]))
    first, second = (repr(visible(tokenizer.decode([k]))) for k in found.ids)
    head = (
        f"SmolLM2-135M: next is {first} ({found.chances[0]:.0%}), not {second} ({found.chances[1]:.0%}). "
        "What each token adds to the difference of their logits (DeepLIFT)"
    )
    values, notes = why(model, torch.tensor([ids]), found, seed)
    print(f"{head}:\n")
    show([Told(words, values)])
    print("", *notes, sep="\n")
    if out:
        write(out, [Told(words, values)], head, notes)


def logits(model: Any, embeddings: Tensor) -> Tensor:
    """Those behind the last token, `(N, V)`."""
    return model(inputs_embeds=embeddings, logits_to_keep=1, use_cache=False).logits[:, -1]


@torch.no_grad()
def following(model: Any, ids: Tensor) -> Next:
    scores = logits(model, model.get_input_embeddings()(ids))[0]
    (first, second), chances = scores.topk(2).indices.tolist(), scores.softmax(0)
    return Next((first, second), (float(chances[first]), float(chances[second])), float(scores[first] - scores[second]))


def why(model: Any, ids: Tensor, found: Next, seed: int) -> tuple[Tensor, list[str]]:
    """What each token adds against the mean of all embeddings, and what proves it.

    The first token stays: whatever it is, a language model keeps there what it need not look at.
    """
    embedding = model.get_input_embeddings()
    x, target = embedding(ids), attrfn.contrast(*found.ids)
    base = embedding.weight.mean(0).expand_as(x).clone()
    base[:, 0] = x[:, 0]

    def ahead(h: Tensor) -> Tensor:
        return target(logits(model, h))

    values = attrfn.deep_lift(ahead, x, base)
    with torch.no_grad():
        owed, places = found.ahead - float(ahead(base)), torch.arange(ids.shape[1])[:, None] - 1
    total = float(values.double().sum())
    notes = [f"The tokens sum to {total:+.4f}; neutral (the mean of all embeddings) they take {owed:+.4f} away."]
    if ids.shape[1] > 1:
        notes.append(_checked(ahead, values, x, base, places, seed))
    return values.sum(-1)[0], notes


@torch.no_grad()
def _checked(ahead: Any, values: Tensor, x: Tensor, base: Tensor, places: Tensor, seed: int) -> str:
    steps, generator = min(STEPS, x.shape[1] - 1), torch.Generator().manual_seed(seed)
    deleted = way(ahead, values, x, base, ORDERS, generator, groups=places, n_steps=steps)
    return f"And the {deleted.told('tokens are made neutral', ORDERS)}"
