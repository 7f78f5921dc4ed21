"""A sampling rule of one's own is compiled into the loop and comes before all others."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.generation import generate_tokens
from tests.fixtures.tiny import tiny_model


def one_higher(logits, context):
    """After each token only the next of the vocabulary of 19, the first after the last."""
    newest = jnp.take_along_axis(context.tokens, context.lengths[:, None] - 1, axis=1)
    return jnp.where(jnp.arange(logits.shape[1]) == (newest + 1) % 19, logits, -jnp.inf)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_rule_decides_what_comes_next(temperature):
    model, variables = tiny_model("rotary")
    out = generate_tokens(
        model,
        variables["params"],
        np.array([[3, 16], [7, 9]]),
        max_new_tokens=4,
        temperature=temperature,
        rule=one_higher,
    )
    assert out.tolist() == [[17, 18, 0, 1], [10, 11, 12, 13]]
