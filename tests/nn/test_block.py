"""The one Block: where its norms stand, what attends to what, and what its taps see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.nn.block import Attention, Block, source_keys
from jaxlm.nn.layers import FeedForward, Norm
from tests.fixtures.tiny import params_of, tiny_config

B, T, C, D = 2, 4, 5, 16  # C: positions of the context that cross-attention reads


def random_input(length, seed=0):
    noise = np.random.default_rng(seed).normal(size=(B, length, D))
    return jnp.asarray(noise, jnp.float32)


def applied(module, params, *args, **kwargs):
    return jax.jit(lambda p: module.apply({"params": p}, *args, **kwargs))(params)


@pytest.fixture(scope="module", params=["pre", "post"])
def crossing(request):
    """A block with cross-attention under masks, and the same from its parts."""
    config = tiny_config(norm_position=request.param)
    x, context = random_input(T), random_input(C, seed=1)
    mask = jnp.asarray(np.random.default_rng(2).random((B, T, T)) < 0.5)
    seen = jnp.arange(C)[None, None] < jnp.array([3, 5])[:, None, None]
    arguments = {"context": context, "context_mask": seen}
    block = Block(config, has_context=True)
    params = params_of(block, x, mask, **arguments)

    def branch(name, x):
        if name == "feed_forward":
            return FeedForward(config).apply({"params": params[name]}, x)
        read = {"mask": mask} if name == "attention" else {"mask": seen, "context": context}
        return Attention(config).apply({"params": params[name]}, x, **read)[0]

    def expected(x):
        for name in ("attention", "cross_attention", "feed_forward"):
            norm = lambda y, n=name: Norm(config).apply({"params": params[f"{n}_norm"]}, y)  # noqa: E731
            pre = config.norm_position == "pre"
            x = x + branch(name, norm(x)) if pre else norm(x + branch(name, x))
        return x

    return block, params, x, mask, arguments, expected


def test_branches_are_normed_added_and_ordered_as_promised(crossing):
    block, params, x, mask, arguments, expected = crossing
    out, cache = applied(block, params, x, mask, **arguments)
    assert cache is None
    np.testing.assert_allclose(out, jax.jit(expected)(x), atol=1e-5)


def test_masked_context_is_not_read(crossing):
    block, params, x, mask, arguments, _ = crossing
    out, _ = applied(block, params, x, mask, **arguments)
    changed = arguments["context"].at[0, 3:].add(1.0)  # masked in row 0 alone
    again, _ = applied(block, params, x, mask, **(arguments | {"context": changed}))
    np.testing.assert_allclose(again, out, atol=1e-6)
    changed = arguments["context"].at[1, 3:].add(1.0)
    again, _ = applied(block, params, x, mask, **(arguments | {"context": changed}))
    assert np.abs(again - out)[1].min(-1).max() > 1e-3


def test_cross_attention_is_there_by_configuration_not_by_what_is_passed():
    params = params_of(Block(tiny_config()), random_input(T))
    assert set(params) == {"attention", "attention_norm", "feed_forward", "feed_forward_norm"}
    with pytest.raises(ConfigError, match="no cross-attention"):
        Block(tiny_config()).apply({"params": params}, random_input(T), context=random_input(C))
    with pytest.raises(ConfigError, match="needs a context"):
        params_of(Block(tiny_config(), has_context=True), random_input(T))


def test_projected_contexts_serve_several_rows_each_as_the_context_itself_does(crossing):
    block, params, x, mask, arguments, _ = crossing
    twice = lambda y: jnp.repeat(y, 2, axis=0)  # noqa: E731
    whole = {name: twice(value) for name, value in arguments.items()}
    expected, _ = applied(block, params, twice(x) + 1, twice(mask), **whole)
    keys = source_keys(block.config, params, arguments["context"])
    shared = {"context": keys, "context_mask": arguments["context_mask"]}
    out, _ = applied(block, params, twice(x) + 1, twice(mask), **shared)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_taps_see_every_activation_by_name(crossing):
    block, params, x, mask, arguments, _ = crossing
    shapes = {}

    def watch(name, value):
        shapes[name] = value.shape
        return value

    applied(block, params, x, mask, **arguments, tap=watch)
    inner = {"query": (B, 4, T, 6), "weights": (B, 4, T, T), "mixed": (B, 4, T, 6)}
    inner |= {"key": (B, 2, T, 6), "value": (B, 2, T, 6)}
    cross = inner | {"key": (B, 2, C, 6), "value": (B, 2, C, 6), "weights": (B, 4, T, C)}
    inner, cross = ({**x, "scores": x["weights"]} for x in (inner, cross))
    expected = {f"attention/{name}": shape for name, shape in inner.items()}
    expected |= {f"cross_attention/{name}": shape for name, shape in cross.items()}
    expected |= {"feed_forward/hidden": (B, T, 28)}
    branches = ("attention", "cross_attention", "feed_forward")
    names = [*branches, *(f"{branch}_norm" for branch in branches), "residual_in", "residual"]
    names += ["residual_after_attention", "residual_after_cross_attention"]
    assert shapes == expected | dict.fromkeys(names, (B, T, D))


def test_query_and_key_norms_make_attention_blind_to_their_scale():
    config = tiny_config(qk_norm=True, bias=False, norm_eps=1e-12)
    x = random_input(T)
    params = params_of(Attention(config), x)
    out, _ = applied(Attention(config), params, x)
    louder = params | {"query": {"kernel": 7 * params["query"]["kernel"]}}
    np.testing.assert_allclose(applied(Attention(config), louder, x)[0], out, atol=1e-5)
    scaled = params | {"query_norm": 7 * params["query_norm"]}
    assert np.abs(applied(Attention(config), scaled, x)[0] - out).max() > 0.01


@pytest.mark.parametrize(("bias", "qkv_bias"), [(True, False), (False, True)])
def test_biases_stand_where_the_config_puts_them(bias, qkv_bias):
    params = params_of(Block(tiny_config(bias=bias, qkv_bias=qkv_bias)), random_input(T))
    found = {
        "/".join(p.key for p in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    biases = {name.removesuffix("/bias") for name in found if name.endswith("bias")}
    qkv = {"attention/query", "attention/key", "attention/value"}
    rest = {"attention/output", "feed_forward/up", "feed_forward/down"}
    rest |= {"attention_norm", "feed_forward_norm"}
    assert biases == (qkv if qkv_bias else rest)


@pytest.mark.parametrize("module", [Attention, Block, FeedForward, Norm])
def test_modules_fill_in_what_their_config_leaves_open(module):
    config = module(ModelConfig(d_model=24, num_heads=3, bias=False)).config
    assert (config.num_kv_heads, config.head_dim, config.d_ff, config.qkv_bias) == (3, 8, 96, False)
    assert module(config) == module(ModelConfig(d_model=24, num_heads=3, bias=False))
