"""How well a language model predicts a text that it did not learn from."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.config import Config, DataConfig, JaxlmError, ObjectiveConfig, TrainConfig
from jaxlm.data import TokenStore, prepare
from jaxlm.data.dataset import Dataset
from jaxlm.data.masking import Vocabulary
from jaxlm.data.windows import DocumentWindows
from jaxlm.ops.losses import cross_entropy
from jaxlm.training.metrics import perplexity
from jaxlm.training.work import TextWork

PSEUDO_TOKENS = 2000  # that are hidden one by one, each in a pass of its own
ROWS = 32


def evaluate_text(
    loaded: Loaded,
    source: str,
    text_column: str = "text",
    pseudo_tokens: int = PSEUDO_TOKENS,
    max_documents: int | None = None,
) -> dict[str, float]:
    """Losses in nats a token over a text: `loss`, `perplexity` and what else validation reports.

    A masked language model also gets its pseudo-perplexity (Salazar et al. 2020) over about
    `pseudo_tokens` tokens from all over the text. JaxlmError for a model with another head.
    """
    config = loaded.config
    if config.head not in ("lm", "pretraining"):
        raise JaxlmError(f"a model with the head {config.head} does not predict text")
    seq_len = min(config.max_seq_len, 512)
    masked = config.architecture == "encoder"
    data = DataConfig(
        source=source,
        text_column=text_column,
        val_fraction=0.0,
        seq_len=seq_len,
        max_documents=max_documents,
    )
    settings = Config(
        model=config,
        data=data,
        objective=ObjectiveConfig(name="mlm" if masked else "clm"),
        train=TrainConfig(batch_size=8),
    )
    stores = prepare(data, tokenizer=loaded.tokenizer)
    # The whole text is held out: the model has not seen it here.
    held_out = Dataset(stores.tokenizer, stores.train, stores.train, stores.fingerprint)
    row = TextWork(settings, held_out, None).measure(loaded.model, loaded.params)
    row["tokens"] = len(stores.train)
    if masked:
        losses = pseudo_losses(loaded, stores.train, seq_len, pseudo_tokens)
        row["pseudo_perplexity"] = perplexity(float(np.mean(losses)))
        row["pseudo_tokens"] = len(losses)
    return row


def pseudo_losses(
    loaded: Loaded, store: TokenStore, seq_len: int, most: int
) -> Float[np.ndarray, " n"]:
    """The loss of each token when it alone is hidden, in windows of documents all over the store.

    Special tokens are not hidden.
    """
    tokenizer = loaded.tokenizer
    special, mask_id = Vocabulary.of(tokenizer).special, tokenizer.mask_id or 0
    windows = DocumentWindows(store, seq_len - 2, 1, 0, special, smallest=1)
    count = max(1, min(len(windows.starts), round(most / windows.mean_size)))
    chosen = np.linspace(0, len(windows.starts) - 1, count).astype(int)
    losses = []
    for window in windows.cut(chosen):
        ids = np.array([tokenizer.cls_id, *window.tokens, tokenizer.sep_id], np.int32)
        places = np.flatnonzero(~special[ids])
        for first in range(0, len(places), ROWS):
            chosen = np.resize(places[first : first + ROWS], ROWS)
            rows = np.tile(ids, (ROWS, 1))
            rows[np.arange(ROWS), chosen] = mask_id
            found = np.asarray(hidden_losses(loaded.model, loaded.params, rows, chosen, ids))
            losses.append(found[: len(places[first : first + ROWS])])
    return np.concatenate(losses)


@jax.jit(static_argnums=0)
def hidden_losses(model, params, rows: Array, places: Array, ids: Array) -> Float[Array, " B"]:
    """The loss of the token at one place of each row."""
    hidden = model.apply({"params": params}, rows, method="hidden")
    chosen = jnp.take_along_axis(hidden, places[:, None, None], axis=1)
    logits = model.apply({"params": params}, chosen, method="head")[:, 0]
    return cross_entropy(logits, ids[places])
