"""The examples of docs/inspection.md run as they stand, here on a tiny model."""

import dataclasses
from pathlib import Path

import pytest

from jaxlm.tokenizer import train_tokenizer
from tests.inspection.models import tiny_loaded
from tests.test_docs import ROOT, blocks

PAGES = [ROOT / "docs" / name for name in ("inspection.md", "inspection.zh.md")]


LETTERS = "".join(map(chr, range(32, 127)))


def model_of_letters():
    loaded = tiny_loaded(vocab_size=len(LETTERS), max_seq_len=16)
    return dataclasses.replace(loaded, tokenizer=train_tokenizer("char", [LETTERS]))


def model_of_both_sides():
    tokenizer = train_tokenizer("char", [LETTERS], specials=["<pad>", "</s>", "<s>"])
    sizes = {"vocab_size": tokenizer.vocab_size, "max_seq_len": 16}
    loaded = tiny_loaded("rotary", architecture="encoder_decoder", **sizes)
    return dataclasses.replace(loaded, tokenizer=tokenizer)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_examples_run(page: Path, monkeypatch, capsys):
    models = {"gpt_tiny": model_of_letters(), "seq2seq_reverse": model_of_both_sides()}
    load = lambda source, **options: models[Path(source).name]  # noqa: E731
    monkeypatch.setattr("jaxlm.load", load, raising=False)
    monkeypatch.setattr("jaxlm.inspection.changes.saved_steps", lambda folder: [100, 200])
    exec("\n".join(blocks(page, "python")), {})
    assert "layers_1/attention/weights" in capsys.readouterr().out
