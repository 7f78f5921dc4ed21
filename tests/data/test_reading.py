import csv
import gzip
import json
import os
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import DataConfig
from jaxlm.data import DataError, read_corpus
from jaxlm.data.rows import read_rows

POEMS = ["明月几时有？\n把酒问青天。", 'He said "no",\tand left.', "大江东去，浪淘尽。"]


def read(source, **settings):
    return read_corpus(DataConfig(source=str(source), **settings))


def write_rows(file, texts=POEMS, column="text"):
    rows = [{"id": i, column: text} for i, text in enumerate(texts)]
    match "".join(file.suffixes):
        case ".jsonl":
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            file.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
        case ".jsonl.gz":
            file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
        case ".csv":
            with file.open("w", encoding="utf-8", newline="") as out:
                writer = csv.DictWriter(out, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        case ".tsv":
            lines = ["\t".join(rows[0]), *(f"{row['id']}\t{row[column]}" for row in rows)]
            file.write_text("\n".join(lines), encoding="utf-8")
        case ".parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_rows_come_back_as_they_were_written(tmp_path, kind):
    write_rows(tmp_path / f"poems{kind}")
    corpus = read(tmp_path / f"poems{kind}")
    assert corpus.documents == POEMS
    assert not corpus.plain_text


def test_a_quotation_mark_in_tsv_is_text(tmp_path):
    # Read as CSV, an opening mark would swallow every row up to the next one.
    texts = ["\" In fact, it's hard", "此期间预订", 'he said "no"']
    write_rows(tmp_path / "reviews.tsv", texts, column="review")
    assert read(tmp_path / "reviews.tsv", text_column="review").documents == texts


def test_a_long_field_of_csv_is_read(tmp_path):
    write_rows(tmp_path / "long.csv", ["字" * 200_000])
    assert len(read(tmp_path / "long.csv").documents[0]) == 200_000


def test_a_byte_order_mark_is_not_part_of_a_column_name(tmp_path):
    (tmp_path / "a.csv").write_text("\ufefftext\n字\n", encoding="utf-8")
    assert read(tmp_path / "a.csv").documents == ["字"]


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


def test_no_more_rows_are_read_than_asked_for(tmp_path):
    write_rows(tmp_path / "a.jsonl")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("this line is never reached")
    assert read(tmp_path / "a.jsonl", max_documents=2).documents == POEMS[:2]


def test_rows_without_text_are_left_out(tmp_path):
    write_rows(tmp_path / "a.jsonl", ["", "字", None, " \n"])
    assert read(tmp_path / "a.jsonl").documents == ["字"]


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


MISTAKES = {
    "bad.txt": (b"caf\xc3\xa9 \xff", r"bad\.txt is not UTF-8: byte 6 is 0xff"),
    "bad.jsonl": (b'{"text": "a"}\n{"text": "\xe5\xad"}', r"bad\.jsonl is not UTF-8: byte 24"),
    "empty.txt": (b"", r"empty\.txt is empty"),
    "blank.txt": (b"\n \n", r"blank\.txt is empty"),
    "none.jsonl": (b"", r"none\.jsonl is empty"),
    "json.jsonl": (b'{"text": "a"}\n{"text": "b"', r"json\.jsonl line 2 is not JSON: Expect"),
    "list.jsonl": (b"[1]", r"line 1 is not a JSON object"),
    "column.jsonl": (b'{"title": 1, "body": 2}', r"no column 'text': .*'title', 'body'"),
    "number.jsonl": (b'{"text": 7}', r"line 1 holds 7 in column 'text'"),
    "column.csv": (b"id,body\n1,a\n", r"line 2 has no column 'text': .*'id', 'body'"),
    "twice.csv": (b"text,label,text\na,b,c\n", r"twice\.csv has two columns with the name 'text'"),
    "twice.tsv": (b"text\ttext\na\tb\n", r"twice\.tsv has two columns with the name 'text'"),
    "twice.jsonl": (b'{"text": "a", "text": "b"}', r"line 1 has the field 'text' twice"),
    "deep.jsonl": (b"[" * 100_000, r"line 1 cannot be read as JSON: it is nested too deeply"),
    "digits.jsonl": (b'{"text": ' + b"9" * 5000 + b"}", r"line 1 cannot be read as JSON"),
    "semicolons.csv": (b"text;label\na;b\n", r"has ';' between its columns where .* has commas"),
    "commas.tsv": (b"text,label\na,b\n", r"has a comma between its columns where .* has tabs"),
    "value.json": (b"[1, 2]", r"value\.json is not a list of JSON objects"),
    "cut.json": (b'[{"text": "a"}', r"cut\.json is not JSON"),
    "tags.conll": (b"Ann B-PER\nsaw\n", r"line 2 holds 'saw' without a tag"),
    "bomb.txt.gz": (gzip.compress(bytes(1 << 20) * 300), r"unpacks to over 200 times its size"),
    "fields.tsv": (b"id\ttext\n1\ta\tb\n", r"line 2 has 3 fields where the header has 2"),
    "quote.csv": (b'text\n"a\nb\n', r"quote\.csv line 3 is not CSV"),
    "broken.parquet": (b"PAR1", r"not a Parquet file"),
    "broken.txt.gz": (b"text", r"broken\.txt\.gz cannot be read: Not a gzipped file"),
    "cut.jsonl.gz": (
        gzip.compress(b'{"text": "a"}\n' * 999)[:40],
        r"cut\.jsonl\.gz cannot be read",
    ),
    "page.pdf": (b"%PDF", r"page\.pdf is none of the kinds"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_faulty_file_is_told_in_one_sentence(tmp_path, name):
    content, message = MISTAKES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_an_unknown_column_of_parquet_is_told_with_those_there_are(tmp_path):
    write_rows(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column 'body': .* to 'id', 'text'"):
        read(tmp_path / "a.parquet", text_column="body")


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


@pytest.mark.parametrize(
    "content",
    ['[{"text": "a"}, {"text": "b"}]', '{"data": [{"text": "a"}, {"text": "b"}], "version": 1}',
     '{"text": "a"}\n{"text": "b"}\n'],
)  # fmt: skip
def test_json_is_a_list_of_rows_however_it_is_wrapped(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert read(tmp_path / "a.json").documents == ["a", "b"]


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


CONLL = "-DOCSTART- -X- O O\n\nAnn NNP B-NP B-PER\nsaw VBD B-VP O\n\n\nRome NNP B-NP B-LOC\n"


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.tsv"])
def test_words_with_their_tags_are_sentences(tmp_path, name):
    text = CONLL.replace(" ", "\t") if name == "a.tsv" else CONLL
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [row for _, row in read_rows(str(tmp_path / name), ["tokens", "tags"])] == [
        {"tokens": ["Ann", "saw"], "tags": ["B-PER", "O"]},
        {"tokens": ["Rome"], "tags": ["B-LOC"]},
    ]


WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1).filter(
    lambda word: not word.startswith("#") and word != "-DOCSTART-" and "\ufeff" not in word
)
TAGGED_WORDS = st.lists(
    st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-X", "I-X"])), min_size=1), min_size=1
)


@given(sentences=TAGGED_WORDS)
@settings(max_examples=60, deadline=None)
def test_any_words_with_tags_come_back(tmp_path_factory, sentences):
    file = tmp_path_factory.mktemp("tagged") / "a.conll"
    blocks = ["".join(f"{word}\t{tag}\n" for word, tag in pairs) for pairs in sentences]
    file.write_text("\n".join(blocks), encoding="utf-8")
    found = [row for _, row in read_rows(str(file), None)]
    assert [list(zip(row["tokens"], row["tags"], strict=True)) for row in found] == sentences


@given(content=st.binary(max_size=60) | st.text('[]{}":,;\t\n a1', max_size=60).map(str.encode))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".tsv", ".conll", ".txt", ".jsonl.gz"])
def test_any_content_is_read_or_told(tmp_path_factory, kind, content):
    file = tmp_path_factory.mktemp("any") / f"a{kind}"
    file.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    with suppress(DataError):
        for _, row in read_rows(str(file), None):
            assert isinstance(row, dict)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_told(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("text")
    file.chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read(file)
