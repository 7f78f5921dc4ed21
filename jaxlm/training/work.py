"""What a run works on: where its batches come from, what it is measured on and reports."""

import math
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.data import Dataset, make_feed, witten_bell
from jaxlm.data.batches import Batch
from jaxlm.tokenizer import Tokenizer
from jaxlm.training.metrics import evaluate, perplexity
from jaxlm.training.objectives import OBJECTIVES, Objective, Params
from jaxlm.training.samples import write_texts

BASELINE_TOKENS = 50_000_000  # n-grams of more tokens than this take too long to be a courtesy

Row = dict[str, Any]


@runtime_checkable
class Work(Protocol):
    """One kind of training data with all that depends on the kind.

    `fingerprint` is a hash of data and tokenizer, `step_tokens` the tokens of a step (their mean),
    `val_size` how much there is to validate on.
    """

    tokenizer: Tokenizer
    fingerprint: str
    objective: Objective
    step_tokens: float
    val_size: int
    description: str

    def train_batch(self, step: int) -> Batch: ...
    def epochs_at(self, step: int) -> float: ...

    def measure(self, model: nn.Module, params: Params) -> Row:
        """Losses and scores over the whole validation split."""
        ...

    def merit(self, row: Row) -> float:
        """What the best checkpoint has most of, from a row of validation."""
        ...

    def samples(self, loaded: Loaded, step: int) -> list[tuple[str, str]]:
        """Prompts, and what the model makes of them."""
        ...

    def conclude(self, best: Loaded) -> Row:
        """What the summary holds besides the course of the run."""
        ...


class TextWork:
    """Running text, for a language model."""

    def __init__(self, config: Config, data: Dataset, objective: Objective | None):
        self.config, self.data, self.tokenizer = config, data, data.tokenizer
        self.fingerprint = data.fingerprint
        self.objective = objective or OBJECTIVES[config.objective.name]
        self.feed = make_feed(config, data)
        self.train_batch, self.epochs_at = self.feed.train_batch, self.feed.epochs_at
        self.step_tokens = self.feed.step_tokens
        self.val_size = 0 if data.val is None else len(data.val)
        self.description = f"{len(data.train):,} tokens to train on, {self.val_size:,} to validate"

    def measure(self, model: nn.Module, params: Params) -> Row:
        val = self.data.val
        assert val is not None
        row: Row = evaluate(self.objective, model, params, self.feed.eval_batches())
        row["perplexity"] = perplexity(row["loss"] - row.get("next_loss", 0.0))
        if self.config.objective.name == "clm":
            row["bits_per_byte"] = row["loss"] / math.log(2) * len(val) / val.num_bytes
        return row

    def merit(self, row: Row) -> float:
        return -row["loss"]

    def samples(self, loaded: Loaded, step: int) -> list[tuple[str, str]]:
        return write_texts(loaded, self.config, self.data, step)

    def conclude(self, best: Loaded) -> Row:
        return {"baselines": self._baselines()}

    def _baselines(self) -> dict[str, float] | None:
        """Witten-Bell n-grams on the same split, in nats a token: what a table would reach."""
        train, val = self.data.train, self.data.val
        if val is None or self.config.objective.name != "clm" or len(train) > BASELINE_TOKENS:
            return None
        size = self.data.tokenizer.vocab_size
        losses = witten_bell(train.tokens, val.tokens, vocab_size=size)
        return {str(order): round(loss, 4) for order, loss in losses.items()}
