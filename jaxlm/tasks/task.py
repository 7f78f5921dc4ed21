"""The interface of every task, and the evaluation that tasks share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.config import Config, JaxlmError
from jaxlm.models import CausalLM, Seq2SeqLM
from jaxlm.ops.chunked_loss import chunked_target_sums, loss_chunk
from jaxlm.ops.reductions import target_sums
from jaxlm.parallel import divided_activations, everywhere, mesh_of, place_rows
from jaxlm.tokenizer import Tokenizer

Params = Any
Arrays = Mapping[str, Any]  # a batch: arrays by name, on the host or on a device
Sums = dict[str, Array]
Scores = dict[str, float]
Outputs = Any  # arrays of a forward pass, or a tuple of them
# objective(model, params, batch, key) -> sums over the targets of a batch: "loss" (nats), "count",
# and others to be reported as means. `key` is None in evaluation, which is not random.
Objective = Callable[[nn.Module, Params, Arrays, Array | None], Sums]


class Task(ABC):
    """What a run learns: its batches, its objective, its evaluation and its samples.

    A batch is a function of the step only, so that a run resumes exactly. A task of your own sets
    `tokenizer`, `objective` and `step_tokens` and defines `train_batch`; the rest has defaults.
    """

    architecture: ClassVar[str | None] = None  # of the models it trains; None: any
    heads: ClassVar[tuple[str, ...]] = ("lm",)  # that it can train; the first is the default
    continues_prompts: ClassVar[bool] = False  # whether a sample's text continues its prompt
    shown: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy")  # scores to print

    tokenizer: Tokenizer
    objective: Objective
    step_tokens: float  # tokens in a step, on average
    own_objective: bool = False  # whether `fit` was given another objective than the task's
    fingerprint: str = ""  # a hash of data and tokenizer, which must be the same on resuming
    description: str = ""  # of the data, for the first line printed
    best_by: str = "loss"  # the score that selects the best checkpoint: highest, but lowest loss

    @classmethod
    def from_config(cls, config: Config, source: Loaded | None) -> "Task":
        """The task with its data read; `source` is the model of `finetune.init_from`, if any.

        Raises: JaxlmError for a mistake in the config or the data.
        """
        raise JaxlmError(f"{cls.__name__} is not made from a config; give a task object to fit")

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        """The config fields that the task fills in, by section, besides the vocabulary size."""
        return {"model": {"head": self.heads[0], "labels": (), "pooler": None}}

    @abstractmethod
    def train_batch(self, step: int) -> Mapping[str, np.ndarray]:
        """The batch of a step, counted from 0; the first dim of its arrays is the batch.

        In training it is called by a thread of its own, a few steps ahead.
        """

    def epochs_at(self, step: int) -> float:
        """Passes over the training data after `step` steps."""
        return 0.0

    def evaluate(self, model: nn.Module, params: Params) -> Scores:
        """Loss and scores over the whole validation split; empty without one."""
        return {}

    def score(self, scores: Scores) -> float:
        """The value that is highest at the best checkpoint, from the scores of `evaluate`."""
        return -scores["loss"] if self.best_by == "loss" else scores[self.best_by]

    def told(self, scores: Mapping[str, float]) -> str:
        """The scores of an evaluation in words."""
        shown = {name: scores[name] for name in self.shown if name in scores}
        return ", ".join(f"val {name} {value:.4g}" for name, value in shown.items())

    def samples(self, loaded: Loaded, step: int) -> Sequence[tuple[str, ...]]:
        """Prompts, the text that the model makes from each, and third, if known, the right one."""
        return []

    def summary(self, best: Loaded) -> dict[str, Any]:
        """What the task adds to summary.json, measured on the best checkpoint."""
        return {}

    def predict(self, loaded: Loaded, texts: Sequence[Any]) -> list[dict[str, Any]]:
        """The model's answer to each text.

        Raises: JaxlmError for a task that gives no answers.
        """
        raise JaxlmError(f"{type(self).__name__} gives no answers to texts; see `jaxlm generate`")


@jax.jit(static_argnums=(0, 1, 4))
def eval_step(
    objective: Objective, model: nn.Module, params: Params, batch: Arrays, mesh: Mesh | None = None
) -> Sums:
    """The objective's sums over one batch, without randomness."""
    with divided_activations(mesh):
        return objective(model, params, batch, None)


def mean_scores(
    objective: Objective, model: nn.Module, params: Params, batches: Iterable[Arrays]
) -> Scores:
    """Means over all targets of the batches: loss in nats, and whatever else the objective sums.

    Added up in float64 on the host, so that the result barely depends on the batch size.
    """
    totals: dict[str, float] = {}
    mesh = mesh_of(params)
    pending = [
        eval_step(objective, model, params, place_rows(batch, mesh), mesh) for batch in batches
    ]
    for sums in jax.device_get(pending):
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    count = totals.pop("count")
    return {name: total / count for name, total in totals.items()}


def has_head_apart(model: nn.Module) -> bool:
    """Whether a model's logits are its `head` of its `hidden` states, as in jaxlm's own.

    A model of the user's may make its logits in another way.
    """
    return type(model).__call__ in (CausalLM.__call__, Seq2SeqLM.__call__)


def head_sums(
    model: Any,
    params: Params,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    **options: Any,
) -> Sums:
    """`target_sums` of what the model's head makes of hidden states, in chunks if `loss_chunk`."""

    def head(hidden: Float[Array, "B C D"]) -> Float[Array, "B C V"]:
        return model.apply({"params": params}, hidden, method="head")

    config = model.config
    B, T = targets.shape
    chunk = loss_chunk(B, T, config.vocab_size, config.loss_chunk)
    if chunk is None:
        return target_sums(head(hidden), targets, weights, **options)
    return chunked_target_sums(head, hidden, targets, weights, chunk, **options)


def perplexity(loss: float) -> float:
    """exp(loss), kept finite when a loss has diverged."""
    return math.exp(min(loss, 700.0))


@dataclass(frozen=True)
class RowObjective:
    """The objective of a task whose losses are a function of the outputs of one forward pass.

    Objectives with the same functions are equal and so share compiled programs. `inputs` are the
    arrays in a batch that the model takes besides the ids. `of_head`: the losses are the
    `target_sums` of logits, which may then be computed in chunks.
    """

    losses: Callable[[Outputs, Arrays], Sums]
    inputs: tuple[str, ...] = ("attention_mask", "token_type_ids")
    of_head: bool = False

    def __call__(
        self, model: nn.Module, params: Params, batch: Arrays, key: Array | None = None
    ) -> Sums:
        batch = {name: jnp.asarray(x) for name, x in batch.items()}
        if not self.of_head:
            return self.losses(self.forward(model, params, batch, key), batch)
        targets, weights, options = batch["targets"], batch["weights"], self.options(key)
        if has_head_apart(model):
            hidden = self.forward(model, params, batch, key, "hidden")
            return head_sums(model, params, hidden, targets, weights, **options)
        return target_sums(self.forward(model, params, batch, key), targets, weights, **options)

    def options(self, key: Array | None) -> dict[str, Any]:
        """Those of `target_sums`, in training with a key."""
        return {}

    def forward(
        self,
        model: nn.Module,
        params: Params,
        batch: Arrays,
        key: Array | None,
        method: str | None = None,
    ) -> Outputs:
        """The model's outputs for a batch, with dropout if a key is given."""
        return model.apply(
            {"params": params},
            jnp.asarray(batch["ids"]),
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
            method=method,
            **{name: batch[name] for name in self.inputs if name in batch},
        )


@jax.jit(static_argnums=(0, 1, 4, 5, 6))
def row_step(
    objective: RowObjective,
    model: nn.Module,
    params: Params,
    batch: Arrays,
    labelled: bool,
    answers: bool,
    mesh: Mesh | None = None,
) -> tuple[Sums, Outputs]:
    """Sums of the losses if `labelled`, and the outputs if `answers` are computed from them."""
    with divided_activations(mesh):
        outputs = objective.forward(model, params, batch, None)
    sums = objective.losses(outputs, batch) if labelled else {}
    return sums, everywhere(outputs, mesh) if answers else None
