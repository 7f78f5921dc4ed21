"""Pairs of texts, of which an encoder-decoder learns to write the second for the first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import flax.linen as nn
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import Config, DataConfig, ModelConfig
from jaxlm.config.schema import require
from jaxlm.data.batches import Batch
from jaxlm.data.pair_batches import PairOrder, pair_batch
from jaxlm.data.sources import DataError
from jaxlm.generation import translate
from jaxlm.parallel import on_this_process
from jaxlm.tasks.baselines import neighbour_answers
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.fields import text_field
from jaxlm.tasks.labelled_rows import RowSplits
from jaxlm.tasks.metrics import exact_match, library, six_digits, translation_scores
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.task import Params, RowObjective, Scores, mean_scores, perplexity
from jaxlm.tasks.teacher_forcing import TeacherForcing
from jaxlm.tasks.vocabularies import cut_sources, end_of, learn_tokenizer, start_of
from jaxlm.tokenizer import Tokenizer

EVAL_TOKENS = 8192  # of one evaluation batch, padding and both sides counted
SHOWN = 8  # pairs that samples.jsonl has of the rows held out
LONGEST_NAME = 40  # characters of a column's name, beyond which it must be a text
SEPARATE = "false with data.source_tokenizer, as the sides have no tokens in common"
MOST_NEIGHBOURS = 200_000  # training pairs among which the nearest is looked for
SCORED = ("loss", "bleu", "chrf", "exact_match")


@dataclass(frozen=True, eq=False)
class PairExample(Example):
    """A source and its target in tokens, each with what ends it."""

    def __len__(self) -> int:
        return sum(map(len, self.tokens.values()))

    @property
    def lengths(self) -> tuple[int, int]:
        return len(self.tokens["source"]), len(self.tokens["target"])


class Seq2SeqTask(RowTask):
    """A target for each source: a translation, a summary, a sum."""

    architecture = "encoder_decoder"
    heads = ("lm",)
    columns = ("source", None, "target")
    special_tokens = "bos_eos"
    shown = ("loss", "perplexity", "accuracy", "bleu", "chrf", "exact_match")
    signatures: Mapping[str, str] = {}  # how BLEU and chrF were computed, once they were
    decoding: Mapping[str, Any] = {}  # options of `translate`, where the model's files do not say

    def make_objective(self) -> RowObjective:
        return TeacherForcing(label_smoothing=self.options.label_smoothing)

    @property
    def metrics(self) -> tuple[str, ...]:
        return SCORED if self.options.eval_rows else SCORED[:1]

    @classmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        """Columns as named, or of two the first as the source and the second as the target.

        They may stand in a column `translation`, as data sets of the Hub have them.
        """
        if isinstance(inner := row.get("translation"), Mapping):
            row = {**row, **inner}
            names = list(inner)
        else:
            names = list(row)
        source, target = data.text_column, data.label_column
        usual = source == cls.columns[0] and target in (cls.columns[2], None)
        if usual and source not in row and len(names) == 2:
            if long := next((name for name in names if len(name) > LONGEST_NAME), None):
                raise DataError(
                    f"{where} stands under {long[:LONGEST_NAME]!r}..., which is a text and no name "
                    "of a column: name the columns of a file without a header with --data.columns "
                    "[source, target], or --columns of evaluate and predict"
                )
            source, target = names[0], target and names[1]
        first = text_field(where, row, source, "text_column")
        second = text_field(where, row, target, "label_column") if target else None
        return Item(where, (first,), second or None) if first else None

    @classmethod
    def learn_vocabulary(cls, data: DataConfig, rows: RowSplits) -> Tokenizer:
        """One tokenizer of both sides, or with `data.source_tokenizer` one of each."""
        sources, targets = [i.content[0] for i in rows.train], [i.label for i in rows.train]
        if data.source_tokenizer is None:
            return learn_tokenizer(data.tokenizer, data, sources + targets, cls.special_tokens)
        of_targets = learn_tokenizer(data.tokenizer, data, targets, cls.special_tokens)
        own = learn_tokenizer(data.source_tokenizer, data, sources, cls.special_tokens)
        return Tokenizer(of_targets.backend, of_targets.config, own)

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        end_of(self.tokenizer)  # told now if there is none
        sources = self.tokenizer.encode_sources([item.content[0] for item in items])
        targets = self.tokenizer.encode_closed([item.label or "" for item in items])
        pairs = []
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            if max(len(source), len(target)) > self.limit:
                self.notes["pairs_too_long"] += 1
                continue
            tokens = {"source": np.array(source, np.int32), "target": np.array(target, np.int32)}
            pairs.append(PairExample(tokens, {}, i))
        return pairs

    def order_batches(self, config: Config) -> None:
        if self.best_by in ("bleu", "chrf"):
            library("sacrebleu")  # told now if it is missing, not at the first evaluation
        self.decoding = {"num_beams": self.options.num_beams}
        lengths, train = lengths_of(self.train_examples), config.train
        mean = lengths.sum() / len(lengths)
        tokens = config.task.batch_tokens or train.batch_size * mean
        self.order = PairOrder(lengths, tokens, config.run.seed, train.accumulate_steps)
        self.step_tokens = float(lengths.sum() / self.order.steps_per_epoch)

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        fields, model, own = super().config_fields(), self.config.model, self.tokenizer.source
        start = start_of(self.tokenizer, model)
        told = {**fields["model"], "decoder_start_id": start}
        if own is not None:
            require(not model.share_embeddings, "model.share_embeddings", SEPARATE, True)
            told["source_vocab_size"] = model.source_vocab_size or own.vocab_size
        return {**fields, "model": told}

    def train_batch(self, step: int) -> Batch:
        shape, rows = self.order.at(step)
        return self._batch([self.train_examples[i] for i in rows], shape, None)

    def _batch(self, pairs: Sequence[Example], shape: Any, model: nn.Module | None) -> Batch:
        config = self.config.model if model is None else self._config_of(model)
        start, pad = start_of(self.tokenizer, config), self.tokenizer.pad_id or 0
        sources, targets = ([p.tokens[side] for p in pairs] for side in ("source", "target"))
        return pair_batch(sources, targets, shape, start, pad)

    def _config_of(self, model: nn.Module) -> ModelConfig:
        """The config of a model; of one's own that has none, the run's."""
        own = getattr(model, "config", None)
        return own if isinstance(own, ModelConfig) else self.config.model

    def _eval_batches(self, model: nn.Module, pairs: Sequence[Example]) -> Iterator[Batch]:
        for shape, rows in PairOrder(lengths_of(pairs), EVAL_TOKENS, 0).in_order():
            yield self._batch([pairs[i] for i in rows], shape, model)

    def evaluate(self, model: nn.Module, params: Params) -> Scores:
        if not self.rows.val:
            return {}
        scores = self._losses(model, params, self.val)
        part = self.rows.val[: self.options.eval_rows]
        if self.own_objective or not part:
            return scores
        return scores | self.score_answers(part, self.answers_to(model, params, part))

    def _losses(self, model: nn.Module, params: Params, pairs: Sequence[Example]) -> Scores:
        """Means over every target token of pairs."""
        batches = self._eval_batches(model, pairs)
        scores = mean_scores(self.objective, model, params, batches)
        return scores if self.own_objective else scores | {"perplexity": perplexity(scores["loss"])}

    def measure(
        self, model: nn.Module, params: Params, items: Sequence[Item], examples: Sequence[Example]
    ) -> tuple[Scores, list[Answer]]:
        """The mean loss (nats) of pairs that fit the limit, and the scores of all targets."""
        self._check_fit(items, examples, "the length of this model,")
        answers = self.answers_to(model, params, items)
        losses = self._losses(model, params, examples)
        return losses | self.score_answers(items, answers), answers

    def answers_to(self, model: nn.Module, params: Params, items: Sequence[Item]) -> list[Answer]:
        """The targets that the model writes, as `translation`."""
        config = self._config_of(model)
        loaded = Loaded(model, on_this_process(params), self.tokenizer, config)
        texts = [item.content[0] for item in items]
        return [{"translation": text} for text in self._written(loaded, texts)]

    def _written(self, loaded: Loaded, texts: Sequence[str]) -> list[str]:
        """The targets of texts, which are cut where the model does not read them whole."""
        fitting, cut = cut_sources(self.tokenizer, texts, loaded.config.max_seq_len)
        self.notes["texts_cut"] += cut
        return translate(loaded, fitting, **self.decoding)

    def score_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
        """BLEU and chrF, where sacrebleu is there, and exact match; that alone if it is best_by."""
        truth = [item.label for item in items]
        return self._text_scores(truth, [answer["translation"] for answer in answers])

    def _text_scores(self, truth: Sequence[str], found: Sequence[str]) -> Scores:
        scores: Scores = {"exact_match": exact_match(truth, found)}
        # Where whole targets must be right, parts of them tell little.
        if self.best_by in scores or find_spec("sacrebleu") is None:
            return scores
        own, self.signatures = translation_scores(truth, found)
        return own | scores

    def told(self, scores: Mapping[str, float]) -> str:
        """Scores in words, BLEU and chrF with their signatures."""
        signed = [f"{name} {self.signatures[name]}" for name in scores if name in self.signatures]
        return super().told(scores) + (f" ({', '.join(signed)})" if signed else "")

    def baselines(self, items: Sequence[Item]) -> dict[str, Scores]:
        """Scores of copied sources, and of the target of the training source that is nearest."""
        train, others = self.rows.train, [item.content[0] for item in items]
        truth = [item.label for item in items]
        found = {"copied_source": others}
        if find_spec("sklearn") is not None:
            train = train[:MOST_NEIGHBOURS]
            known, answers = [item.content[0] for item in train], [item.label for item in train]
            found["nearest_neighbour"] = neighbour_answers(known, answers, others)
        return {name: self._text_scores(truth, texts) for name, texts in found.items()}

    def samples(self, loaded: Loaded, step: int) -> Sequence[tuple[str, ...]]:
        """The config's prompts, or some of the rows held out, with targets: written, and right."""
        rows = (self.rows.val or self.rows.train)[:SHOWN]
        sources = self.config.sample.prompts or [item.content[0] for item in rows]
        right = [()] * len(sources) if self.config.sample.prompts else [(r.label,) for r in rows]
        written = self._written(loaded, sources)
        return [(*pair, *rest) for *pair, rest in zip(sources, written, right, strict=True)]

    def summary(self, best: Loaded) -> dict[str, Any]:
        """What chose the best checkpoint; scores of the test rows, and of what needs no model."""
        rows, own = self.rows, dict[str, Any](metric=self.best_by)
        if rows.test:
            own["test"] = six_digits(self.measure(best.model, best.params, rows.test, self.test)[0])
        items = rows.test or rows.val[: self.options.eval_rows]
        if items and not self.own_objective:
            found = self.baselines(items)
            own["simple_baselines"] = {name: six_digits(row) for name, row in found.items()}
        return own | ({"signatures": dict(self.signatures)} if self.signatures else {})


def lengths_of(pairs: Sequence[Any]) -> np.ndarray:
    """Tokens of each source and target (N, 2)."""
    return np.array([pair.lengths for pair in pairs]).reshape(-1, 2)
