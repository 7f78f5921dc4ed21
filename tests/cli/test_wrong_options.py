"""Wrong command lines, each told in one sentence with the exit status 2."""

import shlex
from pathlib import Path

import pytest

from jaxlm.cli import main
from jaxlm.config import build_config
from jaxlm.training import fit
from tests.training.runs import sections_of

TABLE = Path(__file__).with_name("wrong_options.txt").read_text(encoding="utf-8")
CASES = [line.split(" -> ") for line in TABLE.splitlines()[1:]]
LABELLED = "".join(f"good day {i}\tpos\nbad day {i}\tneg\n" for i in range(20))
FILES = {
    "rows.tsv": "text\tlabel\n" + LABELLED,
    "nolabel.tsv": "text\nfox\n",
    "other.tsv": "text\tlabel\nfox\tblue\n",
    "mine.csv": "a\n",
    "p.jsonl": '{"text": 5}\n',
    "empty.txt": "",
    "empty.tsv": "",
    "latin.txt": b"caf\xe9",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`run`, a language model, and `clf`, a classifier, hardly trained, beside bad files."""
    folder = tmp_path_factory.mktemp("options")
    for name, content in FILES.items():
        content = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(content)
    (folder / "dir").mkdir()
    sections = sections_of(folder)
    sections["train"] |= {"steps": 1, "eval_every": 1}
    sections["optim"]["warmup_steps"], sections["sample"] = 0, {"every": 0}
    fit(build_config(sections))
    sections["run"]["dir"] = str(folder / "clf")
    sections["data"] = {"source": str(folder / "rows.tsv"), "seq_len": 16}
    sections["task"] = {"name": "sequence_classification"}
    sections["model"]["architecture"] = "encoder"
    fit(build_config(sections))
    return folder


@pytest.mark.parametrize(("words", "sentence"), CASES)
def test_a_wrong_command_line_is_told_in_one_sentence(folder, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert main(shlex.split(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert sorted(folder.rglob("*")) == before  # nothing is written, whole or in part


def test_there_are_sixty_of_them():
    assert len(CASES) >= 60


@pytest.mark.parametrize(
    "words", ["evaluate run --data many", "evaluate clf --data tables", "predict clf --input many"]
)
def test_files_that_cannot_be_read_are_passed_over_when_asked(folder, monkeypatch, capsys, words):
    monkeypatch.chdir(folder)
    for name, suffix, content in [("many", "txt", "fox fox\n"), ("tables", "tsv", LABELLED)]:
        (folder / name).mkdir(exist_ok=True)
        header = "text\tlabel\n" if suffix == "tsv" else ""
        (folder / name / f"good.{suffix}").write_text(header + content, encoding="utf-8")
        (folder / name / f"bad.{suffix}").write_bytes(b"\xff\xfe")
    assert main(words.split()) == 2
    capsys.readouterr()
    assert main([*words.split(), "--skip-unreadable"]) == 0
    assert "passed over a file: " in capsys.readouterr().err
