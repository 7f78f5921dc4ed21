import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from jaxlm.config import DataConfig
from jaxlm.data import Corpus, DataError, dataset, prepare, read_corpus
from jaxlm.data.dataset import split_corpus
from jaxlm.files import make_locked
from jaxlm.tokenizer import (
    END_OF_TEXT,
    Tokenizer,
    TokenizerError,
    train_tokenizer,
)

TOY = "写代码的中年人天天写代码"
POEMS = DataConfig(source="sample:songci", max_documents=300)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def text_file(folder, text, name="text.txt"):
    (folder / name).write_text(text, encoding="utf-8")
    return DataConfig(source=str(folder / name), seq_len=4)


def decode(data, split):
    return data.tokenizer.decode(split.tokens, skip_special_tokens=False)


def test_plain_text_is_split_by_characters():
    data = prepare(DataConfig())
    text = read_corpus(DataConfig()).documents[0]
    assert data.tokenizer.vocab_size == 65
    assert (len(data.train), len(data.val)) == (1_003_854, 111_540)
    assert decode(data, data.train) == text[:1_003_854]
    assert decode(data, data.val) == text[1_003_854:]
    assert data.val.num_bytes == 111_540


def test_text_files_are_split_as_one_text_and_end_as_documents(tmp_path):
    for name in ("b", "a"):
        text_file(tmp_path, name * 10, f"{name}.txt")
    config = DataConfig(source=str(tmp_path / "*.txt"), val_fraction=0.25, seq_len=4)
    data = prepare(config)
    assert decode(data, data.train) == f"aaaaaaaaaa{END_OF_TEXT}bbbbb{END_OF_TEXT}"
    assert decode(data, data.val) == f"bbbbb{END_OF_TEXT}"
    assert data.train.document_starts.tolist() == [0, 11]


def test_rows_are_shuffled_by_the_seed_and_split_whole():
    first, second = prepare(POEMS, seed=0), prepare(POEMS, seed=1)
    poems = read_corpus(POEMS).documents
    splits = [
        decode(data, part).removesuffix(END_OF_TEXT).split(END_OF_TEXT)
        for data in (first, second)
        for part in (data.train, data.val)
    ]
    assert [len(part) for part in splits] == [270, 30, 270, 30]
    assert sorted(splits[0] + splits[1]) == sorted(splits[2] + splits[3]) == sorted(poems)
    assert splits[0] != splits[2]
    assert set(splits[1]) != set(poems[270:])
    assert first.fingerprint != second.fingerprint


def test_without_validation_all_text_trains(tmp_path):
    config = text_file(tmp_path, TOY)
    data = prepare(dataclasses.replace(config, val_fraction=0))
    assert data.val is None
    assert decode(data, data.train) == TOY
    assert data.tokenizer.vocab_size == 8
    assert data.tokenizer.eos_id is None


def test_a_single_text_has_no_end_even_where_the_tokenizer_has_a_token_for_it(tmp_path):
    tokenizer = train_tokenizer("char", [TOY], specials=[END_OF_TEXT])
    data = prepare(text_file(tmp_path, TOY), tokenizer=tokenizer)
    assert decode(data, data.train) + decode(data, data.val) == TOY


@pytest.mark.parametrize(("letters", "end"), [("写代码的\n", "\n"), ("写代码的", "")])
def test_documents_end_with_a_newline_where_a_given_vocabulary_has_no_end(tmp_path, letters, end):
    config = text_file(tmp_path, '{"text": "写代码"}\n{"text": "的写"}\n', "rows.jsonl")
    config = dataclasses.replace(config, val_fraction=0.0)
    data = prepare(config, tokenizer=train_tokenizer("char", [letters]))
    documents = [text + end for text in ("写代码", "的写")]
    assert decode(data, data.train) in ("".join(documents), "".join(reversed(documents)))


def test_characters_are_learned_from_both_splits_and_pieces_from_one(tmp_path):
    text = "the quick brown fox\n" * 100 + "zebra crossing zebra\n" * 10
    config = text_file(tmp_path, text)
    data = prepare(config)
    assert decode(data, data.val).endswith("zebra\n")
    pieces = prepare(dataclasses.replace(config, tokenizer="bpe", vocab_size=400)).tokenizer
    assert len(pieces.encode("the quick brown fox")) == 4
    assert len(pieces.encode("zebra")) > 1


def test_the_second_call_neither_reads_nor_encodes(monkeypatch):
    config = dataclasses.replace(POEMS, tokenizer="unigram", vocab_size=2048)
    first = prepare(config)

    def fail(*arguments):
        raise AssertionError("work done again")

    monkeypatch.setattr(dataset, "read_corpus", fail)
    monkeypatch.setattr(dataset, "train_tokenizer", fail)
    monkeypatch.setattr(dataset, "write_store", fail)
    # Windows of another length are cut from the same store.
    second = prepare(dataclasses.replace(config, seq_len=128))
    assert second.fingerprint == first.fingerprint
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert (second.train.tokens == first.train.tokens).all()


def test_changed_text_of_the_same_size_is_prepared_anew(tmp_path):
    config = text_file(tmp_path, TOY * 10)
    file = tmp_path / "text.txt"
    times = file.stat()
    first = prepare(config)
    file.write_text(TOY[::-1] * 10, encoding="utf-8")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = prepare(config)
    assert decode(second, second.train).startswith(TOY[::-1])
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"val_fraction": 0.5}, {"normalize": "NFKC"}, {"max_documents": 299}, {"tokenizer": "bpe"}],
    ids=str,
)
def test_a_changed_setting_is_prepared_anew(change):
    assert prepare(POEMS).fingerprint != prepare(dataclasses.replace(POEMS, **change)).fingerprint


@pytest.mark.parametrize("name", ["train/tokens.bin", "val/meta.json", "tokenizer.json"])
def test_a_damaged_cache_is_made_anew(tmp_path, cache, name):
    config = text_file(tmp_path, TOY * 10)
    first = prepare(config)
    (file,) = cache.glob(f"tokens/*/{name}")
    file.write_bytes(file.read_bytes()[:-3])
    assert prepare(config).fingerprint == first.fingerprint
    assert file.is_file()


@pytest.mark.parametrize("damage", ["zeros in the tokens", "a word of the tokenizer"])
def test_damage_that_keeps_the_size_is_told_and_mended(tmp_path, cache, capsys, damage):
    config = text_file(tmp_path, TOY * 10)
    first = prepare(config)
    tokens = first.train.tokens.copy()
    if damage == "zeros in the tokens":
        (file,) = cache.glob("tokens/*/train/tokens.bin")
        file.write_bytes(bytes(file.stat().st_size))
    else:
        (file,) = cache.glob("tokens/*/tokenizer.json")
        file.write_text(file.read_text(encoding="utf-8").replace("写", "读"), encoding="utf-8")
    second = prepare(config)
    assert "are damaged and are made again" in capsys.readouterr().err
    assert second.fingerprint == first.fingerprint
    assert (second.train.tokens == tokens).all()


def test_remains_of_a_killed_build_are_removed_and_one_that_goes_on_is_not(tmp_path, cache):
    dead = cache / "tokens" / ".jaxlm-0123456789abcdef" / "train"
    dead.mkdir(parents=True)
    alive = cache / "tokens" / ".jaxlm-fedcba9876543210"
    descriptor = make_locked(alive)
    prepare(text_file(tmp_path, TOY * 10))
    assert not dead.parent.exists()
    assert alive.exists()
    os.close(descriptor)


def test_another_process_may_be_faster_with_the_same(tmp_path, cache, monkeypatch):
    write_store = dataset.write_store

    def write_and_come_second(folder, *arguments):
        write_store(folder, *arguments)
        if folder.name == "val":
            shutil.copytree(folder.parent, cache / "tokens" / key)

    monkeypatch.setattr(dataset, "write_store", write_and_come_second)
    config = text_file(tmp_path, TOY * 10)
    key = dataset.cache_key(config, 0, None, ())
    data = prepare(config)
    assert len(data.train) == 108
    assert len(list((cache / "tokens").iterdir())) == 1


def test_a_failure_leaves_nothing_in_the_cache(tmp_path, cache):
    config = text_file(tmp_path, TOY * 10)
    tokenizer = train_tokenizer("char", ["abc"])
    with pytest.raises(TokenizerError, match="has no '写'"):
        prepare(config, tokenizer=tokenizer)
    assert list((cache / "tokens").iterdir()) == []


def test_the_fingerprint_does_not_depend_on_where_the_tokenizer_came_from(tmp_path):
    config = text_file(tmp_path, TOY * 10)
    first = prepare(config)
    first.tokenizer.save(tmp_path / "run")
    given = prepare(config, tokenizer=Tokenizer.load(tmp_path / "run"))
    named = prepare(dataclasses.replace(config, tokenizer=str(tmp_path / "run")))
    assert given.fingerprint == named.fingerprint == first.fingerprint


def test_a_given_cache_is_used(tmp_path, cache):
    prepare(text_file(tmp_path, TOY * 10), cache_dir=tmp_path / "other")
    assert not cache.exists()
    assert (tmp_path / "other" / "tokens").is_dir()


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (TOY, {"val_fraction": 0, "seq_len": 12}, r"12 token\(s\) to train on, .* takes 13; lower"),
        (TOY * 10, {"val_fraction": 0.01}, None),
        (
            TOY * 4,
            {"val_fraction": 0.01},
            r"1 token\(s\) to validate on, .* be 2; raise",
        ),
        ("a", {}, "too little text"),
    ],
)
def test_a_text_shorter_than_a_window_is_told(tmp_path, text, settings, message):
    config = dataclasses.replace(text_file(tmp_path, text), **settings)
    if message is None:
        assert len(prepare(config).val) == 2
        return
    for _ in range(2):
        with pytest.raises(DataError, match=message) as raised:
            prepare(config)
        assert "\n" not in str(raised.value)


def test_an_unknown_tokenizer_is_told(tmp_path):
    with pytest.raises(
        TokenizerError, match=r"'bep' is neither a kind nor a file; did you mean bpe\?"
    ):
        prepare(DataConfig(tokenizer="bep"))
    with pytest.raises(TokenizerError, match=r"no tokenizer at .*nowhere"):
        prepare(DataConfig(tokenizer=str(tmp_path / "nowhere")))


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="set JAXLM_CACHE to a folder that can be written"):
        prepare(text_file(tmp_path, TOY * 10), cache_dir=tmp_path / "file")


def test_rows_of_one_text_stand_on_one_side_of_the_split(tmp_path):
    lines = [json.dumps({"text": f"poem {i % 40}"}) for i in range(200)]
    config = text_file(tmp_path, "\n".join(lines), "rows.jsonl")

    def splits(duplicates):
        data = prepare(dataclasses.replace(config, duplicates=duplicates))
        parts = (decode(data, part) for part in (data.train, data.val))
        return data, [part.removesuffix(END_OF_TEXT).split(END_OF_TEXT) for part in parts]

    data, (train, val) = splits("group")
    assert not set(train) & set(val)
    assert len(train) + len(val) == 200
    (told,) = data.remarks
    assert told == "160 rows repeat the text of another and stay on its side of the split"
    assert splits("group")[0].remarks == (told,)  # from the cache, too
    data, (train, val) = splits("drop")
    assert sorted(train + val) == sorted({f"poem {i}" for i in range(40)})
    assert data.remarks[0].startswith("160 rows repeat the text of another, left out")
    data, (train, val) = splits("keep")
    assert set(train) & set(val)
    assert (len(train), len(val)) == (180, 20)


def test_the_split_of_rows_that_differ_is_that_of_their_order_alone():
    documents = [f"poem {i}" for i in range(50)]
    corpus = Corpus(documents, plain_text=False)
    order = np.random.default_rng(3).permutation(50)
    for group in (True, False):
        train, val = split_corpus(corpus, 0.1, 3, group)
        assert train + val == [documents[i] for i in order]
        assert len(train) == 45
