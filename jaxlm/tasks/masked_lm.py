"""Masked language modelling: predict hidden tokens from both sides (Devlin et al. 2018)."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.config.schema import require
from jaxlm.data import Dataset, TokenStore
from jaxlm.data.batches import Batch
from jaxlm.data.masked_batches import DocumentWindows, MaskedBatches
from jaxlm.data.masking import MaskingVocabulary
from jaxlm.generation import fill
from jaxlm.ops.reductions import cross_entropy
from jaxlm.tasks.causal_lm import RunningTextTask
from jaxlm.tasks.task import Arrays, Params, Sums, head_sums

PSEUDO_ROWS = 32  # copies of a window in a batch, each with another token hidden


def masked_lm(
    model: nn.Module,
    params: Params,
    batch: Arrays,
    key: Array | None = None,
    *,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Sums:
    """Cross-entropy of the tokens hidden at `places` (B, P); logits are computed there only.

    With `next_sentence` (B,) in the batch, its mean cross-entropy is added to the mean of the rest
    (Devlin et al. 2018). `smoothing` and `z_loss` are as for `causal_lm`.
    """

    def apply(*inputs: Array, method: str, **keywords: Any) -> Array:
        return model.apply({"params": params}, *inputs, method=method, **keywords)  # pyright: ignore

    hidden = apply(
        jnp.asarray(batch["ids"]),
        method="hidden",
        attention_mask=batch.get("attention_mask"),
        token_type_ids=batch.get("token_type_ids"),
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key},
    )
    chosen = jnp.take_along_axis(hidden, jnp.asarray(batch["places"])[:, :, None], axis=1)
    targets, weights = jnp.asarray(batch["targets"]), jnp.asarray(batch["weights"])
    options = {"accuracy": key is None}
    if key is not None:
        options |= {"smoothing": smoothing, "z_loss": z_loss}
    sums = head_sums(model, params, chosen, targets, weights, **options)
    if "next_sentence" in batch:
        answers = jnp.asarray(batch["next_sentence"])
        guess = apply(hidden, method="next_sentence")
        # Weighted so that dividing by the count of tokens gives the mean over rows, without
        # padding rows.
        shown = jnp.max(weights, axis=1)
        shown *= sums["count"] / jnp.maximum(shown.sum(), 1)
        sums["next_loss"] = (cross_entropy(guess, answers) * shown).sum()
        sums["next_accuracy"] = ((jnp.argmax(guess, axis=-1) == answers) * shown).sum()
        sums["loss"] += sums["next_loss"]
    return sums


class MaskedLMTask(RunningTextTask):
    """Windows between [CLS] and [SEP], or pairs of sentences, with hidden tokens."""

    architecture = "encoder"
    heads = ("lm", "pretraining")
    needs_cls_sep = True
    objective = staticmethod(masked_lm)

    def __init__(self, config: Config, data: Dataset):
        super().__init__(config, data)
        self._check_prompts()
        pairs = config.model.head == "pretraining"
        self.batches = MaskedBatches(config, data.train, data.tokenizer, pairs)
        self.step_tokens = self.batches.step_tokens

    @classmethod
    def from_config(cls, config: Config, source: Loaded | None) -> "RunningTextTask":
        if source is not None and source.config.head == "pretraining":
            # Go on training both heads of the source.
            config = config.replace({"model": {"head": "pretraining"}})
        return super().from_config(config, source)

    def config_fields(self) -> Mapping[str, Mapping[str, Any]]:
        fields, head = super().config_fields(), self.config.model.head
        return {**fields, "model": {**fields["model"], "head": head or "lm"}}

    def _check_prompts(self) -> None:
        """Raise ConfigError for a prompt without a mask token."""
        sample = self.config.sample
        for prompt in (sample.prompts or ()) if sample.every else ():
            mask = self.tokenizer.special_token("mask_token")
            require(str(mask) in prompt, "each of sample.prompts", f"a text with a {mask}", prompt)

    def train_batch(self, step: int) -> Batch:
        return self.batches.train_batch(step)

    def epochs_at(self, step: int) -> float:
        return self.batches.epochs_at(step)

    def eval_batches(self) -> Iterable[Batch]:
        assert self.data.val is not None
        return self.batches.of_split(self.data.val).eval_batches(self.eval_size)

    def samples(self, loaded: Loaded, step: int) -> list[tuple[str, str]]:
        """The config's prompts, or else some text with a masked token, and the texts filled in."""
        prompts = self.config.sample.prompts or (self._cloze(),)
        texts = [filled.text for filled in fill(loaded, list(prompts))]
        return list(zip(prompts, texts, strict=True))

    def _cloze(self) -> str:
        """The first tokens of the validation text, with the middle one masked."""
        store = self.data.val or self.data.train
        ids = store.tokens[: self.config.data.seq_len // 2].tolist()
        middle, decode = len(ids) // 2, self.tokenizer.decode
        mask = self.tokenizer.special_token("mask_token")
        return f"{decode(ids[:middle])}{mask}{decode(ids[middle + 1 :])}"


def pseudo_losses(
    loaded: Loaded, store: TokenStore, seq_len: int, most: int
) -> Float[np.ndarray, " n"]:
    """The loss of about `most` tokens, each hidden alone, in windows spread evenly over a store.

    Their mean is the logarithm of the pseudo-perplexity (Salazar et al. 2020). A window holds
    tokens of one document; special tokens are not hidden.
    """
    tokenizer = loaded.tokenizer
    special, mask_id = MaskingVocabulary.of(tokenizer).special, tokenizer.mask_id or 0
    windows = DocumentWindows(store, seq_len - 2, 1, 0, special, smallest=1)
    count = max(1, min(len(windows.starts), round(most / windows.mean_size)))
    chosen = np.linspace(0, len(windows.starts) - 1, count).astype(int)
    losses = []
    for window in windows.cut(chosen):
        ids = np.array([tokenizer.cls_id, *window.tokens, tokenizer.sep_id], np.int32)
        places = np.flatnonzero(~special[ids])
        for first in range(0, len(places), PSEUDO_ROWS):
            chosen = np.resize(places[first : first + PSEUDO_ROWS], PSEUDO_ROWS)
            rows = np.tile(ids, (PSEUDO_ROWS, 1))
            rows[np.arange(PSEUDO_ROWS), chosen] = mask_id
            found = np.asarray(hidden_losses(loaded.model, loaded.params, rows, chosen, ids))
            losses.append(found[: len(places[first : first + PSEUDO_ROWS])])
    return np.concatenate(losses)


@jax.jit(static_argnums=0)
def hidden_losses(model, params, rows: Array, places: Array, ids: Array) -> Float[Array, " B"]:
    """The loss of the token at one position of each row."""
    hidden = model.apply({"params": params}, rows, method="hidden")
    chosen = jnp.take_along_axis(hidden, places[:, None, None], axis=1)
    logits = model.apply({"params": params}, chosen, method="head")[:, 0]
    return cross_entropy(logits, ids[places])
