"""Pieces of long texts, cut where no token is parted."""

import re
from collections.abc import Iterator

# Ends after a single newline, where the next line starts with a word.
CUT = re.compile(r"\S\n(?=\w)")
# Longer texts without a CUT are cut where no token is parted, else, as a genome has no such
# place, after LONGEST characters: encoding takes hundreds of bytes a character.
LONG, LONGEST, NEAR = 1 << 18, 1 << 22, 128
# Before a space or behind a mark that stands between words.
RUN = re.compile(r"\w{4096}")  # no word of a language; learning one takes the square of its length
NEW_WORD = re.compile(r"\w(?= \w)|\w[。！？，、；：,.!?;:](?=[^\W\d_])")


def cut_at_newlines(text: str, size: int = 1 << 15) -> Iterator[str]:
    """Pieces of about `size` characters, or longer where there is no CUT."""
    start = 0
    while place := CUT.search(text, start + size):
        yield text[start : place.end()]
        start = place.end()
    yield text[start:]


def cut_at_words(text: str) -> Iterator[str]:
    """Pieces of a text without newlines, cut where every kind of vocabulary has a new word.

    Of a text without words, such as a genome, the first LONG characters, cut after each RUN.
    """
    for part in cut_long(text):
        start = 0
        for run in RUN.finditer(part):
            yield part[start : run.end()]
            start = run.end()
        if part[start:]:
            yield part[start:]


def cut_long(text: str) -> Iterator[str]:
    """Pieces of about LONG characters, or the first LONG where there is no word."""
    start = 0
    while len(text) - start > LONG:
        place = NEW_WORD.search(text, start + LONG, start + LONGEST)
        if place is None and len(text) - start > LONGEST:
            yield text[start : start + LONG]
            return
        end = len(text) if place is None else place.end()
        yield text[start:end]
        start = end
    if text[start:]:
        yield text[start:]
