"""Every form of a tokenizer's folder gives the ids that transformers gives."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.tokenizer import Tokenizer, TokenizerError
from jaxlm.tokenizer.classes import RULES
from tests.tokenizer.backends import PIECES, bert, byte_level, llama, xlm_roberta
from tests.tokenizer.folders import (
    FORMS,
    KNOWN,
    SIZE,
    TEXTS,
    bpe_files,
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


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model"])
def test_pieces_alone_are_told_by_their_file_and_class(name, tmp_path):
    told = f"{name} alone does not tell the rules of a CamembertTokenizer: load it with transform"
    folder = write(tmp_path, {name: ""} | model("camembert"))
    for path in (folder, folder / name):
        with pytest.raises(TokenizerError, match=re.escape(told)):
            Tokenizer.load(path)
    write(folder, saved(xlm_roberta()))  # beside them the whole file counts
    assert Tokenizer.load(folder).mask_id is not None


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


def problem_of(folder):
    """What is wrong with a folder; nothing if it is read."""
    try:
        Tokenizer.load(folder).encode("hello <|user|>")
    except TokenizerError as error:
        return str(error)
    return ""


KEYS = [
    *("content", "special", "lstrip", "__type", "0", "270", "<s>", "add_bos_token", "legacy"),
    *("tokenizer_class", "added_tokens_decoder", "additional_special_tokens", "chat_template"),
    *("extra_special_tokens", "add_prefix_space", "do_lower_case", "strip_accents", "model_type"),
    *("bos_token", "pad_token", "cls_token", "image_token", "unk_token"),
]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.sampled_from(["", "<s>", "he", "a b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=4,
)
NAMES = [*RULES, "GPT2TokenizerFast", "T5Tokenizer", ""]
FOLDERS = [bpe_files(["<s>"]), words(), saved(byte_level(["<s>"])), saved(bert()), saved(llama())]


@settings(max_examples=100, deadline=None)
@given(
    files=st.sampled_from(FOLDERS),
    config=st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
    kind=st.none() | st.sampled_from(NAMES),
    name=st.sampled_from(["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]),
)
def test_any_config_is_followed_or_told(files, config, kind, name):
    with TemporaryDirectory() as folder:
        write(Path(folder), files | {name: config} | ({} if kind is None else named(kind)))
        assert "\n" not in problem_of(folder)


@settings(max_examples=100, deadline=None)
@given(
    files=st.sampled_from(FOLDERS),
    place=st.floats(0, 1, exclude_max=True),
    patch=st.sampled_from([b"", b"\0", b"\xff", b"[", b'"', b"-1", b"9" * 30, b"null", b"{}"]),
    dropped=st.integers(0, 40),
)
def test_damaged_bytes_are_told(files, place, patch, dropped):
    name = next(iter(files))
    content = files[name]
    text = content if isinstance(content, str) else json.dumps(content)
    data = text.encode()
    at = int(place * len(data))
    with TemporaryDirectory() as folder:
        write(Path(folder), files)
        Path(folder, name).write_bytes(data[:at] + patch + data[at + dropped :])
        assert "\n" not in problem_of(folder)
