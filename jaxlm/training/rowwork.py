"""Labelled rows or dialogues, for a task."""

import hashlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.config.building import not_among
from jaxlm.data.errors import DataError
from jaxlm.generation import Chat
from jaxlm.tasks import Task
from jaxlm.tasks.examples import Example, RowFeed
from jaxlm.tasks.measuring import measure
from jaxlm.tasks.metrics import library
from jaxlm.tasks.rowset import RowSet
from jaxlm.training.objectives import Objective, Params
from jaxlm.training.work import Row

LOSS = "loss"


class RowWork:
    """The rows of a task: encoded, in batches, and scored."""

    def __init__(self, config: Config, rows: RowSet, task: Task, objective: Objective | None):
        self.config, self.rows, self.task = config, rows, task
        self.tokenizer = task.tokenizer
        prints = f"{self.tokenizer.fingerprint} {rows.fingerprint}"
        self.fingerprint = hashlib.sha256(prints.encode()).hexdigest()[:16]
        self.objective = objective or task.objective
        self.val_size = len(rows.val)
        for name in task.libraries if rows.val or rows.test else ():
            library(name)  # told now if it is missing, not at the first evaluation
        self.metric = config.finetune.metric or (*task.metrics, LOSS)[0]
        if self.metric not in (*task.metrics, LOSS):
            raise not_among("finetune.metric", self.metric, (*task.metrics, LOSS))
        train, self.val, self.test = map(task.encode, (rows.train, rows.val, rows.test))
        for items, examples in ((rows.train, train), (rows.val, self.val), (rows.test, self.test)):
            if items and not examples:
                told = f"none of {len(items)} rows fits data.seq_len {task.limit}: raise it"
                raise DataError(told)
        if config.finetune.class_weights == "balanced":
            balance(train, len(rows.labels))
        batch_size = config.train.batch_size
        pad = self.tokenizer.pad_id or 0
        self.feed = RowFeed(train, batch_size, task.limit, pad, config.run.seed)
        self.train_batch, self.epochs_at = self.feed.train_batch, self.feed.epochs_at
        self.step_tokens = batch_size * sum(map(len, train)) / len(train)
        counts = f"{len(rows.train):,} rows to train on, {len(rows.val):,} to validate"
        counts += f", {len(rows.test):,} to test" if rows.test else ""
        shown = f" ({', '.join(rows.labels[:9])})" if rows.labels else ""
        counts += f", {len(rows.labels)} labels{shown}" if rows.labels else ""
        told = {name: n for name, n in (rows.notes + task.notes).items() if n}
        self.description = "; ".join([counts, *(f"{n:,} {name}" for name, n in told.items())])

    def measure(self, model: nn.Module, params: Params) -> Row:
        return measure(self.task, model, params, self.rows.val, self.val)[0]

    def merit(self, row: Row) -> float:
        return -row[LOSS] if self.metric == LOSS else row[self.metric]

    def samples(self, loaded: Loaded, step: int) -> list[tuple[str, str]]:
        """Replies, of a model of dialogues."""
        if self.task.head != "lm":
            return []
        sample = self.config.sample
        settings: dict[str, Any] = {"seed": self.config.run.seed + step}
        for name in ("max_new_tokens", "temperature", "top_k", "top_p"):
            settings[name] = getattr(sample, name)
        first = (self.rows.val or self.rows.train)[0]
        prompts = sample.prompts or (first.content[0],)
        return [(prompt, "".join(Chat(loaded, **settings).reply(prompt))) for prompt in prompts]

    def conclude(self, best: Loaded) -> Row:
        """The scores on the test rows, which nothing was chosen by."""
        if not self.rows.test:
            return {"metric": self.metric}
        test = measure(self.task, best.model, best.params, self.rows.test, self.test)[0]
        return {"metric": self.metric, "test": {name: round(v, 6) for name, v in test.items()}}


def balance(examples: Sequence[Example], num_classes: int) -> None:
    """Weigh targets so that every class counts as much as any other, and the mean weight is 1."""
    parts = [e.tokens if "targets" in e.tokens else e.row for e in examples]
    counts = np.zeros(num_classes)
    for part in parts:
        np.add.at(counts, part["targets"], part["weights"])
    total, present = counts.sum(), np.count_nonzero(counts)
    weights = total / present / np.maximum(counts, 1)
    for part in parts:
        part["weights"] = (part["weights"] * weights[part["targets"]]).astype(np.float32)
