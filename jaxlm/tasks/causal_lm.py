"""Language modelling on running text, and causal language modelling: predict the next token."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.config.schema import require
from jaxlm.data import Dataset, epochs_at, eval_batches, prepare, train_batch, witten_bell
from jaxlm.data.batches import Batch
from jaxlm.generation import generate
from jaxlm.ops.reductions import target_sums
from jaxlm.tasks.task import (
    Arrays,
    Params,
    Scores,
    Sums,
    Task,
    has_head_apart,
    head_sums,
    mean_scores,
    perplexity,
)
from jaxlm.tokenizer import SPECIAL_TOKENS

EVAL_TOKENS = 4096  # tokens in an evaluation batch, at least a training batch

# The same object for the same arguments, so that runs share compiled programs.
one_partial = lru_cache(maxsize=16)(partial)


class RunningTextTask(Task):
    """Language modelling on windows of `data.seq_len` tokens of running text."""

    needs_cls_sep: ClassVar[bool] = False  # whether its windows are between [CLS] and [SEP]

    def __init__(self, config: Config, data: Dataset):
        self.config, self.data = config, data
        self.tokenizer, self.fingerprint = data.tokenizer, data.fingerprint
        held_out = 0 if data.val is None else len(data.val)
        counts = f"{len(data.train):,} tokens to train on, {held_out:,} to validate"
        self.description = "; ".join([counts, *data.remarks])
        options = {"smoothing": config.task.label_smoothing, "z_loss": config.task.z_loss}
        if any(options.values()):
            self.objective = one_partial(self.objective, **options)
        self.eval_size = max(config.train.batch_size, EVAL_TOKENS // config.data.seq_len)

    @classmethod
    def from_config(cls, config: Config, source: Loaded | None) -> "RunningTextTask":
        specials = SPECIAL_TOKENS if special_tokens_of(cls, config) == "cls_sep" else ()
        tokenizer = None if source is None else source.tokenizer
        data = prepare(config.data, config.run.seed, tokenizer=tokenizer, specials=specials)
        return cls(config, data)

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        data = {"special_tokens": special_tokens_of(type(self), self.config)}
        if self.config.data.text_column is None:
            data["text_column"] = "text"
        return {**super().config_fields(), "data": data}

    @abstractmethod
    def eval_batches(self) -> Iterable[Batch]:
        """Batches with every target of the validation split once, the same in every call."""

    def evaluate(self, model: nn.Module, params: Params) -> Scores:
        if self.data.val is None:
            return {}
        scores = mean_scores(self.objective, model, params, self.eval_batches())
        if self.own_objective:
            return scores  # only a cross-entropy has a perplexity
        return scores | {"perplexity": perplexity(scores["loss"] - scores.get("next_loss", 0.0))}


def special_tokens_of(kind: type[RunningTextTask], config: Config) -> str:
    """The special tokens that a vocabulary trained for the task begins with.

    Raises: ConfigError where the config asks for none and the task needs them.
    """
    given = config.data.special_tokens
    require(
        given != "none" or not kind.needs_cls_sep,
        "data.special_tokens",
        f"cls_sep or null for task.name {config.task.name}",
        given,
    )
    asked = kind.needs_cls_sep or config.data.special_tokens == "cls_sep"
    return "cls_sep" if asked else "none"


BASELINE_TOKENS = 50_000_000  # skip the n-gram baselines above this many training tokens


def causal_lm(
    model: nn.Module,
    params: Params,
    batch: Arrays,
    key: Array | None = None,
    *,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Sums:
    """Next-token cross-entropy of `ids` (B, T) against `targets` (B, T), weighted by `weights`.

    `smoothing` and `z_loss` are those of `ops.reductions.cross_entropy`, in training alone.
    """
    targets = jnp.asarray(batch["targets"])
    weights = jnp.asarray(batch.get("weights", jnp.ones(targets.shape, jnp.float32)))
    options: dict[str, Any] = {"accuracy": key is None}
    if key is not None:
        options |= {"smoothing": smoothing, "z_loss": z_loss}

    def apply(method: str | None) -> Any:
        return model.apply(
            {"params": params},
            batch["ids"],
            positions=batch.get("positions"),
            segment_ids=batch.get("segment_ids"),
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
            method=method,
        )

    if has_head_apart(model):
        return head_sums(model, params, apply("hidden"), targets, weights, **options)
    return target_sums(apply(None), targets, weights, **options)


class CausalLMTask(RunningTextTask):
    """Windows of text, each token with the next as its target."""

    architecture = "decoder"
    continues_prompts = True
    objective = staticmethod(causal_lm)

    def __init__(self, config: Config, data: Dataset):
        super().__init__(config, data)
        self.step_tokens = config.train.batch_size * config.data.seq_len

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

    def eval_batches(self) -> Iterable[Batch]:
        data = self.config.data
        assert self.data.val is not None
        return eval_batches(self.data.val, self.eval_size, data.seq_len, data.mask_documents)

    def epochs_at(self, step: int) -> float:
        config = self.config
        return epochs_at(self.data.train, step, config.train.batch_size, config.data.seq_len)

    def evaluate(self, model: nn.Module, params: Params) -> Scores:
        scores, val = super().evaluate(model, params), self.data.val
        if val is not None and not self.own_objective:
            scores["bits_per_byte"] = scores["loss"] / math.log(2) * len(val) / val.num_bytes
        return scores

    def samples(self, loaded: Loaded, step: int) -> list[tuple[str, str]]:
        """The config's prompts, or else the start of a text, with their continuations."""
        sample = self.config.sample
        prompts = sample.prompts or (self._opening(),)
        texts = generate(
            loaded,
            list(prompts),
            max_new_tokens=sample.max_new_tokens,
            temperature=sample.temperature,
            top_k=sample.top_k,
            top_p=sample.top_p,
            seed=self.config.run.seed + step,
        )
        return list(zip(prompts, texts, strict=True))

    def _opening(self) -> str:
        """A prompt that starts a text: empty after a special token, else newline or first token."""
        tokenizer = self.tokenizer
        if tokenizer.bos_id is not None or tokenizer.eos_id is not None:
            return ""
        first = tokenizer.decode([int(self.data.train.tokens[0])])
        return "\n" if "\n" in tokenizer.decode(range(tokenizer.vocab_size)) else first

    def summary(self, best: Loaded) -> dict[str, Any]:
        """The losses of Witten-Bell n-grams on the validation split, in nats a token.

        `baselines` is None without validation, above BASELINE_TOKENS, or with another objective.
        """
        train, val = self.data.train, self.data.val
        if val is None or len(train) > BASELINE_TOKENS or self.own_objective:
            return {"baselines": None}
        losses = witten_bell(train.tokens, val.tokens, vocab_size=self.tokenizer.vocab_size)
        return {"baselines": {str(order): round(loss, 4) for order, loss in losses.items()}}
