"""Batches of a masked language model: windows with hidden tokens, or pairs of sentences."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxlm.config import Config
from jaxlm.data.batches import (
    Batch,
    LengthOrder,
    epochs_at,
    eval_batches,
    padded_length,
    train_batch,
)
from jaxlm.data.masking import MaskingVocabulary, mask_rows
from jaxlm.data.sources import DataError
from jaxlm.data.store import TokenStore
from jaxlm.tokenizer import Tokenizer


class Window(NamedTuple):
    """Consecutive tokens, and the number of their document if they come from one."""

    tokens: Int[np.ndarray, " n"]
    document: int = 0


class TextWindows:
    """Windows of `size` tokens that may span documents, as a causal model reads them.

    A step has `batch_size` of them.
    """

    def __init__(self, store: TokenStore, size: int, batch_size: int, seed: int):
        self.store, self.size, self.batch_size, self.seed = store, size, batch_size, seed
        self.mean_size = size

    def at(self, step: int) -> list[Window]:
        """The windows of a step, a function of the seed and the step only."""
        batch = train_batch(self.store, self.seed, step, self.batch_size, self.size)
        return [Window(ids) for ids in batch["ids"]]

    def in_order(self, batch_size: int) -> Iterator[list[Window]]:
        """Every token once; the last batch is filled up with empty windows."""
        for batch in eval_batches(self.store, batch_size, self.size):
            pairs = zip(batch["ids"], batch["weights"], strict=True)
            yield [Window(ids[weights > 0]) for ids, weights in pairs]

    def epochs_at(self, step: int) -> float:
        return epochs_at(self.store, step, self.batch_size, self.size)


class DocumentWindows:
    """Windows that each hold tokens of one document, batched with others of similar length.

    Like `TextWindows`, but of at most `size` tokens, `mean_size` on average: a document is cut into
    as many windows as needed. Windows of fewer than `smallest` tokens are left out, and so is a
    special token (`special` (V,) says which are) at the end of a document.
    """

    def __init__(
        self,
        store: TokenStore,
        size: int,
        batch_size: int,
        seed: int,
        special: Bool[np.ndarray, " V"],
        smallest: int,
    ):
        self.store, self.size = store, size
        first = store.document_starts
        last = np.append(first[1:], len(store))
        last -= special[store.tokens[last - 1]]
        counts = -(-(last - first) // size)
        document = np.repeat(np.arange(len(first)), counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = first[document] + number * size
        lengths = np.minimum(last[document] - starts, size)
        held = lengths >= smallest
        if not held.any():
            raise DataError(f"no document has {smallest} or more tokens; give more text")
        self.starts, self.lengths, self.documents = starts[held], lengths[held], document[held]
        self.order = LengthOrder(self.lengths, batch_size, seed)
        self.mean_size = float(self.lengths.mean())
        self.epochs_at = self.order.epochs_at

    def at(self, step: int) -> list[Window]:
        return self.cut(self.order.rows(step))

    def in_order(self, batch_size: int) -> Iterator[list[Window]]:
        order = np.argsort(self.lengths, kind="stable")
        for first in range(0, len(order), batch_size):
            windows = self.cut(order[first : first + batch_size])
            yield windows + [Window(np.zeros(0, np.int32))] * (batch_size - len(windows))

    def cut(self, rows: Int[np.ndarray, " B"]) -> list[Window]:
        """The windows with these numbers."""
        places = zip(self.starts[rows], self.lengths[rows], self.documents[rows], strict=True)
        tokens = self.store.tokens
        return [Window(tokens[i : i + n].astype(np.int32), int(d)) for i, n, d in places]


Windows = TextWindows | DocumentWindows


Tokens = Int[np.ndarray, "..."]  # one dim; lengths differ
VALIDATION = 0x5EED  # the seed of validation masks, which are the same in every run


class MaskedBatches:
    """Windows between [CLS] and [SEP] with hidden tokens, or pairs of sentences.

    With `pairs`, the second part of half of the rows is the text that follows the first, and that
    of the others is text from elsewhere (Devlin et al. 2018). A batch is a function of the seed and
    the step only.
    """

    def __init__(self, config: Config, store: TokenStore, tokenizer: Tokenizer, pairs: bool):
        self.config, self.seed, self.pairs = config, config.run.seed, pairs
        self.vocabulary = MaskingVocabulary.of(tokenizer)
        self.num_specials = 3 if pairs else 2
        self.windows = self._windows(store)
        self.epochs_at = self.windows.epochs_at
        self.step_tokens = config.train.batch_size * (self.windows.mean_size + self.num_specials)

    def of_split(self, store: TokenStore) -> "MaskedBatches":
        """Batches of the same kind from another store."""
        other = copy.copy(self)
        other.windows = self._windows(store)
        return other

    def train_batch(self, step: int) -> Batch:
        """The batch of a step, of `train.batch_size` windows."""
        return self._batch(self.windows.at(step), np.random.default_rng([self.seed, step]))

    def eval_batches(self, size: int) -> Iterator[Batch]:
        """Every window once, in batches of `size`, with the same masks whatever the seed."""
        for i, windows in enumerate(self.windows.in_order(size)):
            yield self._batch(windows, np.random.default_rng([VALIDATION, i]))

    def _windows(self, store: TokenStore) -> Windows:
        config = self.config
        room = config.data.seq_len - self.num_specials
        size, seed = config.train.batch_size, self.seed
        if not self.pairs and not config.data.mask_documents:
            return TextWindows(store, room, size, seed)
        return DocumentWindows(store, room, size, seed, self.vocabulary.special, 1 + self.pairs)

    def _batch(self, windows: list[Window], random: np.random.Generator) -> Batch:
        vocabulary, size = self.vocabulary, len(windows)
        rows, unrelated = [[window.tokens] for window in windows], np.zeros(size, np.int32)
        if self.pairs:
            rows, unrelated = self._pair(windows, random)
        longest = max(sum(map(len, row)) for row in rows)
        length = padded_length(longest + self.num_specials, self.config.data.seq_len)
        ids = np.full((size, length), vocabulary.pad, np.int32)
        types = np.zeros_like(ids)
        ids[:, 0] = vocabulary.cls
        for row, parts in enumerate(rows):
            end = 1
            for kind, part in enumerate(parts):
                start, end = end, end + len(part) + 1
                ids[row, start:end] = [*part, vocabulary.sep]
                types[row, start:end] = kind
        batch = mask_rows(ids, vocabulary, self.config.task, random)
        batch["attention_mask"] = (ids != vocabulary.pad).astype(np.int32)
        if self.pairs:
            batch |= {"token_type_ids": types, "next_sentence": unrelated}
        return batch

    def _pair(
        self, windows: list[Window], random: np.random.Generator
    ) -> tuple[list[list[Tokens]], Int[np.ndarray, " B"]]:
        """Windows cut in two, and 1 for those (half) whose second part is from another window.

        That window is of another document if the batch has one. Rows in a batch have similar
        lengths, so the length of a part does not give the answer away.
        """
        rows = [list(np.split(w.tokens, [self._cut(w.tokens, random)])) for w in windows]
        unrelated = random.integers(2, size=len(rows)).astype(np.int32)
        documents = np.array([window.document for window in windows])
        present = np.flatnonzero([len(window.tokens) > 0 for window in windows])
        seconds = [row[1] for row in rows]
        for i in np.flatnonzero(unrelated):
            elsewhere = present[documents[present] != documents[i]]
            others = elsewhere if len(elsewhere) else present[present != i]
            if i in present and len(others):
                rows[i][1] = seconds[random.choice(others)][: self.windows.size - len(rows[i][0])]
            else:
                unrelated[i] = 0
        return rows, unrelated

    def _cut(self, window: Tokens, random: np.random.Generator) -> int:
        """Where a sentence ends near the middle of a window, else a clause, else the middle."""
        size = len(window)
        for breaks in (self.vocabulary.ends_sentence, self.vocabulary.ends_clause):
            places = np.flatnonzero(breaks[window[: size - 1]]) + 1
            places = places[(places >= size // 4) & (places <= size - size // 4)]
            if len(places):
                return int(random.choice(places))
        return size // 2
