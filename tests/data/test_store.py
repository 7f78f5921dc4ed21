import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from jaxlm.config import DataConfig
from jaxlm.data import read_corpus
from jaxlm.data.store import meta_hash, open_store, write_store
from jaxlm.files import file_hash
from jaxlm.tokenizer import END_OF_TEXT, train_tokenizer

POEMS = read_corpus(DataConfig(source="sample:songci", max_documents=200)).documents
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tokenizer():
    return train_tokenizer("char", POEMS, specials=[END_OF_TEXT])


def test_the_store_holds_each_document_and_its_end(tmp_path, tokenizer):
    write_store(tmp_path / "store", POEMS, tokenizer, tokenizer.eos_id)
    store = open_store(tmp_path / "store")
    expected = [[*tokenizer.encode(poem), tokenizer.eos_id] for poem in POEMS]
    assert store.tokens.tolist() == list(chain.from_iterable(expected))
    found = np.split(store.tokens, store.document_starts[1:])
    assert [part.tolist() for part in found] == expected
    assert store.num_bytes == sum(len(poem.encode()) for poem in POEMS)
    assert store.tokens.dtype == np.uint16
    assert not store.tokens.flags.writeable


ONE_LINE = """
import resource, sys
from pathlib import Path
from jaxlm.data.store import open_store, write_store
from jaxlm.tokenizer import train_tokenizer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

words, folder = "今天天气真好 the cat walks and talks, ", Path(sys.argv[1])
tokenizer = train_tokenizer("bpe", [words * 200], 400)
write_store(folder / "short", [words], tokenizer)
before, text = peak(), words * (5_000_000 // len(words.encode()))
write_store(folder / "long", [text], tokenizer)
print((peak() - before) * 1024 / len(text.encode()))
assert open_store(folder / "long").num_bytes == len(text.encode())
"""


def test_a_document_of_one_long_line_takes_a_small_multiple_of_its_size(tmp_path):
    command = [sys.executable, "-c", ONE_LINE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40  # encoded at once, it took more than 100


def test_a_long_document_has_the_tokens_of_its_encoding(tmp_path):
    text = read_corpus(DataConfig()).documents[0][:400_000]
    tokenizer = train_tokenizer("bpe", [text[:100_000]], 512, [END_OF_TEXT])
    write_store(tmp_path / "store", [text, text[:1000]], tokenizer, tokenizer.eos_id)
    store = open_store(tmp_path / "store")
    first, second = (tokenizer.encode(part + END_OF_TEXT) for part in (text, text[:1000]))
    assert store.tokens.tolist() == first + second
    assert store.document_starts.tolist() == [0, len(first)]


def test_a_large_vocabulary_is_stored_in_32_bits(tmp_path):
    characters = [chr(0x4E00 + i) for i in range(20_000)] + [
        chr(0x20000 + i) for i in range(46_000)
    ]
    tokenizer = train_tokenizer("char", ["".join(characters)])
    write_store(tmp_path / "store", ["".join(characters[-9:])], tokenizer)
    store = open_store(tmp_path / "store")
    assert store.tokens.tolist() == list(range(65_991, 66_000))
    assert store.tokens.dtype == np.uint32


def test_meta_tells_what_is_stored(tmp_path, tokenizer):
    write_store(tmp_path / "store", POEMS, tokenizer)
    meta = json.loads((tmp_path / "store" / "meta.json").read_text())
    store = open_store(tmp_path / "store")
    assert meta == {
        "store_format": 4,
        "vocab_size": tokenizer.vocab_size,
        "dtype": "uint16",
        "num_tokens": len(store),
        "num_bytes": store.num_bytes,
        "fingerprint": store.fingerprint,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "largest_id": int(store.tokens.max()),
        "hashes": {n: file_hash(tmp_path / "store" / n) for n in ("tokens.bin", "documents.npy")},
        "hash": meta_hash(meta),
    }


def cut(file):
    file.write_bytes(file.read_bytes()[:-2])


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


def flip(file):
    content = bytearray(file.read_bytes())
    place = content.find(b"num_bytes") + 12 if file.suffix == ".json" else len(content) // 2
    content[place] ^= 1  # in meta.json a digit becomes another
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["tokens.bin", "documents.npy", "meta.json"])
@pytest.mark.parametrize("damage", [cut, Path.unlink, zero, flip])
def test_a_damaged_store_does_not_open(tmp_path, tokenizer, name, damage):
    write_store(tmp_path / "store", POEMS, tokenizer)
    assert open_store(tmp_path / "store") is not None
    damage(tmp_path / "store" / name)
    assert open_store(tmp_path / "store") is None


def test_a_store_of_another_tokenizer_does_not_open(tmp_path, tokenizer):
    write_store(tmp_path / "store", POEMS, tokenizer)
    assert open_store(tmp_path / "store", tokenizer) is not None
    smaller = train_tokenizer("char", POEMS[:3], specials=[END_OF_TEXT])
    assert open_store(tmp_path / "store", smaller) is None
