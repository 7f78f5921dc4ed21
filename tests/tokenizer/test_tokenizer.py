import json
import math
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from jaxlm.config import DataConfig
from jaxlm.data import read_corpus
from jaxlm.tokenizer import (
    END_OF_TEXT,
    SPECIAL_TOKENS,
    Tokenizer,
    TokenizerError,
    encoding,
    train_tokenizer,
)
from jaxlm.tokenizer.cutting import cut_at_words

SHAKESPEARE = read_corpus(DataConfig()).documents[0]
SONGCI = read_corpus(DataConfig(source="sample:songci", max_documents=300)).documents
# Lines end in 。 or , or a letter; many are indented, or stand after blank ones.
LAYOUTS = SHAKESPEARE[:150_000].replace(",\n", ",\n\n   ") + "\n\n \n".join(SONGCI)
TEXTS = [LAYOUTS, SHAKESPEARE[-50_000:], *SONGCI]
LOSSLESS = ["bpe", "unigram"]
KINDS = ["char", "bpe", "wordpiece", "unigram"]
SIZE = 2048


@pytest.fixture(scope="module")
def trained():
    return {kind: train_tokenizer(kind, TEXTS, SIZE, (END_OF_TEXT,)) for kind in KINDS}


def test_char_of_shakespeare_has_its_65_characters_sorted():
    tokenizer = train_tokenizer("char", [SHAKESPEARE])
    assert tokenizer.vocab_size == 65
    assert [tokenizer.decode([i]) for i in range(65)] == sorted(set(SHAKESPEARE))
    assert tokenizer.eos_id is tokenizer.pad_id is tokenizer.bos_id is tokenizer.unk_id is None


def test_char_of_the_chinese_toy_has_8_characters():
    text = "写代码的中年人天天写代码"
    tokenizer = train_tokenizer("char", [text])
    assert tokenizer.vocab_size == 8
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ["char", *LOSSLESS])
@pytest.mark.parametrize(
    "text",
    [
        SHAKESPEARE[5000:7000],
        "\n\n".join(SONGCI[:5]),
        "  To be,   or not\n\n\n to be:\n 问君能有几多愁？  恰似一江春水\n",
    ],
    ids=["English", "Chinese", "spaces"],
)
def test_decoding_gives_the_text_back(trained, kind, text):
    if kind == "char":
        trained = {"char": train_tokenizer("char", [text])}
    assert trained[kind].decode(trained[kind].encode(text)) == text


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("text", ["naïve 🙂\tcafé\r\n", "龘靐 <0x41> <0xE4>", "▁a Ġb ĊĊ", ""])
def test_text_unlike_the_training_text_comes_back_too(trained, kind, text):
    assert trained[kind].decode(trained[kind].encode(text)) == text


def test_wordpiece_keeps_the_words_and_not_the_spacing(trained):
    tokenizer = trained["wordpiece"]
    assert tokenizer.decode(tokenizer.encode("to be\n  or not")) == "to be or not"
    assert tokenizer.encode("🙂") == [tokenizer.unk_id]


def test_wordpiece_writes_chinese_without_gaps(trained):
    text = "明月几时有，把酒问青天。"
    assert trained["wordpiece"].decode(trained["wordpiece"].encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_no_larger_than_asked_and_starts_with_the_specials(trained, kind):
    tokenizer = trained[kind]
    assert kind == "char" or tokenizer.vocab_size <= SIZE
    assert tokenizer.eos_id == (0 if tokenizer.unk_id is None else 1)
    assert tokenizer.encode(END_OF_TEXT) == [tokenizer.eos_id]


def test_decoding_leaves_out_special_tokens_unless_asked(trained):
    tokenizer = trained["bpe"]
    ids = [*tokenizer.encode("Speak"), tokenizer.eos_id]
    assert tokenizer.decode(ids) == "Speak"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "Speak" + END_OF_TEXT


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_in_pieces_has_the_ids_of_the_whole(trained, kind):
    tokenizer = trained[kind]
    pieces = list(tokenizer.pieces(LAYOUTS))
    assert len(pieces) > 3
    assert "".join(pieces) == LAYOUTS
    assert list(chain.from_iterable(tokenizer.encode_batch(pieces))) == tokenizer.encode(LAYOUTS)


def test_a_tokenizer_that_marks_the_start_of_a_text_is_cut_before_spaces_only():
    import tokenizers

    letters = [(letter, -2.0) for letter in ["▁", *sorted(set(SHAKESPEARE))]]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram([("<unk>", 0.0), *letters], 0))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    pieces = list(Tokenizer(backend).pieces(SHAKESPEARE))
    joined = [id for piece in pieces for id in backend.encode(piece).ids]
    assert len(pieces) > 1
    assert joined == backend.encode(SHAKESPEARE).ids


TRAIN_AGAIN = f"""
from test_tokenizer import TEXTS, train_tokenizer
for kind in {KINDS}:
    print(train_tokenizer(kind, TEXTS, {SIZE}, ("{END_OF_TEXT}",)).backend.to_str())
"""


def test_another_process_learns_the_same_tokenizer_bit_for_bit(trained):
    path = [*sys.path, str(Path(__file__).parent)]
    again = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path = {path}\n{TRAIN_AGAIN}"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()
    for kind, saved in zip(KINDS, again, strict=True):
        assert saved == trained[kind].backend.to_str(), kind


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_changes_nothing(trained, kind, tmp_path):
    tokenizer = trained[kind]
    tokenizer.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.backend.to_str() == tokenizer.backend.to_str()
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.config["eos_token"] == END_OF_TEXT
        assert loaded.encode(SHAKESPEARE[:2000]) == tokenizer.encode(SHAKESPEARE[:2000])


def test_a_fingerprint_survives_the_rounding_of_scores_in_a_file(tmp_path):
    import tokenizers

    vocab = [(chr(i), -math.log(i)) for i in range(32, 2000)]
    tokenizer = Tokenizer(tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, 0)))
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).backend.to_str() != tokenizer.backend.to_str()
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint


def test_a_file_that_pads_truncates_and_adds_tokens_is_read_without(trained, tmp_path):
    import tokenizers

    trained["bpe"].save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_padding(length=128)
    backend.enable_truncation(4)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, 0)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode(SHAKESPEARE[:100]) == trained["bpe"].encode(SHAKESPEARE[:100])


def test_the_config_says_which_tokens_are_special(trained, tmp_path):
    trained["char"].save(tmp_path)
    config = {"eos_token": {"content": "。"}, "bos_token": None, "chat_template": "{{ x }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.eos_id == loaded.encode("。")[0]
    assert loaded.bos_id is None
    loaded.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").config["chat_template"] == "{{ x }}"


def test_a_gpt2_folder_is_read(trained, tmp_path):
    tokenizer = trained["bpe"]
    tokenizer.backend.model.save(str(tmp_path))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.eos_id == tokenizer.eos_id
    text = SHAKESPEARE[:2000] + END_OF_TEXT + SONGCI[0]
    assert loaded.encode(text) == tokenizer.encode(text)


def test_an_unknown_token_stands_for_unknown_characters():
    tokenizer = train_tokenizer("char", ["今天天气真好"], specials=("<unk>",))
    assert tokenizer.encode("今a") == [tokenizer.backend.token_to_id("今"), tokenizer.unk_id]


def test_a_character_without_a_token_is_named():
    tokenizer = train_tokenizer("char", ["今天天气真好"])
    with pytest.raises(TokenizerError, match=r"has no '坏' \(U\+574F\)"):
        tokenizer.encode("今天天气真坏")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bep", ["text"], 500), "did you mean bpe"),
        (("char", [""]), "no text"),
        (("bpe", ["text"], 100), "at least 256 tokens, not 100"),
        (("unigram", ["text"], 256), "at least 321 tokens"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_sentence(arguments, message):
    with pytest.raises(TokenizerError, match=message) as raised:
        train_tokenizer(*arguments)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_loaded_is_told_in_one_sentence(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="not a tokenizer that can be read"):
        Tokenizer.load(tmp_path)
    train_tokenizer("char", ["text"]).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TokenizerError, match="must hold a JSON mapping"):
        Tokenizer.load(tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_is_saved(trained, kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    trained[kind].save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = SHAKESPEARE[:2000]
    ids = trained[kind].encode(text)
    assert theirs.encode(text, add_special_tokens=False) == ids
    assert theirs.decode(ids, skip_special_tokens=True) == trained[kind].decode(ids)
    assert theirs.eos_token_id == trained[kind].eos_id


def test_a_document_without_line_ends_is_encoded_in_pieces_as_whole(monkeypatch):
    text = "明月几时有，把酒问青天。The moon, when?" * 200
    for kind in ("char", "bpe", "wordpiece", "unigram"):
        tokenizer = train_tokenizer(kind, [text], 400, SPECIAL_TOKENS)
        whole = tokenizer.encode(text)
        with monkeypatch.context() as patch:
            patch.setattr(encoding, "LONG", 100)
            pieces = list(tokenizer.pieces(text))
        assert len(pieces) > 20
        assert "".join(pieces) == text
        assert [i for piece in pieces for i in tokenizer.encode(piece)] == whole


def test_a_text_without_words_is_cut_all_the_same(monkeypatch):
    monkeypatch.setattr(encoding, "LONG", 1000)
    monkeypatch.setattr(encoding, "LONGEST", 4000)
    text = "ACGT" * 5000
    pieces = list(train_tokenizer("bpe", [text[:400]], 300).pieces(text))
    assert max(map(len, pieces)) <= 4000
    assert "".join(pieces) == text


@pytest.mark.parametrize("run", ["acgt", "地", "=-", "_-", " "])
def test_a_word_without_end_is_learned_in_parts(run):
    text = "(so) " + run * (12000 // len(run)) + "(and) words " * 400
    parts = list(cut_at_words(text))
    assert "".join(parts) == text
    assert len(parts) == 3
    assert max(map(len, parts[:2])) <= 4096 + len("(so) ")
