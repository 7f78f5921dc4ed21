"""Runs for verbs to judge and ask, trained once."""

import pytest

from tests.cli.verbs import ROWS, train


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A classifier, an encoder and a decoder, hardly trained, and rows to judge."""
    folder = tmp_path_factory.mktemp("judging")
    lines = ["label\ttext", *("\t".join(row) for row in ROWS)]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    encoder = {"architecture": "encoder"}
    bert = {"tokenizer": "wordpiece", "vocab_size": 150}
    own = {
        "classifier": {
            "model": encoder,
            "data": bert | {"source": str(folder / "rows.tsv")},
            "task": {"name": "sequence_classification"},
        },
        "encoder": {"model": encoder, "data": bert, "task": {"name": "masked_lm"}},
        "decoder": {},
    }
    for name, sections in own.items():
        train(folder, name, sections)
    return folder
