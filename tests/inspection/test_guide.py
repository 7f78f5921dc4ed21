"""The examples of docs/inspection.md run as they stand, here on a tiny model."""

import dataclasses
from pathlib import Path

import pytest

from jaxlm.tokenizer import train_tokenizer
from tests.inspection.models import tiny_loaded
from tests.test_docs import ROOT, blocks

PAGES = [ROOT / "docs" / name for name in ("inspection.md", "inspection.zh.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_examples_run(page: Path, monkeypatch, capsys):
    letters = "".join(map(chr, range(32, 127)))
    loaded = tiny_loaded(vocab_size=len(letters), max_seq_len=16)
    loaded = dataclasses.replace(loaded, tokenizer=train_tokenizer("char", [letters]))
    monkeypatch.setattr("jaxlm.load", lambda *source, **options: loaded, raising=False)
    monkeypatch.setattr("jaxlm.inspection.changes.saved_steps", lambda folder: [100, 200])
    exec("\n".join(blocks(page, "python")), {})
    assert "layers_1/attention/weights" in capsys.readouterr().out
