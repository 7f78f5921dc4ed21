"""One text or two, between the special tokens that the model's tokenizer puts around them."""

from dataclasses import dataclass
from functools import cached_property

from jaxlm.tokenizer import Tokenizer, TokenizerError


@dataclass(frozen=True)
class Joined:
    """The ids of one or two texts with their special tokens; `types` (0 or 1) tell them apart.

    `second` is where the second text starts, and `cut` whether a text did not fit.
    """

    ids: list[int]
    types: list[int]
    second: int
    cut: bool


class Joiner:
    """Puts texts together as the tokenizer's template does; without one, a newline between two."""

    def __init__(self, tokenizer: Tokenizer, limit: int):
        self.tokenizer, self.limit = tokenizer, limit

    @cached_property
    def _single(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        backend = self.tokenizer.backend
        if backend.post_processor is None:
            return [], []
        encoding = backend.encode("a")
        own = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == 0]
        return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]

    @cached_property
    def _pair(self) -> tuple[list[int], list[int], list[int], int]:
        """The special tokens before, between and after two texts, and the second one's type."""
        backend = self.tokenizer.backend
        if backend.post_processor is None:
            try:
                return [], self.tokenizer.encode("\n"), [], 1
            except TokenizerError:
                return [], [], [], 1
        encoding = backend.encode("a", "a")
        first = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == 0]
        second = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
        ids = encoding.ids
        between = ids[first[-1] + 1 : second[0]]
        kind = encoding.type_ids[second[0]]
        return ids[: first[0]], between, ids[second[-1] + 1 :], kind

    @property
    def before(self) -> int:
        """Special tokens before a text."""
        return len(self._single[0])

    def room(self, first: list[int] | None = None) -> int:
        """Tokens that one text may have, or a second one after the first."""
        if first is None:
            return self.limit - sum(map(len, self._single))
        before, between, after, _ = self._pair
        return self.limit - len(before) - len(first) - len(between) - len(after)

    def one(self, ids: list[int]) -> Joined:
        """A text alone, cut at its end if it is too long."""
        before, after = self._single
        room = self.room()
        joined = [*before, *ids[:room], *after]
        return Joined(joined, [0] * len(joined), len(joined), len(ids) > room)

    def two(self, first: list[int], second: list[int]) -> Joined:
        """Two texts, of which the longer one is cut, token by token, until both fit."""
        before, between, after, kind = self._pair
        room = self.room([])
        keep = min(len(first), max(room - len(second), room - room // 2))
        cut = len(first) + len(second) > room
        if cut:
            first, second = first[:keep], second[: room - keep]
        left = [*before, *first, *between]
        right = [*second, *after]
        return Joined(left + right, [0] * len(left) + [kind] * len(right), len(left), cut)
