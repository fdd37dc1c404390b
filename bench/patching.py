"""Which rule of attribution patching says what patching does, at which places of trained transformers?

Pairs of inputs of one length, of SmolLM2-135M-Instruct (the logit of one answer less that of another) and of
all-MiniLM-L6-v2 (the cosine with another sentence), in float32. The truth is each position of each place patched by
itself, in both directions: f(x) − f(x with x′ there), and f(x′ with x there) − f(x′), and their mean; positions before
the first difference, where a model that looks back alone is the same in both, are left out. Of each rule the means over
the pairs of Pearson's and Spearman's correlation with each, of how many of the 20 largest are among the truth's, and of
the relative error; by how much its sum over the last residual layer misses f(x) − f(x′); and how many times that of
one gradient its time is. Candidates for another rule are asked beside the others at some of the layers. Then sums of
edges, all tokens of an answer beside Captum's, and the cost of ninety places.

Of the answer's tokens, ours in float32 are those of plain autograd in one pass, to the bit, and Captum's those of plain
autograd in a pass a token. They are 2.3e-6 of the largest apart; from the same model in float64, norms and rotations
too, ours are 3.98e-5 of it, Captum's 3.96e-5: neither is nearer, and 1e-6 is below the rounding of either.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    first: int = 0
    """Positions before this one are the same in both."""


def language(setting: Setting) -> Iterator[Case]:
    from bench.trained import smollm2

    model, tokenizer = smollm2()
    blocks = list(model.model.layers)
    places: dict[str, list[Any]] = {
        "residual": [*blocks],
        "attention": [attrfn.at(block.self_attn, index=0) for block in blocks],
        "MLP": [block.mlp for block in blocks],
        "heads": [attrfn.heads(block.self_attn.o_proj, 9) for block in blocks[::10]],
    }
    for text, word, other, *answers in PROMPTS[: setting.pick(len(PROMPTS), 1)]:
        head, _, tail = text.rpartition(word)
        ids = [tokenizer.encode(each).ids for each in (text, head + other + tail)]
        x, start = (model.model.embed_tokens(torch.tensor([each])) for each in ids)
        first, second = (tokenizer.encode(each).ids for each in answers)
        assert len(ids[0]) == len(ids[1]), text
        assert len(first) == len(second) == 1, answers
        target = attrfn.contrast((-1, first[0]), (-1, second[0]))
        first = next(k for k, (one, other) in enumerate(zip(*ids, strict=True)) if one != other)
        yield Case(lambda h: model(inputs_embeds=h, logits_to_keep=1, use_cache=False), x, start, target, places, first)


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


def numbers(case: Case, found: Sequence[Tensor]) -> Tensor:
    """A row a place: the number of each position, of heads of each head there, summed over the width."""
    return torch.stack([each.sum(-1)[:, case.first :].flatten() for each in found])


def groups(case: Case, place: Any) -> Tensor:
    """Each position from the first difference on is one, of heads each head there."""
    count = place.heads[0] if isinstance(place, attrfn.Site) and place.heads else 1
    found = torch.arange(case.x.shape[1] * count).reshape(-1, count)
    found[: case.first] = -1
    return found if count == 1 else found[..., None]


def truth(case: Case, places: list[Any]) -> dict[str, Tensor]:
    of = [groups(case, place) for place in places]
    x, other = (
        numbers(
            case, [e[..., :1] for e in attrfn.activation_patching(case.model, places, *pair, of, target=case.target)]
        )
        for pair in ((case.x, case.start), (case.start, case.x))
    )
    return {"x": x, "x′": -other, "mean": (x - other) / 2}


def rules(case: Case, places: list[Any]) -> dict[str, Callable[[], Tensor]]:
    def by(x: Tensor, start: Tensor, **rule: Any) -> Tensor:
        return numbers(case, attrfn.attribution_patching(case.model, places, x, start, target=case.target, **rule))

    found = {rule: lambda r=rule: by(case.x, case.start, rule=r) for rule in ("gradient", "path", "reference")}
    return {**found, "both ends": lambda: (by(case.x, case.start) - by(case.start, case.x)) / 2}


def candidates(case: Case, places: list[Any]) -> dict[str, Callable[[], Tensor]]:
    """The gradient and half its change along the line to x′, by one derivative forwards for all places; along the
    difference at each place alone, all else as at x; and DeepLIFT's slope of each place alone."""
    differences = [
        h - other for h, other in zip(*(attrfn.layer_activation(case.model, places, z) for z in case[1:3]), strict=True)
    ]

    def along(x: Tensor) -> tuple[Tensor, ...]:
        settings: dict[str, Any] = {"multiply_by_inputs": False, "create_graph": True}
        return attrfn.layer_gradient_x_activation(case.model, places, x, case.target, **settings)

    def curved() -> Tensor:
        slopes, changes = bent(along, case.x, case.start - case.x)
        return numbers(case, [(g + c / 2) * d for g, c, d in zip(slopes, changes, differences, strict=True)])

    def curved_alone(place: Any, difference: Tensor) -> Tensor:
        rest, h = attrfn.from_layer(case.model, place, case.x), attrfn.layer_activation(case.model, place, case.x)
        slope, change = bent(
            lambda h: attrfn.saliency(rest, h, case.target, absolute=False, create_graph=True), h, -difference
        )
        return (slope + change / 2) * difference

    def slope_alone(place: Any, difference: Tensor) -> Tensor:
        rest, h = attrfn.from_layer(case.model, place, case.x), attrfn.layer_activation(case.model, place, case.x)
        return attrfn.deep_lift(rest, h, h - difference, target=case.target)

    def each(one: Callable[[Any, Tensor], Tensor]) -> Tensor:
        return numbers(case, [one(*pair) for pair in zip(places, differences, strict=True)])

    return {
        "curvature": curved,
        "curvature, alone": lambda: each(curved_alone),
        "slope, alone": lambda: each(slope_alone),
    }


def bent(f: Callable[[Tensor], Any], x: Tensor, step: Tensor) -> Any:
    """A gradient and its change; of the fused attention torch has no derivative forwards."""
    with sdpa_kernel(SDPBackend.MATH):
        return torch.func.jvp(f, (x,), (step,))


class Found(NamedTuple):
    """Of one pair at the places of one kind."""

    true: dict[str, Tensor]
    guessed: dict[str, Tensor]
    seconds: dict[str, float]

    def some(self, step: int, more: "Found") -> "Found":
        """Of every so many places, and with what was guessed of these alone."""
        true, guessed = ({k: v[::step] for k, v in each.items()} for each in (self.true, self.guessed))
        one = {"one gradient": self.seconds["one gradient"]}
        return Found(true, {**guessed, **more.guessed}, {**more.seconds, **one})

    def scores(self) -> dict[str, dict[str, tuple[float, ...]]]:
        return {r: {way: judged(g, t) for way, t in self.true.items()} for r, g in self.guessed.items()}


def asked(case: Case, places: list[Any]) -> Found:
    """What the rules say, and the truth."""
    found, seconds = timed(rules(case, places))
    true, took = timed({"exact": lambda: truth(case, places)})
    return Found(true["exact"], found, {**seconds, **took, **gradients(case)})


def asked_more(case: Case, places: list[Any]) -> Found:
    """What the candidates say."""
    return Found({}, *timed(candidates(case, places)))


def gradients(case: Case) -> dict[str, float]:
    one = {"one gradient": lambda: attrfn.saliency(case.model, case.x, case.target)}
    timed(one)
    return timed(one)[1]


def timed(calls: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, float]]:
    found, seconds = {}, {}
    for name, call in calls.items():
        began = time.perf_counter()
        found[name] = call()
        seconds[name] = time.perf_counter() - began
    return found, seconds


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def judged(guess: Tensor, true: Tensor) -> tuple[float, float, float, float]:
    """Pearson, Spearman, the share of the 20 largest, and the relative error."""
    guess, true = guess.flatten(), true.flatten()
    ranks = [t.argsort().argsort() for t in (guess, true)]
    best = [set(t.abs().topk(min(20, t.numel())).indices.tolist()) for t in (guess, true)]
    error = float((guess - true).norm() / true.norm())
    return correlation(guess, true), correlation(*ranks), len(best[0] & best[1]) / len(best[0]), error


def rows(setting: Setting) -> Iterator[Row]:
    from bench import places  # which asks these pairs too

    for name, made in {"all-MiniLM-L6-v2": sentences, "SmolLM2-135M": language}.items():
        cases = list(made(setting))
        for kind, sites in cases[0].places.items():
            step = max(1, len(sites) // 3)
            found = [asked(case, case.places[kind]) for case in cases]
            yield told(name, kind, cases, found)
            more = [asked_more(case, case.places[kind][::step]) for case in cases]
            some = [one.some(step, other) for one, other in zip(found, more, strict=True)]
            yield told(name, f"{kind}, {len(some[0].guessed['path'])} layers", cases, some)
    yield from places.rows(setting)


def told(name: str, kind: str, cases: list[Case], found: list[Found]) -> Row:
    """One row: means over the pairs, with the truth of patching x / patching x′ / their mean."""
    row: Row = {"work": kind, "model": name, "pairs": len(found)}
    scores = [one.scores() for one in found]
    for k, measure in enumerate(("Pearson", "Spearman", "top 20", "relative error")):
        row[measure] = {
            rule: " / ".join(f"{mean([each[rule][way][k] for each in scores]):.3f}" for way in of)
            for rule, of in scores[0].items()
        }
    if kind == "residual":
        missed = [sums_missed(*pair) for pair in zip(cases, found, strict=True)]
        row["sum missed by, at worst"] = {rule: max(each[rule] for each in missed) for rule in missed[0]}
    row["time, in gradients"] = {
        call: statistics.median(one.seconds[call] / one.seconds["one gradient"] for one in found)
        for call in found[0].seconds
    }
    return row


def sums_missed(case: Case, found: Found) -> dict[str, float]:
    """By how much of f(x) − f(x′) each rule misses it at the last layer."""
    with torch.no_grad():
        change = float(case.target(case.model(case.x)) - case.target(case.model(case.start)))
    return {rule: abs(float(guess[-1].sum()) / change - 1) for rule, guess in found.guessed.items()}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
