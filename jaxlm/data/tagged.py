"""Sentences of files with a word a line: CoNLL, with its tag, and CoNLL-U, with ten columns."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.data.sources import DataError
from jaxlm.data.text_files import read_lines

if TYPE_CHECKING:
    from jaxlm.data.rows import Record

ENTITY_TAG = re.compile(r"O|[BIESLU]-.+")
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


def is_tagged(file: Path) -> bool:
    """Whether a file begins with words and their tags (B-PER, I-PER, O), a pair a line."""
    head = [line.split() for line in itertools.islice(read_lines(file), 200)]
    pairs = [fields for fields in head if fields]
    return bool(pairs) and all(len(f) > 1 and ENTITY_TAG.fullmatch(f[-1]) for f in pairs)


def read_tagged(file: Path) -> "Iterator[Record]":
    """Sentences of the CoNLL format, a word and its tag a line: their `tokens` and `tags`.

    The word is the first field, the tag the last (Tjong Kim Sang and De Meulder 2003). Blank lines
    stand between sentences; comments and -DOCSTART- are left out.
    """
    start, words, tags = 1, [], []
    for number, line in enumerate(itertools.chain(read_lines(file), [""]), 1):
        fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        if fields and any(field.strip() for field in fields):
            if len(fields) > 1 and not (line.startswith("# ") and "=" in line):
                start = start if words else number
                words.append(fields[0].strip())
                tags.append(fields[-1].strip())
            elif not line.startswith("#"):
                raise DataError(f"{file} line {number} holds {line.strip()[:60]!r} without a tag")
        elif words:
            if words != ["-DOCSTART-"]:
                yield f"{file} line {start}", {"tokens": words, "tags": tags}
            words, tags = [], []


def read_treebank(file: Path) -> "Iterator[Record]":
    """Sentences of a CoNLL-U file: every column as a list by its name (Nivre et al. 2020).

    `form` and `upos` are `tokens` and `tags`, too. Comments, ranges such as 1-2, which stand for
    the words behind them, and empty nodes such as 1.1 are left out.
    """
    start, words = 1, []
    for number, line in enumerate(itertools.chain(read_lines(file), [""]), 1):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            if words:
                row = {name: [word[i] for word in words] for i, name in enumerate(CONLLU)}
                usual = {"tokens": row["form"], "tags": row["upos"]}
                yield f"{file} line {start}", {**usual, **row}
            start, words = number + 1, []
        elif not line.startswith("#"):
            if len(fields) != len(CONLLU):
                raise DataError(
                    f"{file} line {number} has {len(fields)} fields between tabs where CoNLL-U has "
                    f"{len(CONLLU)}"
                )
            if fields[0].isdecimal():
                words.append(fields)
