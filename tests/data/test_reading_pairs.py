"""Rows of pairs: two text files side by side, tables without a header, toys."""

import gzip

import pytest

from jaxlm.config import DataConfig
from jaxlm.data import DataError, read_corpus
from jaxlm.data.rows import read_rows
from jaxlm.data.sources import joined_texts
from jaxlm.data.toys import NUM_PAIRS, TOYS


def rows(source, **options):
    return [row for _, row in read_rows(str(source), None, **options)]


def two_files(folder, english="a b\nc\n", german="A B\nC", names=("a.en.gz", "a.de.gz")):
    paths = [folder / name for name in names]
    for path, text in zip(paths, (english, german), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return " + ".join(map(str, paths))


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("a.en.gz", "a.de.gz"), ["en", "de"]),
        (("corpus.de-en.de", "corpus.de-en.en"), ["de", "en"]),
        (("source.txt", "target.txt"), ["source", "target"]),
        (("en/train.txt", "de/train.txt"), ["en", "de"]),
    ],
)
def test_two_text_files_are_columns_by_what_their_names_differ_in(tmp_path, names, columns):
    found = rows(two_files(tmp_path, names=names))
    assert found == [dict(zip(columns, pair, strict=True)) for pair in [("a b", "A B"), ("c", "C")]]


def test_the_files_say_the_same_in_braces(tmp_path):
    joined = rows(two_files(tmp_path))
    assert rows(tmp_path / "a.{en,de}.gz") == joined


def test_files_of_unequal_length_are_refused_in_one_sentence(tmp_path):
    source = two_files(tmp_path, german="A B\n")
    with pytest.raises(DataError, match=r"a\.de\.gz has 1 lines, fewer than the files beside it"):
        rows(source)


def test_where_running_text_is_wanted_joined_files_are_read_one_after_the_other(tmp_path):
    source = two_files(tmp_path, names=("a.txt", "b.txt"))
    assert read_corpus(DataConfig(source=source)).documents == ["a b\nc\n", "A B\nC"]
    assert joined_texts(str(tmp_path / "a.txt")) is None


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_table_without_a_header_has_the_names_given(tmp_path, name, mark):
    file = tmp_path / name
    file.write_text(f"one{mark}uno\ntwo{mark}dos\n", encoding="utf-8")
    assert rows(file, header=("en", "es")) == [
        {"en": "one", "es": "uno"},
        {"en": "two", "es": "dos"},
    ]
    with pytest.raises(DataError, match=r"line 1 has 2 fields where data\.columns has 3"):
        rows(file, header=("a", "b", "c"))
    texts = read_corpus(DataConfig(source=str(file), text_column="es", columns=("en", "es")))
    assert texts.documents == ["uno", "dos"]


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_has_no_source_twice_and_is_the_same_each_time(name):
    first, again = rows(f"toy:{name}"), rows(f"toy:{name}")
    assert first == again
    assert len({row["source"] for row in first}) == NUM_PAIRS
    right = {
        "reverse": lambda text: text[::-1],
        "copy": lambda text: text,
        "addition": lambda text: str(sum(map(int, text.split("+")))),
    }
    assert all(row["target"] == right[name](row["source"]) for row in first)


def test_an_unknown_toy_is_told_with_those_there_are():
    with pytest.raises(DataError, match="'sorting': there are reverse, copy, addition"):
        rows("toy:sorting")
