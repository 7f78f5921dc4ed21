"""Where training gets its batches: one feed an objective, each a function of the step alone."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxlm.config import Config
from jaxlm.data.batches import Batch, epochs_at, eval_batches, train_batch
from jaxlm.data.dataset import Dataset
from jaxlm.data.masking import Vocabulary, mask_rows
from jaxlm.data.ordering import padded_length
from jaxlm.data.store import TokenStore
from jaxlm.data.windows import DocumentWindows, TextWindows, Window, Windows

EVAL_TOKENS = 4096  # tokens of one evaluation batch, or a training batch if that is larger
Tokens = Int[np.ndarray, "..."]  # one dim, of another length each
VALIDATION = 0x5EED  # in place of a seed: the masks of validation are the same in every run


@runtime_checkable
class Feed(Protocol):
    """Batches of one objective; a batch depends on the seed and the step, and on nothing before.

    `step_tokens` are the tokens of a step, or their mean.
    """

    step_tokens: float

    def train_batch(self, step: int) -> Batch: ...
    def eval_batches(self) -> Iterator[Batch]: ...
    def epochs_at(self, step: int) -> float: ...


class CausalFeed:
    """Windows of text, each token with the next as its target."""

    def __init__(self, config: Config, data: Dataset):
        self.config, self.data = config, data
        self.step_tokens = config.train.batch_size * config.data.seq_len

    def train_batch(self, step: int) -> Batch:
        config = self.config
        return train_batch(
            self.data.train,
            config.run.seed,
            step,
            config.train.batch_size,
            config.data.seq_len,
            mask_documents=config.data.mask_documents,
        )

    def eval_batches(self) -> Iterator[Batch]:
        data = self.config.data
        assert self.data.val is not None
        size = eval_size(self.config)
        return eval_batches(self.data.val, size, data.seq_len, data.mask_documents)

    def epochs_at(self, step: int) -> float:
        config = self.config
        return epochs_at(self.data.train, step, config.train.batch_size, config.data.seq_len)


class MaskedFeed:
    """Windows between [CLS] and [SEP] with tokens to guess; or pairs of sentences.

    Pairs are for a model with a next-sentence head: half of the time the second part is what comes
    after the first in its document, else text from elsewhere (Devlin et al. 2018).
    """

    def __init__(self, config: Config, data: Dataset):
        self.config, self.data = config, data
        self.vocabulary = Vocabulary.of(data.tokenizer)
        self.pairs = config.model.head == "pretraining"
        self.num_specials = 3 if self.pairs else 2
        self.train = self._windows(data.train)
        self.epochs_at = self.train.epochs_at
        self.step_tokens = config.train.batch_size * (self.train.mean_size + self.num_specials)

    def train_batch(self, step: int) -> Batch:
        random = np.random.default_rng([self.config.run.seed, step])
        return self._batch(self.train.at(step), random)

    def eval_batches(self) -> Iterator[Batch]:
        assert self.data.val is not None
        val = self._windows(self.data.val)
        for i, windows in enumerate(val.in_order(eval_size(self.config))):
            yield self._batch(windows, np.random.default_rng([VALIDATION, i]))

    def _windows(self, store: TokenStore) -> Windows:
        config = self.config
        room = config.data.seq_len - self.num_specials
        size, seed = config.train.batch_size, config.run.seed
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
        batch = mask_rows(ids, vocabulary, self.config.objective, random)
        batch["attention_mask"] = (ids != vocabulary.pad).astype(np.int32)
        if self.pairs:
            batch |= {"token_type_ids": types, "next_sentence": unrelated}
        return batch

    def _pair(
        self, windows: list[Window], random: np.random.Generator
    ) -> tuple[list[list[Tokens]], Int[np.ndarray, " B"]]:
        """Windows cut in two, of which half get the second part of another; 1 for these.

        It comes from another document where the batch has one. Rows of a batch are of like length,
        so that the length of a part tells nothing.
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
                rows[i][1] = seconds[random.choice(others)][: self.train.size - len(rows[i][0])]
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


def eval_size(config: Config) -> int:
    return max(config.train.batch_size, EVAL_TOKENS // config.data.seq_len)


FEEDS = {"clm": CausalFeed, "mlm": MaskedFeed}


def make_feed(config: Config, data: Dataset) -> Feed:
    """The feed of the config's objective."""
    return FEEDS[config.objective.name](config, data)
