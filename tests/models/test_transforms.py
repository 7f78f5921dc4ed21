"""A model is a pure function: it can be differentiated forwards and twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.losses import cross_entropy
from tests.fixtures.tiny import random_ids, random_like, tiny_model

MODEL, VARIABLES = tiny_model("rotary", num_layers=1)
IDS = random_ids(2, 5)


def loss(variables):
    return cross_entropy(MODEL.apply(variables, IDS)[:, :-1], IDS[:, 1:]).mean()


def dot(x, y):
    return sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True))


@pytest.fixture(scope="module")
def along():
    """The gradient of the loss, and its derivative along a direction."""
    gradient_along = lambda v, u: jax.jvp(jax.grad(loss), (v,), (u,))  # noqa: E731
    return jax.jit(gradient_along)


def test_forward_and_reverse_derivatives_agree(along):
    direction = random_like(VARIABLES, seed=1)
    forward = jax.jit(lambda v: jax.jvp(loss, (v,), (direction,))[1])(VARIABLES)
    gradient, _ = along(VARIABLES, direction)
    np.testing.assert_allclose(forward, dot(gradient, direction), rtol=1e-4)


def test_the_hessian_is_symmetric(along):
    u, v = random_like(VARIABLES, seed=1), random_like(VARIABLES, seed=2)
    curvature = dot(v, along(VARIABLES, u)[1])
    np.testing.assert_allclose(curvature, dot(u, along(VARIABLES, v)[1]), rtol=1e-3)
    assert abs(curvature) > 1e-3


def test_forward_and_reverse_jacobians_agree():
    params = VARIABLES["params"]

    def last_logits(scale):
        backbone = params["backbone"] | {"final_norm": {"scale": scale}}
        return MODEL.apply({"params": params | {"backbone": backbone}}, IDS)[0, -1]

    scale = params["backbone"]["final_norm"]["scale"]
    forward, reverse = jax.jit(jax.jacfwd(last_logits)), jax.jit(jax.jacrev(last_logits))
    np.testing.assert_allclose(forward(scale), reverse(scale), atol=1e-5)
