"""A text, or a pair of texts, with one label, several, or a number."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxlm.config import DataConfig
from jaxlm.data.errors import DataError
from jaxlm.ops.losses import target_sums
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.metrics import multi_label_scores, number_scores, single_label_scores
from jaxlm.tasks.task import Outputs, Sums, Task, field_of, text_field


class SequenceTask(Task):
    """Classification of whole texts: `single_label`, `multi_label` or `regression`."""

    head = "sequence_classification"
    libraries = ("sklearn.metrics",)

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
            self.notes[f"texts longer than {self.limit} tokens, cut at their end"] += joined.cut
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

    def losses(self, outputs: Outputs, batch: Mapping[str, Array]) -> Sums:
        """Cross-entropy; of several labels the mean binary one; of numbers the squared error."""
        targets, weights = batch["targets"], batch["weights"]
        if self.problem == "single_label":
            return target_sums(outputs, targets, weights)
        if self.problem == "multi_label":
            apart = -targets * jax.nn.log_sigmoid(outputs)
            apart -= (1 - targets) * jax.nn.log_sigmoid(-outputs)
        else:
            apart = jnp.square(outputs - targets)
        return {"loss": jnp.sum(apart.mean(axis=-1) * weights), "count": jnp.sum(weights)}

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[dict[str, Any]]:
        """`label` with its `probability`; or `labels`; or the `value`; and all `probabilities`."""
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

    def score(
        self, items: Sequence[Item], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        truth = [item.label for item in items]
        if self.problem == "regression":
            return number_scores(truth, [answer["value"] for answer in answers])
        if self.problem == "multi_label":
            return multi_label_scores(truth, [a["labels"] for a in answers], self.labels)
        return single_label_scores(truth, [answer["label"] for answer in answers], self.labels)


def read_label(where: str, value: Any) -> str:
    if isinstance(value, list | dict):
        raise DataError(f"{where} holds {value!r}: set model.problem to multi_label for several")
    if str(value).strip() == "":
        raise DataError(f"{where} has no label: give one, or leave the row out")
    return str(value).strip()


def read_labels(where: str, value: Any) -> tuple[str, ...]:
    """A list, or names with | between them; no label at all is one of the cases."""
    names = value if isinstance(value, list) else str(value).split("|")
    return tuple(str(name).strip() for name in names if str(name).strip())


def read_number(where: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"{where} holds {value!r} where model.problem regression needs a number")
    return number


READERS = {"single_label": read_label, "multi_label": read_labels, "regression": read_number}
