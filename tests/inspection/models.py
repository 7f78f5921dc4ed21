"""Tiny models as `jaxlm.load` would give them, for tests of inspection."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.inspection import run
from jaxlm.models import make_model
from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.tiny import params_of, tiny_config

LETTERS = "abcdefghijklmnopqrs"  # as many as the vocabulary has ids


def tiny_loaded(structure: str = "learned", **overrides) -> Loaded:
    config = tiny_config(structure, **overrides)
    model = make_model(config)
    params = params_of(model, jnp.zeros((1, 1), jnp.int32))
    return Loaded(model, params, train_tokenizer("char", [LETTERS]), model.config)


def executed(loaded: Loaded, **execution) -> Loaded:
    """The same weights, run in another way."""
    config = dataclasses.replace(loaded.config, **execution)
    return dataclasses.replace(loaded, model=make_model(config), config=config)


def masked_bert() -> Loaded:
    """A tiny BERT whose vocabulary has the special tokens."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = train_tokenizer("wordpiece", ["the cat sat on a mat " * 9], 60, specials)
    sizes = {"vocab_size": tokenizer.vocab_size, "architecture": "encoder"}
    return dataclasses.replace(tiny_loaded(norm_position="post", **sizes), tokenizer=tokenizer)


def translator() -> Loaded:
    """A tiny encoder-decoder whose vocabulary has the tokens around a text."""
    letters = "abcdefghijklmnop"
    tokenizer = train_tokenizer("char", [letters], specials=["<pad>", "</s>", "<s>"])
    sizes = {"vocab_size": tokenizer.vocab_size, "max_seq_len": 16, "decoder_start_id": 2}
    loaded = tiny_loaded("rotary", architecture="encoder_decoder", **sizes)
    return dataclasses.replace(loaded, tokenizer=tokenizer)


def probabilities(loaded: Loaded, text: str, position: int = -1, **edits) -> np.ndarray:
    """What comes after a text, or stands at a position of it."""
    logits = np.asarray(run(loaded, text, **edits)[0][0, position], np.float64)
    chances = np.exp(logits - logits.max())
    return chances / chances.sum()
