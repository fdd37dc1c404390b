"""What `patching` asks beside its study, of SmolLM2-135M: sums of edges, all tokens of an answer, ninety places."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import attrfn
from bench.harness import OURS, PEER, Row, Setting, ahead, compared
from bench.patching import PROMPTS, Case, language

STORY = (
    "The old lighthouse keeper climbed the winding stairs every evening, carrying a lamp and a book of stories, and "
    "from the top he watched the ships pass by in the dark. One night he saw a small boat that"
)
ANSWER = " with a sail and a crew of sailors. He said to them, I have never"


def rows(setting: Setting) -> Iterator[Row]:
    yield sums_of_edges(setting)
    yield answer(setting)
    yield from ninety(setting)


def sums_of_edges(setting: Setting) -> Row:
    """Of edges by the reference rule from the first writer and into the last reader: by how much f(x) − f(x′) they miss
    it; and by how much over the readers a writer's own number."""
    from bench.trained import smollm2

    model, tokenizer = smollm2()
    blocks = list(model.model.layers)
    writers: list[Any] = [model.model.embed_tokens]
    readers: list[Any] = []
    for block in blocks:
        writers += [attrfn.at(block.self_attn, index=0), block.mlp]
        readers += [block.input_layernorm, block.post_attention_layernorm]
    missed: list[tuple[float, float, float]] = []
    for text, word, other, *answers in PROMPTS[: setting.pick(len(PROMPTS), 1)]:
        head, _, tail = text.rpartition(word)
        x, start = (torch.tensor([tokenizer.encode(each).ids]) for each in (text, head + other + tail))
        first, second = (tokenizer.encode(each).ids[0] for each in answers)
        settings: dict[str, Any] = {"target": attrfn.contrast((-1, first), (-1, second)), "rule": "reference"}
        found = attrfn.edges(model, writers, [*readers, model.model.norm], x, start, **settings)
        nodes = torch.stack(
            [each.sum(-1) for each in attrfn.attribution_patching(model, writers, x, start, **settings)]
        )
        with torch.no_grad():
            change = float(settings["target"](model(x)) - settings["target"](model(start)))
        own = float((found.sum(1) - nodes).abs().max() / nodes.abs().max())
        missed.append((abs(float(found[0].sum()) / change - 1), abs(float(found[:, -1].sum()) / change - 1), own))
    names = ("from the first writer", "into the last reader", "of each writer")
    worst = dict(zip(names, map(max, zip(*missed, strict=True)), strict=True))
    return {
        "work": f"edges, {len(writers)} × {len(readers) + 1}",
        "model": "SmolLM2-135M",
        "pairs": len(missed),
        **worst,
    }


def answer(setting: Setting) -> Row:
    """Gradient times activation of the embedding, of each token of an answer of 16 at a prompt of 40."""
    from captum import attr as captum
    from transformers import PreTrainedTokenizerFast

    from bench.trained import smollm2

    model, tokenizer = smollm2()
    model.requires_grad_(True)
    prompt = tokenizer.encode(STORY).ids[:40]
    tokens = torch.tensor(tokenizer.encode(ANSWER).ids[: setting.pick(16, 2)])
    ids, embedding = torch.cat([torch.tensor(prompt), tokens[:-1]])[None], model.model.embed_tokens
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer)

    def theirs() -> Any:
        asked = captum.LLMGradientAttribution(captum.LayerGradientXActivation(model, embedding), wrapped)
        return asked.attribute(captum.TextTokenInput(tokenizer.decode(prompt), wrapped), target=tokens).token_attr

    def log_probabilities(ids: Tensor) -> Tensor:
        return model(ids, logits_to_keep=len(tokens), use_cache=False).logits.log_softmax(-1)

    def each(target: Any) -> Tensor:
        return attrfn.layer_gradient_x_activation(log_probabilities, embedding, ids, target)

    def ours() -> Tensor:
        found = attrfn.over_targets(each, list(enumerate(tokens.tolist())))
        return found[:, 0, : len(prompt)].sum(-1)

    work = f"an answer of {len(tokens)} tokens, prompt of {len(prompt)}"
    return compared(setting, work, {OURS: ours, PEER: theirs}, ahead(2.0), model="SmolLM2-135M", agree=1e-5)


def ninety(setting: Setting) -> Iterator[Row]:
    """All places of a model beside its first layer alone, and its last."""
    case: Case = next(language(setting))
    every = [place for kind in ("residual", "attention", "MLP") for place in case.places[kind]]

    def call(method: str, layers: list[Any], **more: Any) -> Any:
        between = () if method == "layer_gradient_x_activation" else (case.start,)
        steps = (2,) if method in ("layer_conductance", "internal_influence") else ()
        settings: dict[str, Any] = {"target": case.target, **more}
        return getattr(attrfn, method)(case.model, layers, case.x, *between, *steps, **settings)[0]

    asked: list[tuple[str, dict[str, Any]]] = [
        ("layer_gradient_x_activation", {}), ("layer_deep_lift", {}), ("internal_influence", {}),
        ("layer_conductance", {"derivative": "difference"}), ("layer_conductance", {}),
    ]  # fmt: skip
    for method, more in asked:
        work = {name: lambda m=method, k=more, s=some: call(m, s, **k)
                for name, some in {OURS: every, "first": every[:1], "last": every[29:30]}.items()}  # fmt: skip
        words = ", ".join([method, *(f"{k}={v}" for k, v in more.items())])
        yield compared(
            setting, f"{words}: {len(every)} places", work, ahead(1 / 1.1, "first"), model="SmolLM2-135M", agree=None
        )
