"""Rows of each kind of file come back as written, and a faulty file is told."""

import gzip
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data import DataError
from jaxlm.data.rows import read_rows
from tests.data.poems import POEMS, read, write_rows


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


def test_no_more_rows_are_read_than_asked_for(tmp_path):
    write_rows(tmp_path / "a.jsonl")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("this line is never reached")
    assert read(tmp_path / "a.jsonl", max_documents=2).documents == POEMS[:2]


def test_rows_without_text_are_left_out(tmp_path):
    write_rows(tmp_path / "a.jsonl", ["", "字", None, " \n"])
    assert read(tmp_path / "a.jsonl").documents == ["字"]


BOMB = gzip.compress(bytes(1 << 20) * 300)
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
    "bomb.txt.gz": (BOMB, r"unpacks to over 200 times its size"),
    "bomb.jsonl.gz": (BOMB, r"unpacks to over 200 times its size"),
    "bomb.csv.gz": (BOMB, r"unpacks to over 200 times its size"),
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


@pytest.mark.parametrize(
    "content",
    ['[{"text": "a"}, {"text": "b"}]', '{"data": [{"text": "a"}, {"text": "b"}], "version": 1}',
     '{"text": "a"}\n{"text": "b"}\n'],
)  # fmt: skip
def test_json_is_a_list_of_rows_however_it_is_wrapped(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert read(tmp_path / "a.json").documents == ["a", "b"]


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
