"""Classification of a text or a pair of texts: one label, several labels, or a number."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.config import DataConfig
from jaxlm.data.sources import DataError
from jaxlm.ops.reductions import target_sums
from jaxlm.tasks.baselines import baseline_answers
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.fields import as_label, field_of, is_gap, text_field
from jaxlm.tasks.metrics import (
    multi_class_scores,
    multi_label_scores,
    number_scores,
    single_label_scores,
)
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.task import Arrays, Outputs, RowObjective, Scores, Sums


def class_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """Cross-entropy of the one right class."""
    return target_sums(outputs, batch["targets"], batch["weights"])


def label_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """Binary cross-entropy, averaged over the labels of a row."""
    losses = -batch["targets"] * jax.nn.log_sigmoid(outputs)
    losses -= (1 - batch["targets"]) * jax.nn.log_sigmoid(-outputs)
    return row_sums(losses, batch)


def squared_errors(outputs: Outputs, batch: Arrays) -> Sums:
    return row_sums(jnp.square(outputs - batch["targets"]), batch)


def row_sums(losses: Float[Array, "B C"], batch: Arrays) -> Sums:
    """Sums over rows, by weight, of the mean loss over columns."""
    return {
        "loss": jnp.sum(losses.mean(axis=-1) * batch["weights"]),
        "count": jnp.sum(batch["weights"]),
    }


LOSSES = {"single_label": class_losses, "multi_label": label_losses, "regression": squared_errors}


class SequenceClassificationTask(RowTask):
    """Classification of whole texts: `single_label`, `multi_label` or `regression`."""

    heads = ("sequence_classification",)
    columns = ("text", None, "label")
    is_classifier = True
    libraries = ("sklearn.metrics",)

    def make_objective(self) -> RowObjective:
        return RowObjective(LOSSES[self.problem])

    @property
    def metrics(self) -> tuple[str, ...]:
        if self.problem == "regression":
            return "pearson", "spearman"
        own = ("micro_f1", "macro_f1", "accuracy")
        return own if self.problem == "multi_label" else ("accuracy", "macro_f1", "micro_f1")

    @classmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        texts = [text_field(where, row, data.text_column, "text_column")]
        if data.pair_column is not None:
            texts.append(text_field(where, row, data.pair_column, "pair_column"))
        if not all(texts):
            return None
        label = None
        if labelled:
            value = field_of(where, row, data.label_column, "label_column")
            if problem == "multi_label" or not is_gap(value):
                label = READERS[problem](f"{where}, column {data.label_column!r},", value)
        return Item(where, tuple(texts), label)

    @classmethod
    def labels_in(cls, item: Item) -> Sequence[str]:
        if isinstance(item.label, str):
            return (item.label,)
        return item.label if isinstance(item.label, tuple) else ()

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        columns = zip(*(item.content for item in items), strict=True)
        encoded = zip(*(self.tokenizer.encode_batch(texts) for texts in columns), strict=True)
        examples = []
        for i, (item, texts) in enumerate(zip(items, encoded, strict=True)):
            joined = self.joiner.one(*texts) if len(texts) == 1 else self.joiner.two(*texts)
            self.notes["texts_cut"] += joined.cut
            row = {}
            if labelled:
                row = {"targets": self._target(item), "weights": np.float32(1)}
            examples.append(Example(self.tokens(joined.ids, joined.types), row, i))
        return examples

    def _target(self, item: Item) -> np.ndarray:
        if self.problem == "regression":
            return np.array([item.label], np.float32)
        if self.problem == "multi_label":
            hot = np.zeros(len(self.labels), np.float32)
            hot[[self.labels.index(label) for label in item.label]] = 1
            return hot
        return np.array(self.labels.index(item.label), np.int32)

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[Answer]:
        """`label` and `probability`, or `labels`, both with all `probabilities`; or `value`."""
        answers: list[dict[str, Any]] = [{}] * len(items)
        for example, logits in outputs:
            logits = np.asarray(logits, np.float64)
            if self.problem == "regression":
                answers[example.item] = {"value": float(logits[0])}
                continue
            if self.problem == "multi_label":
                chances = 1 / (1 + np.exp(-logits))
                chosen = [name for name, p in zip(self.labels, chances, strict=True) if p > 0.5]
                answer: dict[str, Any] = {"labels": chosen}
            else:
                chances = np.exp(logits - logits.max())
                chances /= chances.sum()
                best = int(chances.argmax())
                answer = {"label": self.labels[best], "probability": float(chances[best])}
            named = zip(self.labels, chances.tolist(), strict=True)
            answers[example.item] = answer | {"probabilities": dict(named)}
        return answers

    def label_pairs(
        self, items: Sequence[Item], answers: Sequence[Answer]
    ) -> tuple[list[str], list[str]] | None:
        if self.problem != "single_label":
            return None
        return [item.label for item in items], [answer["label"] for answer in answers]

    def by_class(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, Scores]:
        if self.problem != "multi_label":
            return super().by_class(items, answers)
        found = [answer["labels"] for answer in answers]
        return multi_class_scores([item.label for item in items], found, self.labels)

    def baselines(self, items: Sequence[Item]) -> dict[str, Scores]:
        if self.problem == "regression":
            return {}
        learned, several = self.rows.train, self.problem == "multi_label"
        texts, others = (["\n".join(i.content) for i in part] for part in (learned, items))
        labels = [self.labels_in(item) for item in learned]
        if not any(labels):
            return {}
        answers = baseline_answers(texts, labels, others, several)
        return {
            name: self.score_answers(
                items, [{"labels": list(row), "label": row[0] if row else ""} for row in rows]
            )
            for name, rows in answers.items()
        }

    def score_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
        truth = [item.label for item in items]
        if self.problem == "regression":
            return number_scores(truth, [answer["value"] for answer in answers])
        if self.problem == "multi_label":
            return multi_label_scores(truth, [a["labels"] for a in answers], self.labels)
        return single_label_scores(truth, [answer["label"] for answer in answers], self.labels)


def read_label(where: str, value: Any) -> str:
    if isinstance(value, list | dict):
        raise DataError(f"{where} holds {value!r}: set model.problem to multi_label for several")
    return str(as_label(value))


def read_labels(where: str, value: Any) -> tuple[str, ...]:
    """The labels in a list, or in a text separated by |; there may be none."""
    names = value if isinstance(value, list) else str(as_label(value)).split("|")
    return tuple(dict.fromkeys(str(as_label(name)) for name in names if not is_gap(name)))


def read_number(where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"{where} holds {value!r} where model.problem regression needs a number")
    return number


READERS = {"single_label": read_label, "multi_label": read_labels, "regression": read_number}
