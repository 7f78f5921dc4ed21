"""Wrong settings of a run, each told in one sentence before anything is trained."""

import gzip
import json
import re
import resource
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jaxlm.config import JaxlmError, load_config
from jaxlm.training import fit
from tests.training.runs import sections_of

TABLE = Path(__file__).with_name("wrong_settings.txt").read_text(encoding="utf-8")
CASES = [
    (recipe, *line.split(" -> "))
    for recipe, part in zip(("text", "rows"), re.split(r"(?m)^=\n", TABLE), strict=True)
    for line in part.splitlines()
    if not line.startswith("#")
]
LABELLED = "".join(f"good day {i}\tpos\nbad day {i}\tneg\n" for i in range(20))
FILES = {
    "rows.tsv": "text\tlabel\n" + LABELLED,
    "one.tsv": "text\tlabel\n" + "a b\tpos\n" * 20,
    "nolabel.tsv": "text\tlabel\n" + "a b\t\n" * 20,
    "header.csv": "text,label\n",
    "semi.csv": "text;label\na;pos\nb;neg\n",
    "ragged.csv": "text,label\na,pos,more\nb,neg\n",
    "bad.jsonl": '{"text": "a", "label": "x"}\n{"text": \n',
    "list.jsonl": "[1, 2]\n",
    "numbers.jsonl": '{"text": 5, "label": "x"}\n',
    "chat.jsonl": json.dumps({"turns": ["hi", "hello"]}),
    "empty.txt": "",
    "short.txt": "abc",
    "text.en": "a\nb\n",
    "text.zh": "a\n",
    "tok.json": "{}",
    "tok2.json": "not json",
    "latin.txt": "café ".encode("latin-1"),
    "picture.png": b"\x89PNG\r\n\x1a\n",
    "text.gz": b"not gzip",
    "cut.txt.gz": gzip.compress(b"abc " * 9000)[:50],
    "fake.parquet": b"PAR1 nothing",
}


@pytest.fixture(autouse=True, scope="module")
def bounded() -> Iterator[None]:
    """All cases together take less than 2 GB more than what ran before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2e6  # kB


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Recipes and data of many kinds, most of them broken."""
    folder = tmp_path_factory.mktemp("settings")
    sections = sections_of(folder)
    sections["train"] |= {"steps": 1, "eval_every": 1}
    sections["optim"]["warmup_steps"], sections["sample"] = 0, {"every": 0}
    (folder / "text.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    sections["data"] = {"source": "rows.tsv", "seq_len": 16}
    sections["task"] = {"name": "sequence_classification"}
    sections["model"]["architecture"] = "encoder"
    (folder / "rows.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    for name, content in FILES.items():
        content = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(content)
    (folder / "dir.txt").mkdir()
    return folder


@pytest.mark.parametrize(("recipe", "words", "sentence"), CASES)
def test_a_wrong_setting_is_told_in_one_sentence(folder, monkeypatch, recipe, words, sentence):
    monkeypatch.chdir(folder)
    with pytest.raises(JaxlmError) as error:
        fit(load_config(f"{recipe}.yaml", shlex.split(words)))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert not any(Path("run").glob("*/*"))  # no checkpoint, half-written or whole


def test_there_are_a_hundred_of_them():
    assert len({words for _, words, _ in CASES}) >= 100
