"""Transformers as their library has them, tiny and with random weights, two inputs of one length, and their places."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers as hf
from torch import Tensor, nn

import attrfn

WORDS, WIDTH, HEADS, LENGTH = 24, 16, 4, 5


class Pair(NamedTuple):
    """A model, an input, another of its length, the explained number, and places."""

    model: nn.Module
    x: Any
    start: Any
    target: Any
    stream: str
    """A block, whose output is the residual stream."""
    heads: attrfn.Site
    """The heads of one of its attention layers."""
    attention: str


def _decoder(config: Any, model: Any, prefix: str, last: str, attention: str, implementation: str) -> Pair:
    config.num_key_value_heads, config._attn_implementation = HEADS // 2, implementation
    return _of_tokens(model(config), prefix, last, attention, (-1, 7))


def _sizes(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": WORDS,
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 16,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **more,
    }


def _of_tokens(model: nn.Module, block: str, last: str, attention: str, target: Any) -> Pair:
    ids, other = torch.randint(3, WORDS, (2, 2, LENGTH))
    site = attrfn.heads(f"{block}.{last}", HEADS)
    there = {"input_ids": other, "attention_mask": torch.ones_like(other)}
    return Pair(model, {**there, "input_ids": ids}, there, target, block, site, f"{block}.{attention}")


def llama(how: str) -> Pair:
    return _decoder(
        hf.LlamaConfig(**_sizes()), hf.LlamaForCausalLM, "model.layers.0", "self_attn.o_proj", "self_attn", how
    )


def qwen2(how: str) -> Pair:
    return _decoder(
        hf.Qwen2Config(**_sizes()), hf.Qwen2ForCausalLM, "model.layers.0", "self_attn.o_proj", "self_attn", how
    )


def mistral(how: str) -> Pair:
    config = hf.MistralConfig(**_sizes(head_dim=WIDTH // HEADS))
    return _decoder(config, hf.MistralForCausalLM, "model.layers.0", "self_attn.o_proj", "self_attn", how)


def gpt2(how: str) -> Pair:
    sizes = {"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "n_positions": 16}
    config = hf.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2, attn_implementation=how)
    return _of_tokens(hf.GPT2LMHeadModel(config), "transformer.h.0", "attn.c_proj", "attn", (-1, 7))


def bert(how: str) -> Pair:
    model = hf.BertModel(hf.BertConfig(**_sizes(), attn_implementation=how))

    def target(output: Any) -> Tensor:
        return output.last_hidden_state[:, 0, 3]

    return _of_tokens(model, "encoder.layer.0", "attention.output.dense", "attention", target)


def vit(how: str) -> Pair:
    sizes = {"image_size": 4, "patch_size": 2, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2}
    config = hf.ViTConfig(**sizes, num_attention_heads=HEADS, num_labels=3, attn_implementation=how)
    model = hf.ViTForImageClassification(config)
    x, start = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    attention = next(name for name, _ in model.named_modules() if name.endswith(".attention"))
    blocks = [name for name, module in model.named_modules() if type(module).__name__ == "ViTLayer"]
    projections = [name for name, _ in model.named_modules() if name.endswith(("o_proj", "output.dense"))]
    last = next(name for name in projections if name.startswith(attention))
    return Pair(model, x, start, 1, blocks[0], attrfn.heads(last, HEADS), attention)


def t5(how: str) -> Pair:
    sizes = {"vocab_size": WORDS, "d_model": WIDTH, "d_ff": 24, "d_kv": WIDTH // HEADS, "num_layers": 2}
    model = hf.T5ForConditionalGeneration(hf.T5Config(**sizes, num_heads=HEADS))
    ids, other = torch.randint(3, WORDS, (2, 2, LENGTH))
    given, others = torch.randint(3, WORDS, (2, 2, 3))
    site = attrfn.heads("decoder.block.1.layer.1.EncDecAttention.o", HEADS)
    x, start = ({"input_ids": a, "decoder_input_ids": b} for a, b in ((ids, given), (other, others)))
    return Pair(model, x, start, (-1, 7), "encoder.block.0", site, "decoder.block.0.layer.0")


MODELS: dict[str, Callable[[str], Pair]] = {
    "llama": llama, "qwen2": qwen2, "mistral": mistral, "gpt2": gpt2, "bert": bert, "vit": vit, "t5": t5,
}  # fmt: skip


def made(name: str, how: str = "sdpa") -> Pair:
    torch.manual_seed(0)
    pair = MODELS[name](how)
    with torch.no_grad():  # larger than usual, so that nonlinearity matters
        for parameter in pair.model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    return pair._replace(model=pair.model.double().eval())
