"""Runs of tokens taken out of a text, for a model to write back (Raffel et al. 2020)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

Tokens = Int[np.ndarray, " _"]


class GapSizes(NamedTuple):
    """How many tokens of a window are taken out, and in how many gaps."""

    hidden: int
    gaps: int

    @classmethod
    def of(cls, length: int, fraction: float, mean_gap: float) -> "GapSizes":
        """Those of a window of `length` tokens, 2 at least, of which something stays."""
        hidden = min(max(round(length * fraction), 1), length - 1)
        most = min(hidden, length - hidden)
        return cls(hidden, min(max(round(hidden / mean_gap), 1), most))


def window_for(limit: int, fraction: float, mean_gap: float) -> int:
    """The most tokens of which source and target have at most `limit`, each with an end; 0: none.

    The source has a mark in place of each gap, and the target each gap behind its mark.
    """

    def fits(length: int) -> bool:
        hidden, gaps = GapSizes.of(length, fraction, mean_gap)
        return max(length - hidden, hidden) + gaps + 1 <= limit

    return max(filter(fits, range(2, 20 * limit)), default=0)


def with_gaps(
    tokens: Tokens,
    fraction: float,
    mean_gap: float,
    marks: Tokens,
    end: int,
    random: np.random.Generator,
) -> tuple[Tokens, Tokens]:
    """A window with gaps as the source, and what stood there as the target.

    Both are cut at random into as many parts as there are gaps: kept and hidden ones take turns, a
    kept one first.
    """
    hidden, gaps = GapSizes.of(len(tokens), fraction, mean_gap)
    sizes = np.stack(
        [random_parts(len(tokens) - hidden, gaps, random), random_parts(hidden, gaps, random)]
    )
    parts = np.split(tokens, np.cumsum(sizes.T.reshape(-1))[:-1])
    source, target = [], []
    for i, mark in enumerate(marks[:gaps, None]):
        source += [parts[2 * i], mark]
        target += [mark, parts[2 * i + 1]]
    return np.concatenate([*source, [end]]), np.concatenate([*target, [end]])


def random_parts(total: int, parts: int, random: np.random.Generator) -> Tokens:
    """Sizes of parts, 1 at least, that sum to `total`; every such choice is as likely."""
    cuts = np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
