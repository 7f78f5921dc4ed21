"""What verbs write, and what they never write over."""

import pytest

from jaxlm.cli.output import check_output, write_table
from jaxlm.files import WriteError

ROWS = [{"text": "好", "label": "1"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(tmp_path):
    """A folder as a run leaves it, as far as its names go."""
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("run_format: 2\n")
    return tmp_path / "run"


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path):
    file = tmp_path / "gold.csv"
    check_output(file, False)
    file.write_text("text,label\n")
    with pytest.raises(WriteError, match="is there already; --overwrite replaces it"):
        check_output(file, False)
    check_output(file, True)


def test_a_table_that_a_verb_wrote_is_replaced_until_it_is_edited(tmp_path):
    file = tmp_path / "answers.csv"
    write_table(str(file), ".csv", ROWS)
    check_output(file, False)
    with file.open("a") as opened:
        opened.write("by hand,2\n")
    with pytest.raises(WriteError, match="is there already"):
        check_output(file, False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_read_from_is_never_written_over(tmp_path, overwrite):
    file, link = tmp_path / "rows.csv", tmp_path / "link.csv"
    file.write_text("text\n")
    link.symlink_to(file)
    for path in (file, link):
        with pytest.raises(WriteError, match="is also the input"):
            check_output(path, overwrite, [file])


@pytest.mark.parametrize("name", ["loss.png", "metrics.jsonl", "checkpoints/5/answers.jsonl"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_files_of_a_run_are_never_written_over(run, name, overwrite):
    with pytest.raises(WriteError, match="is a file of a run"):
        check_output(run / name, overwrite)
    check_output(run / "confusion.png", overwrite)
