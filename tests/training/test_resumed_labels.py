"""The numbers of labels are those that a run began with, however often it is resumed."""

import pytest

import jaxlm
from jaxlm.checkpoint import saved_steps
from jaxlm.config import JaxlmError
from jaxlm.tasks import labelled_rows
from jaxlm.training import fit
from tests.training.runs import assert_same_run, contents, fit_until, tiny

REFUSED = r"the data or tokenizer of .* has changed since step 4"
NAMES = ("001", "01", "1")  # one number three times, and three labels


def config(folder, name="run", names=NAMES):
    rows = [
        f"{label}\t{word} fox {i}"
        for i in range(8)
        for label, word in zip(names, "abc", strict=True)
    ]
    (folder / "rows.tsv").write_text("\n".join(["label\ttext", *rows]) + "\n", encoding="utf-8")
    return tiny(
        folder,
        run={"dir": str(folder / name)},
        model={"architecture": "encoder"},
        data={"source": str(folder / "rows.tsv"), "tokenizer": "wordpiece", "val_fraction": 0.25},
        task={"name": "sequence_classification"},
        train={"steps": 8, "eval_every": 4, "checkpoint_every": 4, "log_every": 1},
        sample={"every": 0},
    )


@pytest.fixture
def cut(tmp_path):
    """A run on these labels that ended in the middle, with a checkpoint of step 4."""
    fit_until(config(tmp_path), 6)
    assert saved_steps(tmp_path / "run" / "checkpoints")[-1] == 4
    return tmp_path / "run"


def test_labels_of_one_number_keep_their_places_when_a_run_is_resumed(cut):
    resumed = fit(config(cut.parent))
    assert resumed.config.labels == NAMES
    assert jaxlm.load(cut).config.labels == NAMES
    fit(config(cut.parent, "whole"))
    assert_same_run(cut, cut.parent / "whole")


def test_a_run_whose_labels_would_be_numbered_anew_is_refused(cut, monkeypatch):
    before = contents(cut)
    turned = lambda names: tuple(sorted(names, reverse=True))  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(labelled_rows, "sorted_labels", turned)
        with pytest.raises(JaxlmError, match=REFUSED):
            fit(config(cut.parent))
    with pytest.raises(JaxlmError, match=REFUSED):
        fit(config(cut.parent, names=("0001", "01", "1")))
    assert contents(cut) == before
    assert jaxlm.load(cut).config.labels == NAMES
