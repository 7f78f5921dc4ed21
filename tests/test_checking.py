"""The shapes in jaxlm's annotations are checked while the tests run."""

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from jaxlm.ops.reductions import rms_norm
from tests.checking import modules_with_shapes


def test_arrays_whose_shapes_do_not_fit_are_refused():
    with pytest.raises(TypeCheckError, match="rms_norm"):
        rms_norm(jnp.ones((2, 3)), jnp.ones(4), 1e-6)


def test_modules_with_shapes_are_found():
    assert {"jaxlm.nn.block", "jaxlm.training.state"} <= set(modules_with_shapes())
