"""Which words make two sentences alike, to a sentence model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attrfn
from attrfn.demo._shared import Refused
from attrfn.demo._transformers import minilm
from attrfn.demo._words import Told, show, way, write

NEEDS = ("transformers",)
SENTENCES = ("A man is playing a guitar on the stage.", "Somebody makes music for a crowd.")
TOKENS = 256
"""What the model was made to read."""
EVALUATIONS = 512
ORDERS = 20


class Sentence(NamedTuple):
    """Its tokens; of each the number of its word, -1 of marks that are none; and the words as they were written."""

    ids: Tensor
    numbers: Tensor
    words: list[str]


class Alike(NamedTuple):
    """What each word of a sentence adds to its likeness with another, and what is left without words."""

    told: Told
    empty: float
    error: float
    check: str

    def notes(self, likeness: float) -> tuple[str, str]:
        """What the words sum to and what they owe; and the check."""
        total = float(self.told.values.double().sum())
        error = f", each ± {self.error:.3f} at most," if self.error else ""
        sums = f"its words sum to {total:+.3f}{error} from {self.empty:.3f} without any to {self.empty + total:.3f}"
        return f"{sums}; the model says {likeness:.3f}.", self.check


def demonstrate(texts: Sequence[str], out: Path | None, seed: int) -> None:
    model, tokenizer = minilm()
    given = [read(tokenizer, text) for text in (texts or SENTENCES)]
    first, second = given[0], given[-1]
    likeness = float(embedded(model, first)[0] @ embedded(model, second)[0])
    found = [alike(model, one, other, seed) for one, other in ((first, second), (second, first))[: len(given)]]
    whose = ("The first sentence", "The second") if len(given) == 2 else ("The sentence, with itself",)
    head = f"all-MiniLM-L6-v2: cosine {likeness:.3f}. What each word adds to it (Shapley values)"
    notes = [f"{name}: {told}" for name, each in zip(whose, found, strict=True) for told in each.notes(likeness)]
    print(f"{head}:\n")
    show([each.told for each in found])
    print("", *notes, sep="\n")
    if out:
        write(out, [each.told for each in found], head, notes)


def read(tokenizer: Any, text: str) -> Sentence:
    """A text as the model reads it; letters and marks of a word stay together."""
    tokens = tokenizer.encode(text)
    numbers = [-1 if number is None else number for number in tokens.word_ids]
    parts = sorted({number for number in numbers if number >= 0})
    if not parts:
        raise Refused(f"no words in {text!r}")
    if len(numbers) > TOKENS:
        raise Refused(f"a text has {len(numbers)} tokens, and the model reads {TOKENS}")
    spans = [[span for span, k in zip(tokens.offsets, numbers, strict=True) if k == part] for part in parts]
    return Sentence(
        torch.tensor([tokens.ids]), torch.tensor(numbers), [text[span[0][0] : span[-1][1]] for span in spans]
    )


def embedded(model: Any, sentence: Sentence, present: Tensor | None = None) -> Tensor:
    """Embeddings of length 1, `(N, d)`, of a sentence whose tokens may be missing: nothing sees those."""
    mask = torch.ones_like(sentence.ids) if present is None else present.to(torch.long)
    hidden = model(input_ids=sentence.ids.expand(len(mask), -1), attention_mask=mask).last_hidden_state
    weights = mask[..., None].to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


@torch.no_grad()
def alike(model: Any, sentence: Sentence, other: Sentence, seed: int) -> Alike:
    """The players are the words of `sentence`, of which any may be taken out."""
    anchor, generator = embedded(model, other)[0], torch.Generator().manual_seed(seed)

    def likeness(present: Tensor) -> Tensor:
        return embedded(model, sentence, present) @ anchor

    whole, none = torch.ones(1, sentence.ids.shape[1]), torch.zeros(1, 1)
    evaluations = max(EVALUATIONS, 8 * len(sentence.words))
    groups: dict[str, Any] = {"groups": sentence.numbers}
    values, errors = attrfn.shapley_estimate(
        likeness, whole, none, evaluations, generator=generator, vectorize="fold", **groups
    )
    at_words = [sentence.numbers.tolist().index(k) for k in sentence.numbers.unique().tolist() if k >= 0]
    deleted = way(likeness, values, whole, none, ORDERS, generator, **groups)
    kept = (sentence.numbers < 0).to(whole)[None]
    check = deleted.told("they are taken out", ORDERS)
    return Alike(Told(sentence.words, values[0, at_words]), float(likeness(kept)), float(errors.max()), check)
