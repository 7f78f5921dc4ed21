"""What a run learns: the interface of every task, and the evaluation that tasks share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxlm.artifact import Loaded
from jaxlm.config import Config, JaxlmError
from jaxlm.tokenizer import Tokenizer

Params = Any
Arrays = Mapping[str, Any]  # a batch: arrays by name, on the host or on a device
Sums = dict[str, Array]
Scores = dict[str, float]
Outputs = Any  # arrays of a forward pass, or a tuple of them
# objective(model, params, batch, key) -> sums over the batch's targets: "loss" (nats), "count", and
# whatever else is to be reported as a mean. `key` is None in evaluation, which has no randomness.
Objective = Callable[[nn.Module, Params, Arrays, Array | None], Sums]


class Task(ABC):
    """What a run learns: its batches, its objective, and how a model is judged and shown.

    A batch is a function of the step alone, which is what exact resume rests on. An own task sets
    `tokenizer`, `objective` and `step_tokens` and defines `train_batch`; the rest has defaults.
    """

    architecture: ClassVar[str | None] = None  # that it trains; None: any
    heads: ClassVar[tuple[str, ...]] = ("lm",)  # that it trains; the first unless the model says
    continues_prompts: ClassVar[bool] = False  # whether a sample's text goes on from its prompt
    shown: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy")  # after an evaluation

    tokenizer: Tokenizer
    objective: Objective
    step_tokens: float  # tokens of a step, or their mean
    own_objective: bool = False  # whether the loss is another than the task's
    fingerprint: str = ""  # a hash of data and tokenizer: a run is resumed with the same only
    description: str = ""  # the data in a phrase
    best_by: str = "loss"  # the score that the best checkpoint has most of, or loss (least)

    @classmethod
    def from_config(cls, config: Config, source: Loaded | None) -> "Task":
        """The task with its data read; `source` is what `finetune.init_from` names.

        Raises JaxlmError on a mistake in the config or the data.
        """
        raise JaxlmError(f"{cls.__name__} is not made from a config: give the object to fit")

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        """What the task fills in of a config, by section and field, besides the vocabulary size."""
        return {"model": {"head": self.heads[0], "labels": (), "pooler": None}}

    @abstractmethod
    def train_batch(self, step: int) -> Mapping[str, np.ndarray]:
        """The batch of a step, counted from 0; its arrays have the rows as their first dim."""

    def epochs_at(self, step: int) -> float:
        """How many times the training data have been passed through after `step` steps."""
        return 0.0

    def evaluate(self, model: nn.Module, params: Params) -> Scores:
        """Loss and scores over the whole validation split; empty if there is none."""
        return {}

    def score(self, scores: Scores) -> float:
        """What the best checkpoint has most of, from what `evaluate` returns."""
        return -scores["loss"] if self.best_by == "loss" else scores[self.best_by]

    def told(self, scores: Mapping[str, float]) -> str:
        """The scores of an evaluation in words."""
        shown = {name: scores[name] for name in self.shown if name in scores}
        return ", ".join(f"val {name} {value:.4g}" for name, value in shown.items())

    def samples(self, loaded: Loaded, step: int) -> Sequence[tuple[str, ...]]:
        """Prompts, and what the model makes of them; third, where it is known, what is right."""
        return []

    def summary(self, best: Loaded) -> dict[str, Any]:
        """What summary.json tells besides the course of the run, of its best checkpoint."""
        return {}

    def predict(self, loaded: Loaded, texts: Sequence[Any]) -> list[dict[str, Any]]:
        """What the model answers to each text; JaxlmError for a task without answers."""
        raise JaxlmError(f"{type(self).__name__} answers no texts; see `jaxlm generate`")


@jax.jit(static_argnums=(0, 1))
def eval_step(objective: Objective, model: nn.Module, params: Params, batch: Arrays) -> Sums:
    """The objective's sums over one batch, without randomness."""
    return objective(model, params, batch, None)


def mean_scores(
    objective: Objective, model: nn.Module, params: Params, batches: Iterable[Arrays]
) -> Scores:
    """Means over every target of the batches: loss in nats, and what else the objective sums.

    Sums are added up in float64 on the host, so the batch size changes nothing that matters.
    """
    totals: dict[str, float] = {}
    pending = [eval_step(objective, model, params, batch) for batch in batches]
    for sums in jax.device_get(pending):
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    count = totals.pop("count")
    return {name: total / count for name, total in totals.items()}


def perplexity(loss: float) -> float:
    """exp(loss), kept finite for a loss that has run away."""
    return math.exp(min(loss, 700.0))


@dataclass(frozen=True)
class RowObjective:
    """The objective of a task whose losses are read off the outputs of one forward pass.

    Two with the same functions are equal, so that they share compiled programs. `inputs` are the
    arrays of a batch that the model takes besides the ids.
    """

    losses: Callable[[Outputs, Arrays], Sums]
    inputs: tuple[str, ...] = ("attention_mask", "token_type_ids")

    def __call__(
        self, model: nn.Module, params: Params, batch: Arrays, key: Array | None = None
    ) -> Sums:
        outputs = self.forward(model, params, batch, key)
        return self.losses(outputs, {name: jnp.asarray(x) for name, x in batch.items()})

    def forward(
        self, model: nn.Module, params: Params, batch: Arrays, key: Array | None
    ) -> Outputs:
        """The model's outputs for a batch, with dropout if there is a key."""
        return model.apply(
            {"params": params},
            jnp.asarray(batch["ids"]),
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
            **{name: batch[name] for name in self.inputs if name in batch},
        )


@jax.jit(static_argnums=(0, 1, 4, 5))
def row_step(
    objective: RowObjective,
    model: nn.Module,
    params: Params,
    batch: Arrays,
    labelled: bool,
    answers: bool,
) -> tuple[Sums, Outputs]:
    """Sums of the losses if there are labels, and the outputs if answers are read off them."""
    outputs = objective.forward(model, params, batch, None)
    return objective.losses(outputs, batch) if labelled else {}, outputs if answers else None
