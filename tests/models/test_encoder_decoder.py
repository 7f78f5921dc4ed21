"""What an encoder-decoder promises: masks, causality, cached decoding, embeddings of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.generation.quantize import leaf_in_int8
from jaxlm.models import Seq2SeqLM, preset
from jaxlm.models.parameters import add_lora, flops_per_token, num_params
from jaxlm.nn.block import Attention
from tests.fixtures.tiny import SIZES, params_of, random_ids, tiny_config

CLOSE = 2e-5
S, T = 7, 5
SOURCE, TARGET = random_ids(2, S), random_ids(2, T, seed=2)
KEY = jax.random.key(0)
REAL = jnp.arange(S) < jnp.array([[S], [4]])  # the second source is shorter
STRUCTURES = ("learned", "rotary", "sinusoidal")


def tiny_pair(structure="learned", **overrides):
    """A model with 3 encoder blocks and 2 decoder blocks, and its variables."""
    pair = {"architecture": "encoder_decoder", "num_encoder_layers": 3}
    model = Seq2SeqLM(tiny_config(structure, **pair, **overrides))
    return model, {"params": params_of(model, random_ids(1, 1))}


def assert_close(x, y, tolerance=CLOSE):
    assert np.shape(x) == np.shape(y)
    assert np.abs(np.asarray(x) - np.asarray(y)).max() < tolerance


@pytest.fixture(scope="module", params=STRUCTURES)
def built(request):
    """A model, its variables, and its logits for ragged sources."""
    model, variables = tiny_pair(request.param, head_bias=request.param == "learned")
    logits = jax.jit(model.apply)(variables, SOURCE, TARGET, source_mask=REAL)
    return model, variables, np.asarray(logits)


def test_padding_of_source_and_target_changes_nothing(built):
    model, variables, logits = built
    alone = jax.jit(model.apply)(variables, SOURCE[1:, :4], TARGET[1:, :3])
    assert_close(logits[1, :3], alone[0])
    masked = jax.jit(model.apply)(
        variables,
        SOURCE.at[1, 4:].set(0),
        TARGET,
        source_mask=REAL.astype(jnp.int32),
        target_mask=jnp.arange(T) < jnp.array([[T], [3]]),
    )
    assert_close(logits[0], masked[0])
    assert_close(logits[1, :3], masked[1, :3])


def test_a_logit_depends_on_the_whole_source_and_on_no_later_target(built):
    model, variables, _ = built
    probe = jnp.asarray(np.random.default_rng(0).normal(size=SIZES["vocab_size"]), jnp.float32)

    def scores(side, embeddings):
        tap = lambda name, x: embeddings if name == f"{side}/embeddings" else x  # noqa: E731
        logits = model.apply(variables, SOURCE[1:], TARGET[1:], source_mask=REAL[1:], tap=tap)
        return logits[0] @ probe

    expected = {
        "encoder": np.broadcast_to(REAL[1], (T, S)),
        "decoder": np.tril(np.ones((T, T), bool)),
    }
    for side, length in (("encoder", S), ("decoder", T)):
        embeddings = np.random.default_rng(1).normal(size=(1, length, SIZES["d_model"]))
        jacobian = jax.jit(jax.jacrev(scores, argnums=1), static_argnums=0)
        depends = np.asarray(jacobian(side, jnp.asarray(embeddings, jnp.float32)) != 0)
        np.testing.assert_array_equal(depends[:, 0].any(-1), expected[side])


def test_cached_decoding_in_ragged_chunks_equals_the_full_forward(built):
    model, variables, logits = built

    @jax.jit
    def decode(variables):
        cache = model.apply(variables, SOURCE, SIZES["max_seq_len"], REAL, method="start_cache")
        first, cache = model.apply(
            variables, TARGET[:, :3], cache, jnp.array([3, 2]), method="extend"
        )
        rest = jnp.stack([TARGET[0, 3:5], TARGET[1, 2:4]])
        second, cache = model.apply(variables, rest, cache, method="extend")
        hidden = jnp.concatenate([first, second], axis=1)
        return model.apply(variables, hidden, method="head"), cache.lengths

    found, lengths = decode(variables)
    assert_close(found[0], logits[0])
    assert_close(found[1, :2], logits[1, :2])
    assert_close(found[1, 3:], logits[1, 2:4])
    np.testing.assert_array_equal(lengths, [5, 4])


def test_hidden_and_head_give_the_logits(built):
    model, variables, logits = built
    hidden = model.apply(variables, SOURCE, TARGET, source_mask=REAL, method="hidden")
    assert_close(model.apply(variables, hidden, method="head"), logits)
    encoded = model.apply(variables, SOURCE, source_mask=REAL, method="encode")
    assert encoded.shape == (2, S, SIZES["d_model"])


def value_and_gradients(**overrides):
    model, variables = tiny_pair("sinusoidal", **overrides)
    loss = lambda v: (model.apply(v, SOURCE, TARGET, source_mask=REAL) ** 2).mean()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss))(variables)


def test_scanning_and_rematerialising_change_nothing():
    value, gradients = value_and_gradients()
    for changed in (
        {"scan_layers": True},
        {"remat": "full"},
        {"scan_layers": True, "remat": "full"},
    ):
        again, others = value_and_gradients(**changed)
        assert_close(again, value, 1e-5 * value)
        for ours, theirs in zip(*map(jax.tree.leaves, (others, gradients)), strict=True):
            assert_close(ours, theirs, 1e-5 * np.abs(theirs).max() + 1e-7)


def test_bfloat16_is_close_to_float32():
    model, variables = tiny_pair()
    exact = np.asarray(jax.jit(model.apply)(variables, SOURCE, TARGET))
    rounded = jax.jit(tiny_pair(compute_dtype="bfloat16")[0].apply)(variables, SOURCE, TARGET)
    assert rounded.dtype == jnp.float32
    assert 0 < np.linalg.norm(rounded - exact) < 0.03 * np.linalg.norm(exact)


def test_sides_share_token_vectors_unless_the_config_parts_them():
    tables = lambda variables: {  # noqa: E731
        path: leaf.shape
        for path, leaf in flatten_dict(variables["params"], sep="/").items()
        if path.endswith("tokens") or path == "head"
    }
    shared = tables(tiny_pair()[1])
    assert shared == {"backbone/decoder/embed/tokens": (19, 16)}
    apart = tables(tiny_pair(share_embeddings=False, source_vocab_size=23, tie_embeddings=False)[1])
    assert apart == shared | {"backbone/encoder/embed/tokens": (23, 16), "head": (16, 19)}


def test_token_vectors_are_scaled_by_the_root_of_the_width():
    model, variables = tiny_pair("sinusoidal", scale_embeddings=True)
    seen = {}
    tap = lambda name, x: seen.setdefault(name, x)  # noqa: E731
    model.apply(variables, SOURCE, TARGET, tap=tap)
    tokens = np.asarray(variables["params"]["backbone"]["decoder"]["embed"]["tokens"])
    scaled = np.asarray(seen["decoder/embeddings"]) - 4 * tokens[np.asarray(TARGET)]
    np.testing.assert_allclose(scaled[:, 0], np.tile([0, 1], (2, 8)), atol=1e-5)  # of position 0


def test_the_model_refuses_what_it_cannot_be():
    pair = {"architecture": "encoder_decoder"}
    for wrong in (
        {"source_vocab_size": 23},
        {"head": "none"},
        {"architecture": "decoder", "num_encoder_layers": 2},
    ):
        with pytest.raises(ConfigError):
            tiny_config(**(pair | wrong)).resolved()
    model, variables = tiny_pair()
    with pytest.raises(ConfigError, match="source ids and target ids"):
        model.apply(variables, SOURCE)


def test_the_paper_has_65_million_parameters():
    config = preset("transformer")
    assert num_params(config) == 63_082_496  # 37,000 x 512 once, and 44.1M in the blocks
    # A token passes half of it: 6 FLOPs a parameter, and the products of 6 + 2 x 6 attentions.
    expected = 3 * 63_082_496 + 6 * 18 * 512 * 25
    assert flops_per_token(config, num_params(config), 25) == expected


def test_cross_attention_of_the_paper_s_shape_agrees_with_numpy():
    """26 source tokens of width 512, 8 heads of 64, a target of 9."""
    config = ModelConfig(d_model=512, num_heads=8, vocab_size=3, max_seq_len=32)
    random = np.random.default_rng(0)
    x, source = random.normal(size=(1, 9, 512)), random.normal(size=(1, 26, 512))
    real = np.arange(26) < 21
    params = params_of(Attention(config), jnp.zeros((1, 9, 512)))
    out, _ = jax.jit(Attention(config).apply)(
        {"params": params},
        jnp.asarray(x, jnp.float32),
        jnp.asarray(real)[None, None],
        context=jnp.asarray(source, jnp.float32),
    )

    def dense(name, y):
        kernel, bias = (np.asarray(params[name][part], np.float64) for part in ("kernel", "bias"))
        return y @ kernel + bias

    query, key, value = dense("query", x[0]), dense("key", source[0]), dense("value", source[0])
    heads = []
    for head in range(8):
        dims = slice(64 * head, 64 * (head + 1))
        scores = query[:, dims] @ key[:, dims].T / np.sqrt(64)
        scores[:, ~real] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, dims])
    assert query.shape == (9, 512)
    assert key.shape == (26, 512)
    assert_close(out[0], dense("output", np.concatenate(heads, axis=1)), 1e-4)


def test_adapters_and_int8_reach_both_sides():
    model, variables = tiny_pair("sinusoidal")
    expected = np.asarray(model.apply(variables, SOURCE, TARGET, source_mask=REAL))
    adapted = add_lora(
        variables["params"], 2, 4.0, ["cross_attention", "encoder"], jax.random.key(0)
    )
    assert len([p for p in flatten_dict(adapted, sep="/") if p.endswith("lora_a")]) == 26
    assert_close(model.apply({"params": adapted}, SOURCE, TARGET, source_mask=REAL), expected)
    whole = jax.tree_util.tree_map_with_path(leaf_in_int8, variables["params"])
    rounded = model.apply({"params": whole}, SOURCE, TARGET, source_mask=REAL)
    assert 0 < np.linalg.norm(rounded - expected) < 0.05 * np.linalg.norm(expected)
    # What cross-attention reads is projected by the same layers.
    cache = model.apply({"params": whole}, SOURCE, 12, REAL, method="start_cache")
    hidden, _ = model.apply({"params": whole}, TARGET, cache, method="extend")
    assert_close(model.apply({"params": whole}, hidden, method="head"), rounded, 0.02)
