"""Which rule of attribution patching says what patching does, at which places of trained transformers?

Pairs of inputs of one length, of SmolLM2-135M-Instruct (the logit of one answer less that of another) and of
all-MiniLM-L6-v2 (the cosine with another sentence), in float32. The truth is each position of each place patched by
itself, in both directions: f(x) − f(x with x′ there), and f(x′ with x there) − f(x′), and their mean. Of each rule the
means over the pairs of Pearson's and Spearman's correlation with each, of how many of the 20 largest are among the
truth's, and of the relative error; and by how much its sum over a residual layer misses f(x) − f(x′).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attrfn
from bench.harness import Row, Setting

PROMPTS = (
    ("When Mary and John went to the store, John gave a drink to", "John", "Mary", " Mary", " John"),
    ("When Anna and Tom went to the park, Tom gave a ball to", "Tom", "Anna", " Anna", " Tom"),
    ("The keys to the cabinet", "keys", "key", " are", " is"),
    ("The boys near the old tree", "boys", "boy", " are", " is"),
    ("The war lasted from the year 1782 to the year 17", "1782", "1712", "9", "1"),
    ("The capital of France is", "France", "Italy", " Paris", " Rome"),
    ("The capital of Germany is", "Germany", "Spain", " Berlin", " Madrid"),
    ("The king was very tired, because", "king", "queen", " he", " she"),
)
"""A prompt; its last such word, and what stands there in the other; the answer of the one, and of the other."""
SENTENCES = (
    ("A man is playing a guitar.", "A man is eating a pizza.", "Somebody makes music."),
    ("The cat sleeps on the sofa.", "The plane lands on the runway.", "A pet is resting."),
    ("She bought a new red car.", "She wrote a long sad poem.", "A woman got a vehicle."),
    ("It is raining in the city.", "It is sunny in the desert.", "The weather is wet."),
    ("The doctor examined the patient.", "The judge sentenced the thief.", "A physician saw somebody ill."),
    ("Two dogs run through the snow.", "Two boys swim across the lake.", "Animals play outside in winter."),
)


class Case(NamedTuple):
    """A model of embeddings, two of these, the explained number, and places by kind."""

    model: Callable[[Tensor], Any]
    x: Tensor
    start: Tensor
    target: Callable[[Any], Tensor]
    places: dict[str, list[Any]]


def language(setting: Setting) -> Iterator[Case]:
    from bench.trained import smollm2

    model, tokenizer = smollm2()
    blocks = list(model.model.layers)
    places: dict[str, list[Any]] = {
        "residual": [*blocks],
        "attention": [attrfn.at(block.self_attn, index=0) for block in blocks],
        "MLP": [block.mlp for block in blocks],
    }
    for text, word, other, *answers in PROMPTS[: setting.pick(len(PROMPTS), 1)]:
        head, _, tail = text.rpartition(word)
        ids = [tokenizer.encode(each).ids for each in (text, head + other + tail)]
        x, start = (model.model.embed_tokens(torch.tensor([each])) for each in ids)
        first, second = (tokenizer.encode(each).ids for each in answers)
        assert len(ids[0]) == len(ids[1]), text
        assert len(first) == len(second) == 1, answers
        target = attrfn.contrast((-1, first[0]), (-1, second[0]))
        yield Case(lambda h: model(inputs_embeds=h, logits_to_keep=1, use_cache=False), x, start, target, places)


def sentences(setting: Setting) -> Iterator[Case]:
    from bench.trained import minilm

    model, tokenizer = minilm()
    blocks = list(model.encoder.layer)
    places: dict[str, list[Any]] = {
        "residual": [*blocks],
        "attention": [block.attention.output.dense for block in blocks],
        "MLP": [block.output.dense for block in blocks],
        "heads": [attrfn.heads(block.attention.output.dense, 12) for block in blocks],
    }

    def embedded(h: Tensor) -> Tensor:
        return torch.nn.functional.normalize(model(inputs_embeds=h).last_hidden_state.mean(1), dim=-1)

    for text, other, beside in SENTENCES[: setting.pick(len(SENTENCES), 1)]:
        ids = [tokenizer.encode(each).ids for each in (text, other, beside)]
        assert len(ids[0]) == len(ids[1]), text
        x, start, z = (model.embeddings.word_embeddings(torch.tensor([each])) for each in ids)
        anchor = embedded(z)
        yield Case(embedded, x, start, lambda out, a=anchor: (out * a).sum(-1), places)


def numbers(found: Sequence[Tensor]) -> Tensor:
    """Of each place and position (and head) the number, summed over the width."""
    return torch.cat([each.sum(-1).flatten() for each in found])


def truth(case: Case, places: list[Any]) -> dict[str, Tensor]:
    settings = {"target": case.target}
    here = attrfn.activation_patching(case.model, places, case.x, case.start, **settings)
    there = attrfn.activation_patching(case.model, places, case.start, case.x, **settings)
    x, other = (
        torch.cat([sign * each[..., 0].flatten() for each in found]) for sign, found in ((1, here), (-1, there))
    )
    return {"x": x, "x′": other, "mean": (x + other) / 2}


def guesses(case: Case, places: list[Any]) -> dict[str, Tensor]:
    def by(x: Tensor, start: Tensor, **rule: Any) -> Tensor:
        return numbers(attrfn.attribution_patching(case.model, places, x, start, target=case.target, **rule))

    found = {rule: by(case.x, case.start, rule=rule) for rule in ("gradient", "path", "reference")}
    return {**found, "both ends": (found["gradient"] - by(case.start, case.x)) / 2}


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def judged(guess: Tensor, true: Tensor) -> tuple[float, float, float, float]:
    """Pearson, Spearman, the share of the 20 largest, and the relative error."""
    ranks = [t.argsort().argsort() for t in (guess, true)]
    best = [set(t.abs().topk(min(20, t.numel())).indices.tolist()) for t in (guess, true)]
    error = float((guess - true).norm() / true.norm())
    return correlation(guess, true), correlation(*ranks), len(best[0] & best[1]) / len(best[0]), error


def rows(setting: Setting) -> Iterator[Row]:
    for name, cases in {"all-MiniLM-L6-v2": sentences, "SmolLM2-135M": language}.items():
        found: dict[str, list[Any]] = {}
        for case in cases(setting):
            with torch.no_grad():
                change = float(case.target(case.model(case.x)) - case.target(case.model(case.start)))
            for kind, places in case.places.items():
                began = time.perf_counter()
                guess, between = guesses(case, places), time.perf_counter()
                true, ended = truth(case, places), time.perf_counter()
                scores = {r: {way: judged(g, t) for way, t in true.items()} for r, g in guess.items()}
                sums = {r: abs(float(g.reshape(len(places), -1).sum(1)[-1]) / change - 1) for r, g in guess.items()}
                found.setdefault(kind, []).append((scores, sums, between - began, ended - between))
        for kind, each in found.items():
            yield told(name, kind, each)


def told(name: str, kind: str, each: list[Any]) -> Row:
    """One row: means over the pairs, with the truth of patching x / patching x′ / their mean."""
    row: Row = {"work": kind, "model": name, "pairs": len(each)}
    for k, measure in enumerate(("Pearson", "Spearman", "top 20", "relative error")):
        row[measure] = {
            rule: " / ".join(f"{mean([scores[rule][way][k] for scores, *_ in each]):.2f}" for way in each[0][0][rule])
            for rule in each[0][0]
        }
    if kind == "residual":
        row["sum missed by, at worst"] = {rule: max(sums[rule] for _, sums, *_ in each) for rule in each[0][1]}
    return {**row, "s, rules": mean([r for *_, r, _ in each]), "s, exact": mean([e for *_, e in each])}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
