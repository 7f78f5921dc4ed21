"""The table of parameters covers every leaf of every model, and says what is true of it."""

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from jaxlm.config import JaxlmError
from jaxlm.models import make_model, num_params, param_shapes
from jaxlm.models.parameters import (
    RULES,
    add_lora,
    depth,
    flops_per_token,
    is_adapter,
    is_classifier,
    logical_axes,
    output_dim,
    parameter_kinds,
    rule_of,
)
from jaxlm.nn.block import Block
from tests.fixtures.tiny import STRUCTURES, params_of, tiny_config

RANK = 5
ENCODER = {
    "architecture": "encoder",
    "num_token_types": 3,
    "position_offset": 3,
    "embed_norm": True,
    "labels": ("yes", "no"),
}
HEADS = ("sequence_classification", "token_classification", "question_answering", "none")
CONFIGS = {name: tiny_config(name) for name in STRUCTURES}
CONFIGS |= {f"decoder_{head}": tiny_config(head=head, labels=("yes", "no")) for head in HEADS}
CONFIGS |= {head: tiny_config(head=head, **ENCODER) for head in (*HEADS, "lm", "pretraining")}
PAIR = {"architecture": "encoder_decoder", "num_encoder_layers": 3}
CONFIGS["pair"] = tiny_config(head_bias=True, **PAIR)
CONFIGS["apart"] = tiny_config(share_embeddings=False, tie_embeddings=False, **PAIR)
CONFIGS["relative"] = tiny_config(positions="relative", **PAIR)
CONFIGS["untied"] = tiny_config(tie_embeddings=False, **ENCODER)
FOREIGN = RULES[-3:]


def leaves_of(config):
    """The shape of every parameter by path, adapters included."""
    adapted = jax.eval_shape(
        lambda params, key: add_lora(params, RANK, 1.0, ["kernel"], key),
        param_shapes(config),
        jax.random.key(0),
    )
    return {path: leaf.shape for path, leaf in flatten_dict(adapted, sep="/").items()}


def sizes(config):
    """The size of each logical axis; in a tiny config they all differ."""
    return {
        "vocab": config.vocab_size,
        "d_model": config.d_model,
        "heads": config.num_heads * config.head_dim,
        "kv_heads": config.num_kv_heads * config.head_dim,
        "head_dim": config.head_dim,
        "d_ff": config.d_ff,
        "positions": config.max_seq_len + config.position_offset,
        "token_types": config.num_token_types,
        "labels": 2,
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes_without_params_are_those_that_init_makes(name):
    ids = jnp.zeros((1, 1), jnp.int32)
    made = jax.eval_shape(make_model(CONFIGS[name]).init, jax.random.key(0), ids)["params"]
    assert param_shapes(CONFIGS[name]) == made


@pytest.mark.parametrize("name", CONFIGS)
def test_every_dim_of_every_parameter_has_the_size_of_its_axis(name):
    size = sizes(CONFIGS[name])
    for path, shape in leaves_of(CONFIGS[name]).items():
        assert rule_of(path) not in FOREIGN, path
        axes = logical_axes(path, len(shape))
        assert len(axes) == len(shape), path
        for axis, found in zip(axes, shape, strict=True):
            assert axis is None or size[axis] == found, path


def test_no_rule_is_there_for_nothing():
    used = {rule_of(path) for config in CONFIGS.values() for path in leaves_of(config)}
    assert used == set(RULES) - set(FOREIGN)


def test_cross_attention_has_the_rules_of_attention():
    x = jnp.zeros((1, 2, 16))
    params = params_of(Block(tiny_config(), has_context=True), x, context=x)
    for path in flatten_dict({"layers_0": params}, sep="/"):
        assert rule_of(path) == rule_of(path.replace("cross_", "")) not in FOREIGN


@pytest.mark.parametrize("name", CONFIGS)
def test_kinds_are_those_of_the_dims_and_the_place(name):
    for path, shape in leaves_of(CONFIGS[name]).items():
        kind = rule_of(path).kind
        assert is_adapter(path) == ("lora" in path)
        if not is_adapter(path):
            assert (kind == "vector") == (len(shape) == 1), path
            assert (kind == "matrix") == (len(shape) == 2 and "layers_" in path), path
            assert (kind == "embedding") == (len(shape) == 2 and "embed/" in path), path
        assert output_dim(path) == (
            1 if path.endswith("kernel") or path == "head" else 0 if "tokens" in path else None
        )


def test_modules_of_flax_are_covered_and_unknown_names_are_refused():
    params = {"Dense_0": {"kernel": 0, "bias": 0}, "LayerNorm_0": {"scale": 0}}
    params |= {"Embed_0": {"embedding": 0}}
    assert parameter_kinds(params) == {
        "Dense_0": {"kernel": "matrix", "bias": "vector"},
        "LayerNorm_0": {"scale": "vector"},
        "Embed_0": {"embedding": "embedding"},
    }
    assert logical_axes("Conv_0/kernel", 4) == (None,) * 4
    with pytest.raises(JaxlmError, match="layers_0/attention/slopes"):
        parameter_kinds({"layers_0": {"attention": {"slopes": 0}}})


def test_depth_counts_from_the_embeddings_through_the_blocks_to_the_head():
    expected = {
        "backbone/embed/tokens": 0,
        "backbone/embed/norm/scale": 0,
        "backbone/layers_0/attention/query/kernel": 1,
        "backbone/layers_11/feed_forward_norm/bias": 12,
        "backbone/final_norm/scale": 13,
        "classifier/kernel": 13,
    }
    assert {path: depth(path, 12) for path in expected} == expected


def test_only_what_has_an_entry_for_each_label_is_of_a_classifier():
    leaves = leaves_of(CONFIGS["sequence_classification"])
    found = {path for path in leaves if is_classifier(path)}
    assert found == {"classifier/kernel", "classifier/bias", "classifier/lora_b"}


def test_flops_count_each_multiplied_weight_six_times_and_attention():
    attention = 12 * 2 * 4 * 6 * 10  # layers, heads, head_dim, positions
    tied, untied = tiny_config(positions="none"), tiny_config(tie_embeddings=False)
    assert flops_per_token(tied, 1000, 10) == 6 * 1000 + attention
    looked_up = (19 + 12) * 16  # tokens and positions, times d_model
    assert flops_per_token(untied, num_params(untied), 10) == pytest.approx(
        6 * (num_params(untied) - looked_up) + attention
    )
