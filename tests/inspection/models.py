"""Tiny models as `jaxlm.load` would give them, for tests of inspection."""

import dataclasses

import jax.numpy as jnp

from jaxlm.artifact import Loaded
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
