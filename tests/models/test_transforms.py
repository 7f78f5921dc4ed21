"""A model is a pure function: it is differentiated forwards and twice, its attention swapped."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.generation.prefill import extend
from jaxlm.models import CausalLM, make_model
from jaxlm.nn.block import init_cache
from jaxlm.ops.attention import AttentionFunction, attention, causal_mask
from jaxlm.ops.reductions import cross_entropy
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training.state import init_state, train_step
from tests.fixtures.tiny import params_of, random_ids, random_like, tiny_config, tiny_model

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


def most_operands(num_layers):
    """The largest number of arrays that one loop of the compiled gradient reads."""
    model, variables = tiny_model(num_layers=num_layers)
    gradient = jax.jit(jax.grad(lambda v: cross_entropy(model.apply(v, IDS), IDS).mean()))
    program = gradient.lower(variables).compile().as_text()
    loops = re.findall(r" fusion\((.*?)\), kind=kLoop", program)
    return max(operands.count("%") for operands in loops)


def test_no_layer_adds_up_the_gradients_of_all_later_ones_again():
    assert most_operands(5) == most_operands(2)


def test_forward_and_reverse_jacobians_agree():
    params = VARIABLES["params"]

    def last_logits(scale):
        backbone = params["backbone"] | {"final_norm": {"scale": scale}}
        return MODEL.apply({"params": params | {"backbone": backbone}}, IDS)[0, -1]

    scale = params["backbone"]["final_norm"]["scale"]
    forward, reverse = jax.jit(jax.jacfwd(last_logits)), jax.jit(jax.jacrev(last_logits))
    np.testing.assert_allclose(forward(scale), reverse(scale), atol=1e-5)


def two_tokens(query, key, value, mask=None, *, causal=False, **rest):
    """Attention to the token itself and the one before."""
    T = query.shape[-2]
    near = (causal_mask(T, T) & ~causal_mask(T, T, -2))[None]
    return attention(query, key, value, near if mask is None else mask & near, **rest)


def test_a_model_attends_by_a_function_of_ones_own_and_learns_with_it():
    model = CausalLM(tiny_config(num_layers=1), attention=two_tokens)
    state = init_state(model, optax.adam(0.01), causal_lm, jax.random.key(0))

    def logits(embeddings):
        tap = lambda name, x: embeddings if name == "embeddings" else x  # noqa: E731
        return model.apply({"params": state.params}, random_ids(1, 5), tap=tap)[0].sum(-1)

    jacobian = jax.jacrev(logits)(jax.random.normal(jax.random.key(1), (1, 5, 16)))[:, 0]
    near = np.tri(5, dtype=bool) & ~np.tri(5, k=-2, dtype=bool)
    np.testing.assert_array_equal((jacobian != 0).any(-1), near)
    step, batch, losses = jax.jit(train_step), {"ids": IDS, "targets": (IDS + 1) % 19}, []
    for _ in range(10):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    assert losses[-1] < losses[0] - 0.5


def counted(calls: list) -> AttentionFunction:
    """Attention that adds to the calls."""

    def count(*inputs, **keywords):
        calls.append(1)
        return attention(*inputs, **keywords)

    return count


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"scan_layers": True},
        {"remat": "full"},
        {"head": "pretraining", "architecture": "encoder"},
        {"head": "none"},
        {"head": "sequence_classification", "labels": ("a", "b")},
        {"head": "token_classification", "labels": ("a", "b"), "architecture": "encoder"},
        {"head": "question_answering", "architecture": "encoder"},
    ],
)
def test_every_model_hands_its_attention_down_to_each_block(overrides):
    calls = []
    model = make_model(tiny_config(**overrides)).clone(attention=counted(calls))
    params = params_of(model, IDS)
    calls.clear()
    jax.eval_shape(model.apply, {"params": params}, IDS)
    once = "scan_layers" in overrides or "remat" in overrides  # both blocks are traced as one
    assert len(calls) == (1 if once else 2)


def test_a_step_of_decoding_is_traced_for_one_layer_alone():
    calls = []
    model = make_model(tiny_config(num_layers=5)).clone(attention=counted(calls))
    params, cache = params_of(model, IDS), init_cache(model.config, len(IDS), 4)
    calls.clear()
    for _ in range(2):  # nor again, where no program is compiled around it
        _, longer = jax.eval_shape(partial(extend, model), params, IDS[:, :1], cache)
    assert len(calls) == 1
    assert len(longer.layers) == 5
