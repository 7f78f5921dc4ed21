"""The base of the tasks on labelled rows: examples, batches by length, answers and scores."""

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import Config, DataConfig, TaskConfig
from jaxlm.config.schema import not_among
from jaxlm.data import clean
from jaxlm.data.batches import Batch, LengthOrder, padded_length
from jaxlm.data.sources import DataError
from jaxlm.parallel import mesh_of, place_rows
from jaxlm.tasks.examples import (
    COLUMNS,
    Example,
    Item,
    Joiner,
    RowReader,
    balance,
    collate,
    in_batches,
)
from jaxlm.tasks.labelled_rows import RowSplits, read_splits
from jaxlm.tasks.metrics import class_scores, library, six_digits
from jaxlm.tasks.notes import notes_in_words
from jaxlm.tasks.task import Objective, Outputs, Params, RowObjective, Scores, Task, row_step
from jaxlm.tasks.vocabularies import learn_tokenizer
from jaxlm.tokenizer import Tokenizer

EVAL_ROWS = 32  # most rows in an evaluation batch

Answer = dict[str, Any]


class RowTask(RowReader, Task):
    """A task on labelled rows: reads and encodes them, and answers and scores them.

    `limit` is the most tokens in an example; `notes` counts what was cut or left out, by the keys
    of NOTES. Without `learn_from` a task only predicts; training and `evaluate` need its rows.
    """

    libraries: ClassVar[tuple[str, ...]] = ()  # that its scores need
    special_tokens: ClassVar[str] = "cls_sep"  # of a vocabulary trained for it
    shown = ("loss", "accuracy", "macro_f1", "micro_f1", "entity_f1", "f1", "exact_match")
    shown += ("pearson", "spearman")

    def __init__(
        self,
        tokenizer: Tokenizer,
        limit: int,
        labels: tuple[str, ...] = (),
        problem: str = "single_label",
        num_token_types: int = 0,
        options: TaskConfig | None = None,
        architecture: str | None = None,
    ):
        self.tokenizer, self.limit, self.labels = tokenizer, limit, labels
        self.problem, self.num_token_types = problem, num_token_types
        self.options = options or TaskConfig()
        self.trunk = architecture or self.architecture
        self.notes: Counter[str] = Counter()
        self.joiner = Joiner(tokenizer, limit)
        self.row_objective = self.make_objective()
        self.objective: Objective = self.row_objective

    @abstractmethod
    def make_objective(self) -> RowObjective:
        """The objective that these rows are trained with."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores; by default the first selects the best checkpoint."""

    @abstractmethod
    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        """The examples of items, with targets if `labelled`."""

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[Answer]:
        """The answer to each item, from the outputs of its examples.

        Empty where one pass gives none, as where a text is written token by token.
        """
        return [{} for _ in items]

    @abstractmethod
    def score_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
        """The task's metrics for the answers to labelled items."""

    def label_pairs(
        self, items: Sequence[Item], answers: Sequence[Answer]
    ) -> tuple[list[str], list[str]] | None:
        """True and predicted labels, one each; None where items may have several or none."""
        return None

    def by_class(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, Scores]:
        """Precision, recall, F1 and number of rows by label; empty without labels."""
        pairs = self.label_pairs(items, answers)
        return class_scores(*pairs, self.labels) if pairs else {}

    def baselines(self, items: Sequence[Item]) -> dict[str, Scores]:
        """Scores of simple models fitted to the training rows, on labelled items, by name."""
        return {}

    @classmethod
    def from_config(cls, config: Config, source: Loaded | None) -> "RowTask":
        config = config.replace({"data": cls.missing_columns(config.data)})
        known = source.config.labels if source and source.config.head == cls.heads[0] else ()
        rows = read_splits(cls, config, known)
        tokenizer = cls.learn_vocabulary(config.data, rows) if source is None else source.tokenizer
        model = config.model
        kinds = rows.labels, model.problem, model.num_token_types
        task = cls(tokenizer, config.data.seq_len, *kinds, config.task, model.architecture)
        task.learn_from(config, rows, source)
        return task

    @classmethod
    def learn_vocabulary(cls, data: DataConfig, rows: RowSplits) -> Tokenizer:
        """A tokenizer by name or file, as for running text, learned from the training rows."""
        texts = [text for item in rows.train for text in item.content]
        return learn_tokenizer(data.tokenizer, data, texts, cls.special_tokens)

    def learn_from(self, config: Config, rows: RowSplits, source: Loaded | None = None) -> None:
        """Encode the rows of each split; DataError where none of a split fits the limit."""
        self.config, self.rows = config, rows
        # A head taken from the source keeps its pooler.
        same = source is not None and source.config.head == self.heads[0]
        self.pooler = source.config.pooler if source and same else None
        prints = f"{self.tokenizer.fingerprint} {rows.fingerprint}".encode()
        self.fingerprint = hashlib.sha256(prints).hexdigest()[:16]
        for name in self.libraries if rows.val or rows.test else ():
            library(name)  # fail now if it is missing, not at the first evaluation
        names = tuple(dict.fromkeys((*self.metrics, "loss")))
        self.best_by = self.options.metric or names[0]
        if self.best_by not in names:
            raise not_among("task.metric", self.best_by, names)
        parts = rows.train, rows.val, rows.test
        train, self.val, self.test = map(self.encode, parts)
        for items, examples in zip(parts, (train, self.val, self.test), strict=True):
            self._check_fit(items, examples, "data.seq_len", ": raise it")
        if self.options.class_weights == "balanced":
            balance(train, len(rows.labels))
        self.train_examples = train
        self.order_batches(config)
        self.description = "; ".join(
            [self._counts(), *notes_in_words(rows.notes + self.notes, self.limit), *rows.remarks]
        )

    def order_batches(self, config: Config) -> None:
        """Decide which training examples each step takes."""
        lengths, batch_size = list(map(len, self.train_examples)), config.train.batch_size
        self.order = LengthOrder(lengths, batch_size, config.run.seed)
        self.step_tokens = batch_size * sum(lengths) / len(lengths)

    def _check_fit(
        self, items: Sequence[Item], examples: Sequence[Example], limit: str, hint: str = ""
    ) -> None:
        """Raise DataError where none of the items has an example."""
        if items and not examples:
            raise DataError(f"none of {len(items)} rows fits {limit} {self.limit}{hint}")

    def _counts(self) -> str:
        rows, labels = self.rows, self.rows.labels
        counts = f"{len(rows.train):,} rows to train on, {len(rows.val):,} to validate"
        counts += f", {len(rows.test):,} to test" if rows.test else ""
        shown = f" ({', '.join(labels[:9])})" if labels else ""
        return counts + (f", {len(labels)} labels{shown}" if labels else "")

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        data: dict[str, Any] = {name: getattr(self.config.data, name) for name in COLUMNS}
        if self.config.data.special_tokens is None:
            data["special_tokens"] = self.special_tokens
        model = {"head": self.heads[0], "labels": self.rows.labels, "pooler": self.pooler}
        return {"model": model, "data": data}

    def train_batch(self, step: int) -> Batch:
        chosen = [self.train_examples[i] for i in self.order.rows(step)]
        length = padded_length(max(map(len, chosen)), self.limit)
        return collate(chosen, length, self.tokenizer.pad_id or 0, len(chosen))

    def epochs_at(self, step: int) -> float:
        return self.order.epochs_at(step)

    def evaluate(self, model: nn.Module, params: Params) -> Scores:
        if not self.rows.val:
            return {}
        return self.measure(model, params, self.rows.val, self.val)[0]

    def summary(self, best: Loaded) -> dict[str, Any]:
        """The metric that selected the best checkpoint, and results on held-out rows.

        These are the test rows, or else the validation rows: all scores (on test rows only), scores
        by class, and scores of simple models fitted to the same training rows.
        """
        rows, own = self.rows, {"metric": self.best_by}
        items, examples = (rows.test, self.test) if rows.test else (rows.val, self.val)
        if not items or not (rows.test or self.metrics):
            return own
        scores, answers = self.measure(best.model, best.params, items, examples)
        if rows.test:
            own |= {"test": six_digits(scores)}
        if by_class := self.by_class(items, answers):
            own |= {"by_class": {name: six_digits(row) for name, row in by_class.items()}}
        if found := self.baselines(items):
            own |= {"simple_baselines": {name: six_digits(row) for name, row in found.items()}}
        return own

    def measure(
        self, model: nn.Module, params: Params, items: Sequence[Item], examples: Sequence[Example]
    ) -> tuple[Scores, list[Answer]]:
        """The mean loss (nats) and the scores over labelled items, and the answers to them.

        Raises: DataError where none of the items has an example.
        """
        self._check_fit(items, examples, "the length of this model,")
        totals, answers = self._run(model, params, items, examples, labelled=True)
        count = max(totals.pop("count"), 1e-9)
        means = {name: total / count for name, total in totals.items()}
        return means | self.score_answers(items, answers), answers

    def answers_to(self, model: nn.Module, params: Params, items: Sequence[Item]) -> list[Answer]:
        """The model's answers to items without labels."""
        return self._run(model, params, items, self.encode(items, False), labelled=False)[1]

    def _run(
        self,
        model: nn.Module,
        params: Params,
        items: Sequence[Item],
        examples: Sequence[Example],
        labelled: bool,
    ) -> tuple[dict[str, float], list[Answer]]:
        totals: dict[str, float] = {}
        outputs: list[tuple[Example, Outputs]] = []
        size = min(EVAL_ROWS, 1 << (len(examples) - 1).bit_length())  # a power of two: few shapes
        pad, answers = self.tokenizer.pad_id or 0, bool(self.metrics)
        mesh, objective = mesh_of(params), self.row_objective

        def step(batch: Batch) -> tuple[Any, Outputs]:
            placed = place_rows(batch, mesh)
            return row_step(objective, model, params, placed, labelled, answers, mesh)

        pending = [
            (step(batch), chosen) for batch, chosen in in_batches(examples, size, self.limit, pad)
        ]
        for (sums, found), chosen in pending:
            for name, value in jax.device_get(sums).items():
                totals[name] = totals.get(name, 0.0) + float(value)
            if found is not None:
                rows = jax.tree.map(np.asarray, found)
                outputs += [
                    (e, jax.tree.map(lambda x, i=i: x[i], rows)) for i, e in enumerate(chosen)
                ]
        return totals, self.answer(items, outputs)

    def predict(self, loaded: Loaded, texts: Sequence[Any]) -> list[Answer]:
        """The answer to each text or pair of texts; DataError for an empty text."""
        run = loaded.run_config
        normalize = DataConfig.normalize if run is None else run.data.normalize
        items = []
        for i, text in enumerate(texts, 1):
            first, second = text if isinstance(text, tuple) else (text, None)
            pair = None if second is None else "pair"
            columns = DataConfig(text_column="text", pair_column=pair, normalize=normalize)
            self._check_pair(i, second)
            row = {"text": first, "pair": second}
            exact = self.exact(columns)
            for name, value in row.items():
                if isinstance(value, str) and name not in exact:
                    row[name] = clean(value, normalize)
            item = self.read(f"text {i}", row, columns, self.problem, labelled=False)
            if item is None:
                raise DataError(f"text {i} is empty")
            items.append(item)
        return self.answers_to(loaded.model, loaded.params, items) if items else []

    def _check_pair(self, i: int, second: Any) -> None:
        """Raise DataError for a single text in a task on pairs."""
        if self.columns[1] is not None and second is None:
            raise DataError(f"text {i} is alone; give pairs of question and context")

    def tokens(self, ids: Sequence[int], types: Sequence[int]) -> dict[str, np.ndarray]:
        """The arrays that every example has; types only for a model with several."""
        arrays = {"ids": np.array(ids, np.int32)}
        if self.num_token_types > 1:
            arrays["token_type_ids"] = np.array(types, np.int32)
        return arrays
