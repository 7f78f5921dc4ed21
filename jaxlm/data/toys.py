"""Pairs that are made, not read: small lessons for a model that writes one text for another."""

import string
from collections.abc import Callable, Iterator

import numpy as np

from jaxlm.data.sources import DataError

NUM_PAIRS = 30_000
LONGEST = 30  # letters of a word

Pair = tuple[str, str]


def reverse(random: np.random.Generator) -> Pair:
    """A word of random letters, and the same from its end."""
    word = letters(random)
    return word, word[::-1]


def copy(random: np.random.Generator) -> Pair:
    """A word of random letters, twice."""
    word = letters(random)
    return word, word


def addition(random: np.random.Generator) -> Pair:
    """Two numbers of three digits, and their sum."""
    a, b = random.integers(100, 1000, size=2).tolist()
    return f"{a}+{b}", str(a + b)


def letters(random: np.random.Generator) -> str:
    length = int(random.integers(1, LONGEST + 1))
    return "".join(random.choice(list(string.ascii_lowercase), length))


TOYS: dict[str, Callable[[np.random.Generator], Pair]] = {
    "reverse": reverse,
    "copy": copy,
    "addition": addition,
}


def read_toy(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of `toy:NAME`, no source twice, the same each time; DataError for another name."""
    name = source.removeprefix("toy:")
    if name not in TOYS:
        raise DataError(f"no toy is called {name!r}: there are {', '.join(TOYS)}")
    random, seen = np.random.default_rng(0), set[str]()
    while len(seen) < NUM_PAIRS:
        asked, answer = TOYS[name](random)
        if asked not in seen:
            seen.add(asked)
            yield f"{source} row {len(seen)}", {"source": asked, "target": answer}
