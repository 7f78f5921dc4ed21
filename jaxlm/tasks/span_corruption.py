"""Running text with gaps that an encoder-decoder fills: its pretraining (Raffel et al. 2020)."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.config.schema import require
from jaxlm.data import Dataset, TokenStore, epochs_at, eval_batches, prepare, train_batch
from jaxlm.data.batches import Batch
from jaxlm.data.gaps import GapSizes, window_for, with_gaps
from jaxlm.data.pair_batches import Shape, pair_batch
from jaxlm.data.sources import DataError
from jaxlm.generation import translate
from jaxlm.tasks.causal_lm import RunningTextTask
from jaxlm.tasks.teacher_forcing import TeacherForcing
from jaxlm.tasks.vocabularies import SPECIALS, cut_sources, end_of, start_of

MARK = "<extra_id_{}>"  # stands for a gap; the name that T5 has for it
SHOWN = 4  # windows that samples.jsonl has of the text held out


class SpanCorruptionTask(RunningTextTask):
    """Windows of text of which runs of tokens are missing, to be written one after the other."""

    architecture = "encoder_decoder"
    objective = TeacherForcing()

    def __init__(self, config: Config, data: Dataset):
        super().__init__(config, data)
        self.window = window_of(config)
        options, model = config.task, config.model
        self.hidden, self.gaps = GapSizes.of(self.window, *self._shares)
        self.end, self.start = end_of(self.tokenizer), start_of(self.tokenizer, model)
        ids = [self.tokenizer.backend.token_to_id(MARK.format(i)) for i in range(self.gaps)]
        if None in ids:
            raise DataError(
                f"task.name {options.name} needs {MARK.format(0)} to {MARK.format(self.gaps - 1)} "
                "in the vocabulary: let data.tokenizer be trained with the run, or give a "
                "tokenizer that has them"
            )
        self.marks = np.array(ids, np.int32)
        self.step_tokens = config.train.batch_size * self.window

    @property
    def _shares(self) -> tuple[float, float]:
        return self.config.task.mask_fraction, self.config.task.mean_span

    @classmethod
    def from_config(cls, config: Config, source: Loaded | None) -> "SpanCorruptionTask":
        options = config.task.mask_fraction, config.task.mean_span
        gaps = GapSizes.of(window_of(config), *options).gaps
        specials = (*SPECIALS["bos_eos"], *map(MARK.format, range(gaps)))
        tokenizer = None if source is None else source.tokenizer
        wide = dataclasses.replace(config.data, seq_len=window_of(config))
        data = prepare(wide, config.run.seed, tokenizer=tokenizer, specials=specials)
        return cls(config, data)

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        fields = super().config_fields()
        model = {**fields["model"], "decoder_start_id": self.start}
        return {**fields, "model": model, "data": {**fields["data"], "special_tokens": "bos_eos"}}

    def train_batch(self, step: int) -> Batch:
        store, seed = self.data.train, self.config.run.seed
        windows = train_batch(store, seed, step, self.config.train.batch_size, self.window)["ids"]
        return self._batch(list(windows), np.random.default_rng([seed, step]))

    def _batch(self, windows: Sequence[np.ndarray], random: np.random.Generator) -> Batch:
        pairs = [
            with_gaps(tokens, *self._shares, self.marks, self.end, random)
            for tokens in windows
            if len(tokens) > 1  # of less nothing can be taken out
        ]
        longest = self.window - self.hidden + self.gaps + 1, self.hidden + self.gaps + 1
        sources, targets = zip(*pairs, strict=True) if pairs else ((), ())
        shape = Shape(len(windows), *longest)
        return pair_batch(sources, targets, shape, self.start, self.tokenizer.pad_id or 0)

    def epochs_at(self, step: int) -> float:
        return epochs_at(self.data.train, step, self.config.train.batch_size, self.window)

    def eval_batches(self) -> Iterable[Batch]:
        """Every window once, with the same gaps each time."""
        assert self.data.val is not None
        for i, windows in enumerate(self._in_order(self.data.val, self.eval_size)):
            yield self._batch(windows, np.random.default_rng(i))

    def _in_order(self, store: TokenStore, rows: int) -> Iterable[list[np.ndarray]]:
        for batch in eval_batches(store, rows, self.window):
            pairs = zip(batch["ids"], batch["weights"], strict=True)
            yield [ids[weights > 0] for ids, weights in pairs]

    def samples(self, loaded: Loaded, step: int) -> Sequence[tuple[str, ...]]:
        """The config's prompts, or windows of the text held out, with what fills their gaps."""
        prompts: Sequence[str] = self.config.sample.prompts or ()
        if not prompts:
            windows = next(iter(self._in_order(self.data.val or self.data.train, SHOWN)))
            batch, decode = self._batch(windows, np.random.default_rng(0)), self.tokenizer.decode
            rows = zip(batch["source_ids"], batch["source_mask"], strict=True)
            prompts = [decode(ids[mask > 0][:-1], False) for ids, mask in rows if mask.sum() > 1]
        prompts, _ = cut_sources(self.tokenizer, prompts, loaded.config.max_seq_len)
        return list(zip(prompts, translate(loaded, prompts), strict=True))


def window_of(config: Config) -> int:
    """Tokens of a window, before some are taken out; ConfigError where none fits."""
    limit, options = config.data.seq_len, config.task
    window = window_for(limit, options.mask_fraction, options.mean_span)
    require(window > 0, "data.seq_len", "at least 3, for a gap and an end", limit)
    return window
