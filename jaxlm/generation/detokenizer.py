"""New tokens into text as they come: whole characters, natural spacing, nothing past a stop."""

import re
from collections.abc import Iterable, Sequence

from tokenizers import decoders

from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.characters import WIDE

BROKEN = "\ufffd"  # what a part of a UTF-8 character decodes to
BESIDE_WIDE = re.compile(f"(?<=[{WIDE}]) | (?=[{WIDE}])")
WINDOW = 32  # tokens before the new ones that are decoded with them, or some more
# A special token among text, between two characters of Unicode's private use.
MARK, MARKED = "\ue000{}\ue001", re.compile("\ue000[^\ue001]*\ue001")
MOST_PARTS = 4  # tokens that one character may take


def readable_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids; no spaces beside Chinese characters that a word decoder put there."""
    text = tokenizer.decode(ids)
    return BESIDE_WIDE.sub("", text) if joins_words(tokenizer) else text


def joins_words(tokenizer: Tokenizer) -> bool:
    """Whether decoding puts spaces between tokens."""
    return isinstance(tokenizer.backend.decoder, decoders.WordPiece)


class Detokenizer:
    """The text that new tokens add to a prompt's, given out in pieces.

    `push` takes tokens and returns the text that no later token can change; `finish` returns the
    rest. With `stops` the text ends before the first of these strings, and `stopped` is True; a
    string that one of the first `fewest` tokens completes does not count. A stop string may hold
    the names of special tokens, which are no part of the text that goes out.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        stops: Sequence[str] = (),
        fewest: int = 0,
    ):
        self.tokenizer = tokenizer
        self.special = special_in(tokenizer, stops)
        self.stops = [marked(stop, self.special.values()) for stop in stops if stop]
        self.stopped = False
        self.tokens = list(prompt)
        self.num_prompt, self.fewest = len(self.tokens), fewest
        self.start = max(0, len(self.tokens) - WINDOW)  # of the window that is decoded
        for start in range(self.start, max(-1, self.start - MOST_PARTS), -1):
            # A character whose first bytes are cut off may break those after it as well.
            if not readable_text(tokenizer, self.tokens[start:]).startswith(BROKEN):
                self.start = start
                break
        self.settled = len(self.tokens)  # the text of the tokens before is out
        self.borders: list[int] = []  # where a character ends, behind `start`
        self.held = ""  # decoded, but perhaps the beginning of a stop string

    def push(self, tokens: Sequence[int]) -> str:
        """Take new tokens, up to one that completes a stop string; the text that is settled."""
        if not self.stops:
            return self._take(tokens)
        text = ""
        for token in tokens:
            if self.stopped:
                break
            text += self._take([token]) if token not in self.special else self._mark(token)
        return text

    def finish(self) -> str:
        """The rest of the text; a character that is not whole shows as the replacement mark."""
        if self.stopped:
            return ""
        return self._release(self._settle(len(self.tokens)), True)

    def _take(self, tokens: Sequence[int]) -> str:
        self.tokens += tokens
        end = len(self.tokens)
        for place in range(end, max(self.settled, end - MOST_PARTS), -1):
            text = readable_text(self.tokenizer, self.tokens[self.start : place])
            if not text.endswith(BROKEN):
                return self._release(self._settle(place), False)
        # What is still broken then is no beginning of a character.
        return self._release(self._settle(max(self.settled, end - MOST_PARTS + 1)), False)

    def _mark(self, token: int) -> str:
        """Take a special token that a stop string holds."""
        self.tokens.append(token)
        before = self._settle(len(self.tokens))
        return self._release(before + MARK.format(self.special[token]), False)

    def _settle(self, end: int) -> str:
        """The text of the tokens from `settled` to `end`."""
        before = readable_text(self.tokenizer, self.tokens[self.start : self.settled])
        text = readable_text(self.tokenizer, self.tokens[self.start : end])
        # Decoded alone, the new tokens would lose the space that some tokenizers keep between
        # words. A prompt cut inside a character changes as the rest comes.
        if text.startswith(before):
            new = text[len(before) :]
        else:
            new = readable_text(self.tokenizer, self.tokens[self.settled : end])
        self.settled = end
        if not text.endswith(BROKEN):
            self.borders.append(end)
        while self.borders and self.borders[0] <= end - WINDOW:
            self.start = self.borders.pop(0)
        return new

    def _release(self, new: str, last: bool) -> str:
        """What of the text may go out: nothing from a stop string on, or from what may be one."""
        text = self.held + new
        # What was complete before has been looked at before.
        places = [text.find(stop, max(0, len(self.held) - len(stop) + 1)) for stop in self.stops]
        places = [place for place in places if place >= 0]
        if places and len(self.tokens) - self.num_prompt > self.fewest:
            self.stopped, self.held = True, ""
            return MARKED.sub("", text[: min(places)])
        keep = 0 if last else max((overlap(text, stop) for stop in self.stops), default=0)
        out, self.held = text[: len(text) - keep], text[len(text) - keep :]
        return MARKED.sub("", out)


def special_in(tokenizer: Tokenizer, stops: Sequence[str]) -> dict[int, str]:
    """The special tokens whose names occur in stop strings, by their ids."""
    if not any(stops):
        return {}
    added = tokenizer.backend.get_added_tokens_decoder()
    names = {i: token.content for i, token in added.items() if token.special}
    return {i: name for i, name in names.items() if any(name in stop for stop in stops)}


def marked(stop: str, names: Iterable[str]) -> str:
    """A stop string in which special tokens are told apart from text that looks like them."""
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(pattern, lambda found: MARK.format(found[0]), stop) if pattern else stop


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def starts_wide(text: str) -> bool:
    """Whether a text begins with a character that is written without spaces around it."""
    return re.match(f"[{WIDE}]", text) is not None
