"""Dense, Norm, embeddings and the feed-forward compute their formulas."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import ConfigError
from jaxlm.nn.int8 import Int8Matrix, matmul, matmul_from_heads, matmul_to_heads
from jaxlm.nn.layers import ACTIVATIONS, Dense, Embeddings, FeedForward, Norm, kernel_init
from jaxlm.ops.reductions import layer_norm, rms_norm
from tests.fixtures.tiny import params_of, random_ids, tiny_config


def random_input(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
        (
            "gelu_tanh",
            lambda x: x / 2 * (1 + math.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
        ),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("relu", lambda x: max(x, 0)),
        ("relu_squared", lambda x: max(x, 0) ** 2),
    ],
)
def test_activations_equal_their_formulas(name, formula):
    x = np.linspace(-4, 4, 17)
    expected = [formula(value) for value in x]
    out = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(out, expected, atol=1e-6)


written_out = pytest.mark.parametrize(
    ("name", "formula"),
    [("gelu_tanh", lambda x: nn.gelu(x, approximate=True)), ("silu", nn.silu)],
)


@written_out
def test_derivatives_that_are_written_out_are_those_of_the_formula(name, formula):
    x, derived = jnp.linspace(-20, 20, 401), ACTIVATIONS[name]
    for tolerance in (5e-6, 5e-5):  # the first and the second; fp32 is no nearer to the truth
        derived, formula = jax.grad(derived), jax.grad(formula)
        np.testing.assert_allclose(jax.vmap(derived)(x), jax.vmap(formula)(x), atol=tolerance)


@written_out
def test_nothing_but_its_input_is_kept_for_the_derivative_of_an_activation(name, formula):
    rows, width, hidden, layers = 256, 16, 128, 6

    def memory(activation):
        def loss(kernels, x):
            for up, down in kernels:
                x = x + activation(x @ up) @ down
            return x.sum()

        x, up, down = map(jnp.zeros, ((rows, width), (width, hidden), (hidden, width)))
        compiled = jax.jit(jax.grad(loss)).lower([(up, down)] * layers, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    of_hidden = 4 * rows * hidden  # bytes
    assert memory(ACTIVATIONS[name]) <= memory(formula) - (layers - 1) * of_hidden


@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_is_an_affine_map_of_the_last_dim(use_bias):
    x, module = random_input(2, 3, 4), Dense(tiny_config(), 5, use_bias)
    params = params_of(module, x)
    assert set(params) == ({"kernel", "bias"} if use_bias else {"kernel"})
    expected = np.asarray(x) @ np.asarray(params["kernel"]) + np.asarray(params.get("bias", 0.0))
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, atol=1e-6)


@pytest.mark.parametrize("held", ["floats", "int8", "adapted"])
@pytest.mark.parametrize("heads", ["in", "out"])
def test_dense_in_heads_is_the_same_map(heads, held):
    plain, apart = Dense(tiny_config(), 24, True), Dense(tiny_config(), 24, True, heads=heads)
    x = random_input(2, 3, 24)
    params = params_of(plain, x)
    if held == "adapted":
        params |= {"lora_a": random_input(24, 2), "lora_b": random_input(2, 24), "lora_scale": 0.5}
    if held == "int8":
        params["kernel"] = Int8Matrix.of(params["kernel"].T)

    def in_heads(y):
        return y.reshape(2, 3, 4, 6).swapaxes(1, 2)  # of four heads of six

    y = plain.apply({"params": params}, x)
    out = apart.apply({"params": params}, in_heads(x) if heads == "in" else x)
    np.testing.assert_allclose(out, in_heads(y) if heads == "out" else y, atol=1e-5)


def test_dense_computes_in_bfloat16_with_float32_params():
    x, module = random_input(2, 4), Dense(tiny_config(compute_dtype="bfloat16"), 5, True)
    params = params_of(module, x)
    assert params["kernel"].dtype == jnp.float32
    assert module.apply({"params": params}, x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("overrides", "has_bias"),
    [({}, True), ({"bias": False}, False), ({"norm": "rmsnorm"}, False)],
)
def test_norm_follows_the_config(overrides, has_bias):
    config, x = tiny_config(norm_eps=0.1, **overrides), random_input(3, 8)
    params = params_of(Norm(config), x)
    assert set(params) == ({"scale", "bias"} if has_bias else {"scale"})
    if config.norm == "rmsnorm":
        expected = rms_norm(x, params["scale"], 0.1)
    else:
        expected = layer_norm(x, params["scale"], params.get("bias"), 0.1)
    np.testing.assert_allclose(Norm(config).apply({"params": params}, x), expected, atol=1e-6)


@pytest.mark.parametrize("gated", [True, False])
def test_the_feed_forward_gates_what_it_activates(gated):
    config = tiny_config(gated=gated, activation="relu")
    x, module = random_input(2, 3, 16), FeedForward(config)
    params = params_of(module, x)

    def dense(y, name):
        return np.asarray(y) @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])

    hidden = dense(x, "up")
    hidden = np.maximum(dense(x, "gate"), 0) * hidden if gated else np.maximum(hidden, 0)
    out = module.apply({"params": params}, x)
    np.testing.assert_allclose(out, dense(hidden, "down"), atol=1e-5)


def test_embeddings_add_position_vectors():
    ids, positions = random_ids(2, 3), jnp.array([[0, 1, 2], [5, 3, 4]])
    learned = Embeddings(tiny_config())
    params = params_of(learned, ids, positions, None, True)
    out = learned.apply({"params": params}, ids, positions, None, True)
    expected = np.asarray(params["tokens"])[ids] + np.asarray(params["positions"])[positions]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    for kind in ("rotary", "none"):
        bare = Embeddings(tiny_config(positions=kind))
        out = bare.apply({"params": {"tokens": params["tokens"]}}, ids, positions, None, True)
        np.testing.assert_array_equal(out, params["tokens"][ids])


def test_embeddings_add_token_types_skip_an_offset_and_are_normalised():
    ids, positions, types = random_ids(2, 3), jnp.array([[0, 1, 2]]), jnp.array([[0, 1, 1]] * 2)
    config = tiny_config(num_token_types=2, position_offset=3, embed_norm=True)
    params = params_of(Embeddings(config), ids, positions, types, True)
    assert params["positions"].shape == (config.max_seq_len + 3, config.d_model)
    tokens, places, kinds = (np.asarray(params[n]) for n in ("tokens", "positions", "types"))
    total = jnp.asarray(tokens[ids] + places[positions + 3] + kinds[types])
    norm = params["norm"]
    expected = layer_norm(total, norm["scale"], norm["bias"], config.norm_eps)
    apply = lambda types: Embeddings(config).apply(  # noqa: E731
        {"params": params}, ids, positions, types, True
    )
    np.testing.assert_allclose(apply(types), expected, atol=1e-6)
    np.testing.assert_allclose(apply(None), apply(jnp.zeros_like(types)), atol=1e-6)


def test_token_types_that_the_model_does_not_have_are_refused():
    ids, positions = random_ids(1, 2), jnp.array([[0, 1]])
    params = params_of(Embeddings(tiny_config()), ids, positions, None, True)
    with pytest.raises(ConfigError, match="num_token_types is 0"):
        Embeddings(tiny_config()).apply({"params": params}, ids, positions, ids, True)


def test_initial_weights_are_wider_in_narrow_models_and_smaller_in_residual_outputs():
    key, shape, config = jax.random.key(0), (64, 512), tiny_config(d_model=768 // 4, num_layers=8)
    assert kernel_init(config)(key, shape).std() == pytest.approx(0.04, rel=0.02)
    assert kernel_init(config, residual=True)(key, shape).std() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_heads_in_a_product_are_parts_of_its_width(dtype):
    B, T, N, H = 2, 3, 4, 5
    x, kernel = random_input(B, T, 7).astype(dtype), random_input(7, N * H).astype(dtype)
    heads = matmul_to_heads(x, kernel, jnp.float32, head_dim=H)
    flat = matmul(x, kernel, jnp.float32)
    for n in range(N):
        np.testing.assert_allclose(
            heads[:, n], flat[..., n * H : (n + 1) * H], rtol=1e-5, atol=1e-5
        )
    back = matmul_from_heads(heads.astype(dtype), kernel.T, jnp.float32)
    np.testing.assert_allclose(
        back, matmul(flat.astype(dtype), kernel.T, jnp.float32), rtol=1e-5, atol=1e-5
    )
