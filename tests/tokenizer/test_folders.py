"""Every form of a tokenizer's folder gives the ids that transformers gives."""

import json

import pytest

from jaxlm.tokenizer import Tokenizer, TokenizerError
from tests.tokenizer.folders import (
    FORMS,
    KNOWN,
    PIECES,
    SIZE,
    TEXTS,
    bpe_files,
    byte_level,
    model,
    named,
    reference,
    saved,
    token,
    words,
    write,
)

EXPECTED = json.loads(KNOWN.read_text(encoding="utf-8"))


def check(folder, expected):
    ours = Tokenizer.load(folder)
    assert [ours.backend.encode(text).ids for text in TEXTS] == expected["ids"]
    for role, number in expected["roles"].items():
        # A role that the files do not name may be guessed by its usual spelling.
        assert number is None or getattr(ours, f"{role}_id") == number, role


@pytest.mark.parametrize("form", FORMS)
def test_ids_and_special_tokens_are_those_of_transformers(form, tmp_path):
    check(write(tmp_path, FORMS[form]()), EXPECTED[form])


@pytest.mark.parametrize("form", FORMS)
def test_what_is_saved_is_read_alike(form, tmp_path):
    Tokenizer.load(write(tmp_path / "theirs", FORMS[form]())).save(tmp_path / "ours")
    check(tmp_path / "ours", EXPECTED[form])


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
def test_transformers_of_today_gives_the_same(form, tmp_path):
    folder = write(tmp_path / "theirs", FORMS[form]())
    live = reference(folder)
    assert live == EXPECTED[form]
    Tokenizer.load(folder).save(tmp_path / "ours")
    assert reference(tmp_path / "ours")["ids"] == live["ids"]


def test_added_tokens_are_one_token_each_and_left_out_of_texts(tmp_path):
    files = bpe_files(["<|endoftext|>"]) | {"added_tokens.json": {"<|user|>": SIZE + 1}}
    files["special_tokens_map.json"] = {"pad_token": "<|user|>"}
    tokenizer = Tokenizer.load(write(tmp_path, files))
    assert tokenizer.encode("<|user|>") == [tokenizer.pad_id] == [SIZE + 1]
    assert tokenizer.decode(tokenizer.encode("hello<|user|>")) == "hello"


def test_tokens_beyond_a_models_vocabulary_are_not_added(tmp_path):
    files = bpe_files(["<|endoftext|>"]) | named("GPT2Tokenizer", pad_token="[PAD]")
    folder = write(tmp_path, files)
    assert Tokenizer.load(folder).pad_id == SIZE + 1
    assert Tokenizer.load(folder, max_size=SIZE + 1).vocab_size == SIZE + 1


def test_an_id_that_the_vocabulary_would_not_give_is_told(tmp_path):
    listed = {str(SIZE + 7): token("<|user|>")}
    files = bpe_files() | named("Qwen2Tokenizer", added_tokens_decoder=listed)
    with pytest.raises(TokenizerError, match=f"have the id {SIZE + 7}, but would be {SIZE} in"):
        Tokenizer.load(write(tmp_path, files))


def llama_pieces(folder):
    """A tokenizer.model of byte-pair pieces with bytes, as Llama 2's is."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    lines = [" ".join(PIECES).replace("▁", " "), *TEXTS] * 20
    trainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )


@pytest.mark.parity
@pytest.mark.parametrize("fields", [{}, {"add_bos_token": True}, {"legacy": True}])
def test_llamas_pieces_alone_are_read(fields, tmp_path):
    llama_pieces(tmp_path)
    check(write(tmp_path, named("LlamaTokenizer", **fields) | model("llama")), reference(tmp_path))


def test_pieces_without_their_package_or_rules_are_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    folder = write(tmp_path, {"tokenizer.model": ""} | model("llama"))
    with pytest.raises(TokenizerError, match=r"pip install \"jaxlm\[sentencepiece\]\""):
        Tokenizer.load(folder)
    write(folder, named("T5Tokenizer"))
    with pytest.raises(TokenizerError, match="alone does not tell the rules of a T5Tokenizer"):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer.json": "[]"},
        {"tokenizer.json": "[" * 100_000},
        {"tokenizer.json": json.dumps({"model": {"type": "BPE", "vocab": [], "merges": 1}})},
        {"vocab.json": "[]", "merges.txt": ""},
        {"vocab.json": {"a": -1}, "merges.txt": "a b"},
        {"vocab.txt": ""},
        bpe_files() | named("GPT2Tokenizer", added_tokens_decoder=[1]),
        bpe_files() | named("GPT2Tokenizer", added_tokens_decoder={"x": "<a>"}),
        bpe_files() | named("GPT2Tokenizer", pad_token={"text": "<pad>"}),
        bpe_files() | named("GPT2Tokenizer", eos_token=["<a>"]),
        bpe_files() | {"added_tokens.json": {"<a>": "x"}},
        bpe_files() | {"tokenizer_config.json": "[" * 100_000},
        words() | named("BertTokenizer", do_lower_case="no"),
        saved(byte_level()) | {"config.json": "{"},
    ],
    ids=lambda files: " ".join(files),
)
def test_damaged_files_are_told_in_one_sentence(files, tmp_path):
    with pytest.raises(TokenizerError) as raised:
        Tokenizer.load(write(tmp_path, files))
    assert "\n" not in str(raised.value)
