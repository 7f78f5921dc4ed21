"""Where training gets its batches: one feed an objective, each a function of the step alone."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxlm.config import Config
from jaxlm.data.batches import Batch, epochs_at, eval_batches, num_windows, train_batch
from jaxlm.data.dataset import Dataset
from jaxlm.data.masking import Vocabulary, mask_rows
from jaxlm.data.store import TokenStore

EVAL_TOKENS = 4096  # tokens of one evaluation batch, or a training batch if that is larger
VALIDATION = 0x5EED  # in place of a seed: the masks of validation are the same in every run


@runtime_checkable
class Feed(Protocol):
    """Batches of one objective; a batch depends on the seed and the step, and on nothing before."""

    def train_batch(self, step: int) -> Batch: ...
    def eval_batches(self) -> Iterator[Batch]: ...
    def epochs_at(self, step: int) -> float: ...


class CausalFeed:
    """Windows of text, each token with the next as its target."""

    def __init__(self, config: Config, data: Dataset):
        self.config, self.data = config, data

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
    after the first, else text from elsewhere (Devlin et al. 2018).
    """

    def __init__(self, config: Config, data: Dataset):
        self.config, self.data = config, data
        self.vocabulary = Vocabulary.of(data.tokenizer)
        self.pairs = config.model.head == "pretraining"
        self.room = config.data.seq_len - (3 if self.pairs else 2)

    def train_batch(self, step: int) -> Batch:
        config = self.config
        size = config.train.batch_size
        windows = train_batch(self.data.train, config.run.seed, step, size, self.room)["ids"]
        random = np.random.default_rng([config.run.seed, step])
        return self._batch(self.data.train, windows, random)

    def eval_batches(self) -> Iterator[Batch]:
        val = self.data.val
        assert val is not None
        for i, batch in enumerate(eval_batches(val, eval_size(self.config), self.room)):
            # The windows of a causal model leave the last token out; it is nobody's context here.
            windows = np.where(batch["weights"] > 0, batch["ids"], self.vocabulary.pad)
            yield self._batch(val, windows, np.random.default_rng([VALIDATION, i]))

    def epochs_at(self, step: int) -> float:
        size = self.config.train.batch_size
        return step * size / num_windows(len(self.data.train), self.room)

    def _batch(
        self, store: TokenStore, windows: Int[np.ndarray, "B t"], random: np.random.Generator
    ) -> Batch:
        vocabulary = self.vocabulary
        rows = len(windows)
        first = np.full((rows, 1), vocabulary.cls, np.int32)
        last = np.full((rows, 1), vocabulary.sep, np.int32)
        extra: Batch = {}
        if self.pairs:
            ids, extra = self._pair(store, windows, random)
        else:
            ids = np.concatenate([first, windows, last], axis=1)
        batch = mask_rows(ids, vocabulary, self.config.objective, random)
        return batch | extra | {"attention_mask": (ids != vocabulary.pad).astype(np.int32)}

    def _pair(
        self, store: TokenStore, windows: Int[np.ndarray, "B t"], random: np.random.Generator
    ) -> tuple[Int[np.ndarray, "B T"], Batch]:
        """Each window cut at the end of a sentence, its second part kept or replaced."""
        vocabulary = self.vocabulary
        rows, room = windows.shape
        ids = np.full((rows, room + 3), vocabulary.pad, np.int32)
        types = np.zeros_like(ids)
        unrelated = random.integers(2, size=rows).astype(np.int32)
        for row, window in enumerate(windows):
            ends = np.flatnonzero(vocabulary.ends_sentence[window[: room - 1]]) + 1
            middle = ends[(ends > room // 4) & (ends < room - room // 4)]
            cut = int(random.choice(middle)) if len(middle) else room // 2
            second = window[cut:]
            if unrelated[row]:
                start = int(random.integers(max(1, len(store) - len(second))))
                second = store.tokens[start : start + len(second)]
            ids[row, 0] = vocabulary.cls
            ids[row, 1 : cut + 1] = window[:cut]
            ids[row, cut + 1] = vocabulary.sep
            ids[row, cut + 2 : cut + 2 + len(second)] = second
            ids[row, cut + 2 + len(second)] = vocabulary.sep
            types[row, cut + 2 : cut + 3 + len(second)] = 1
        return ids, {"token_type_ids": types, "next_sentence": unrelated}


def eval_size(config: Config) -> int:
    return max(config.train.batch_size, EVAL_TOKENS // config.data.seq_len)


FEEDS = {"clm": CausalFeed, "mlm": MaskedFeed}


def make_feed(config: Config, data: Dataset) -> Feed:
    """The feed of the config's objective."""
    return FEEDS[config.objective.name](config, data)
