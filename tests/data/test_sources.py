"""What a source names: files, folders, globs, samples and data sets of the hub."""

import gzip
import os

import pytest

from jaxlm.data import DataError
from jaxlm.data.rows import read_rows
from tests.data.poems import POEMS, read, write_rows


def test_text_files_are_documents_in_the_order_of_their_paths(tmp_path):
    names = ["b/2.txt", "a.txt", "b/1.TXT"]
    more = [f"c/{i}.txt" for i in range(9, 0, -1)]
    for name in (*names, *more, "b/.hidden.txt", ".git/c.txt", "notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert read(tmp_path).documents == sorted(names + more)
    assert read(tmp_path).plain_text
    assert read(tmp_path / "*" / "*.txt").documents == ["b/2.txt", *sorted(more)]
    assert read(tmp_path / "**" / "[a1].*").documents == ["a.txt", "b/1.TXT", "c/1.txt"]


def test_a_folder_of_several_kinds_gives_rows(tmp_path):
    write_rows(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").write_text("text", encoding="utf-8")
    corpus = read(tmp_path)
    assert corpus.documents == [*POEMS, "text"]
    assert not corpus.plain_text


def test_songci_is_bundled():
    corpus = read("sample:songci")
    assert len(corpus.documents) == 21_053
    assert corpus.documents[0].startswith("导引（和岘）\n气和玉烛，")
    assert not corpus.plain_text


def test_a_hub_data_set_is_read_row_by_row(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, config, split, streaming):
        asked.append((name, config, split, streaming))
        return [{"text": text} for text in POEMS]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("hf:poets/ci", hf_config="zh", hf_split="test").documents == POEMS
    assert read("hf:poets/ci", max_documents=1).documents == POEMS[:1]
    assert asked == [("poets/ci", "zh", "test", False), ("poets/ci", None, "train", True)]
    with pytest.raises(DataError, match="hf:poets/ci row 1 has no column 'body'"):
        read("hf:poets/ci", text_column="body")


def test_what_the_hub_refuses_is_told_in_one_sentence(monkeypatch):
    import datasets

    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach the Hub\n(offline)")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"hf:nobody/nothing cannot .* Hub \(offline\)$"):
        read("hf:nobody/nothing")


def test_a_source_that_is_not_there_is_told(tmp_path):
    for source in (tmp_path / "nowhere.txt", tmp_path / "*.txt", tmp_path):
        with pytest.raises(DataError, match="is no file, and no folder or glob"):
            read(source)
    with pytest.raises(DataError, match="did you mean tinyshakespeare"):
        read("sample:shakespeare")
    with pytest.raises(DataError, match=r"there are chat_en, .*songci"):
        read("sample:xyz")
    with pytest.raises(DataError, match="names a data set of the Hugging Face Hub"):
        read(f"hf:{tmp_path}")


def test_a_folder_is_read_whole_and_what_is_passed_over_is_told(tmp_path):
    (tmp_path / "a.md").write_text("# Moon", encoding="utf-8")
    page = "<html><head><title>x</title></head><body><p>Hello &amp; world</p></body></html>"
    (tmp_path / "b.html").write_text(page, encoding="utf-8")
    (tmp_path / "c.json").write_text('[{"text": "一"}, {"text": "二"}]', encoding="utf-8")
    (tmp_path / "d.txt").write_text("text", encoding="utf-8")
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}\n'))
    (tmp_path / "f.pdf").write_bytes(b"%PDF")
    corpus = read(tmp_path)
    assert corpus.documents == ["# Moon", "Hello & world", "一", "二", "text", "three"]
    (told,) = corpus.remarks
    assert told.startswith("read 1 .html, 1 .json, 1 .jsonl, 1 .md, 1 .txt files, skipped 1 .pd")


def test_a_file_that_cannot_be_read_is_passed_over_on_request(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_text("text", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8: .* data\.skip_unreadable"):
        read(tmp_path)
    corpus = read(tmp_path, skip_unreadable=True)
    assert corpus.documents == ["text"]
    assert "skipped a file" in corpus.remarks[0]
    assert "a.txt is not UTF-8" in corpus.remarks[0]


def test_settings_beside_rows_in_a_folder_are_passed_over_with_a_word(tmp_path):
    write_rows(tmp_path / "a.jsonl")
    (tmp_path / "infos.json").write_text('{"version": 1}', encoding="utf-8")
    corpus = read(tmp_path)
    assert corpus.documents == POEMS
    assert "infos.json row 1 has no column 'text'" in corpus.remarks[1]


def test_a_plus_in_a_path_is_part_of_it(tmp_path):
    folder = tmp_path / "a + b"
    folder.mkdir()
    for name in ("x + y.txt", "z.txt"):
        (folder / name).write_text(name, encoding="utf-8")
    (tmp_path / "c.txt").write_text("c", encoding="utf-8")
    assert read(folder / "x + y.txt").documents == ["x + y.txt"]
    assert read(f"{folder / 'x + y.txt'} + {tmp_path / 'c.txt'}").documents == ["x + y.txt", "c"]
    assert read(f"{tmp_path / 'c.txt'} + {folder / '*.txt'}").documents == [
        "c", "x + y.txt", "z.txt",
    ]  # fmt: skip


def test_texts_side_by_side_are_columns(tmp_path):
    (tmp_path / "t.en").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "t.zh").write_text("一\n二\n", encoding="utf-8")
    source = f"{tmp_path}/t.{{en,zh}}"
    assert [row for _, row in read_rows(source, None)] == [
        {"en": "one", "zh": "一"}, {"en": "two", "zh": "二"},
    ]  # fmt: skip
    assert read(source, text_column="zh").documents == ["一", "二"]
    (tmp_path / "t.zh").write_text("一\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.zh has 1 lines, fewer than the files beside it"):
        list(read_rows(source, None))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_told(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("text")
    file.chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read(file)
