"""Pieces of long texts, cut where no token is parted."""

import re
from collections.abc import Iterator

# Ends after a single newline, where the next line starts with a word.
CUT = re.compile(r"\S\n(?=\w)")
# Longer texts without a CUT are cut where no token is parted, else, as a genome has no such
# place, after LONGEST characters: encoding takes hundreds of bytes a character.
LONG, LONGEST, NEAR = 1 << 18, 1 << 22, 128
# Letters, marks or blanks that go on for longer than any word; a vocabulary takes the square of the
# length of a word to learn from it, so such runs are cut after every WORD characters.
WORD = 1 << 12
MARK = r"(?:[^\w\s]|_)"
RUN = re.compile(rf"(?<!\w)\w{{{WORD},}}|(?<!{MARK}){MARK}{{{WORD},}}|(?<!\s)\s{{{WORD},}}")
HALF_RUN = re.compile(rf"\w{{{WORD // 2}}}|{MARK}{{{WORD // 2}}}|\s{{{WORD // 2}}}")
# Before a space or behind a mark that stands between words.
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

    Of a text without words, such as a genome, the first LONG characters, every RUN in parts.
    """
    for part in cut_long(text):
        start = 0
        for run in RUN.finditer(part) if may_have_runs(part) else ():
            for end in range(run.start() + WORD, run.end() + 1, WORD):
                yield part[start:end]
                start = end
        if part[start:]:
            yield part[start:]


def may_have_runs(text: str) -> bool:
    """False where no RUN is: each holds a whole half of WORD at a multiple of it. A quick look."""
    return any(HALF_RUN.match(text, start) for start in range(0, len(text), WORD // 2))


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
