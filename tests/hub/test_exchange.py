"""The exchange of weights: invertible, complete, and plain about every difference."""

import re

import jax
import numpy as np
import pytest

from jaxlm.config import JaxlmError, ModelConfig
from jaxlm.hub import export_tensors, import_tensors
from jaxlm.models import make_model
from tests.fixtures.reference import HEADS, MODELS, recorded
from tests.fixtures.tiny import params_of, random_ids, tiny_config

C_ATTN = "transformer.h.1.attn.c_attn.weight"


@pytest.fixture(scope="module")
def gpt2():
    return recorded("gpt2")


@pytest.mark.parametrize("name", MODELS + HEADS)
def test_theirs_to_ours_and_back_is_identical(name):
    record = recorded(name)
    tensors = export_tensors(record.params, record.config)
    # A tied head and its bias stand twice in what the reference holds in memory.
    tied = r"lm_head\.(decoder\.(weight|bias)|weight)|cls\.predictions\.decoder\.(weight|bias)"
    tied += r"|vocab_projector\.weight"
    expected = {
        key: tensor
        for key, tensor in record.weights.items()
        if not (record.config.tie_embeddings and re.fullmatch(tied, key))
    }
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor)


@pytest.mark.parametrize("name", MODELS + HEADS)
def test_ours_to_theirs_and_back_is_identical(name):
    config = recorded(name).config
    params = params_of(make_model(config), random_ids(1, 1))
    again = import_tensors(export_tensors(params, config), config)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_imported_params_are_copies(gpt2):
    weights = {name: tensor.copy() for name, tensor in gpt2.weights.items()}
    params = import_tensors(weights, gpt2.config)
    for tensor in weights.values():
        tensor[:] = 0  # as an optimizer of theirs would, in place
    jax.tree.map(np.testing.assert_array_equal, params, gpt2.params)


def test_half_precision_becomes_float32(gpt2):
    weights = {name: tensor.astype(np.float16) for name, tensor in gpt2.weights.items()}
    tokens = import_tensors(weights, gpt2.config)["backbone"]["embed"]["tokens"]
    np.testing.assert_array_equal(tokens, weights["transformer.wte.weight"].astype(np.float32))
    assert tokens.dtype == np.float32


def test_constants_and_tied_heads_of_theirs_are_ignored(gpt2):
    mask = np.tril(np.ones((1, 1, 17, 17)))
    extra = {"transformer.h.0.attn.bias": mask, "transformer.h.1.attn.masked_bias": np.float32(-1)}
    params = import_tensors(gpt2.weights | extra, gpt2.config)
    jax.tree.map(np.testing.assert_array_equal, params, gpt2.params)


def test_a_class_without_a_head_may_leave_the_prefix_out(gpt2):
    bare = {name.removeprefix("transformer."): tensor for name, tensor in gpt2.weights.items()}
    params = import_tensors(bare | {"h.0.attn.bias": np.ones((1, 1, 17, 17))}, gpt2.config)
    jax.tree.map(np.testing.assert_array_equal, params, gpt2.params)


def test_old_names_of_norms_are_read():
    bert = recorded("bert")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in bert.weights.items()
    }
    assert old.keys() != bert.weights.keys()
    params = import_tensors(old, bert.config)
    jax.tree.map(np.testing.assert_array_equal, params, bert.params)


def test_values_that_are_not_finite_are_told(gpt2):
    damaged = gpt2.weights | {C_ATTN: np.full_like(gpt2.weights[C_ATTN], np.nan)}
    with pytest.raises(JaxlmError, match=f"{C_ATTN} holds values that are not finite"):
        import_tensors(damaged, gpt2.config)


def test_a_long_list_of_differences_is_cut(gpt2):
    with pytest.raises(JaxlmError, match="and 20 more") as error:
        import_tensors({}, gpt2.config)
    assert len(str(error.value).splitlines()) == 10


def test_every_difference_is_told_at_once(gpt2):
    damaged = dict(gpt2.weights)
    del damaged["transformer.h.0.ln_1.bias"]
    damaged["transformer.h.2.ln_1.bias"] = np.zeros(24)
    damaged[C_ATTN] = damaged[C_ATTN][:, :-1]
    damaged["transformer.wpe.weight"] = np.zeros((16, 24))
    damaged["lm_head.weight"] = damaged["lm_head.weight"] + 1
    with pytest.raises(JaxlmError) as error:
        import_tensors(damaged, gpt2.config)
    told = str(error.value).splitlines()[1:]
    assert sorted(line.strip() for line in told) == [
        "lm_head.weight should be the tied token embedding, "
        "but differs from transformer.wte.weight",
        "transformer.h.0.ln_1.bias is missing: "
        "backbone/layers_0/attention_norm/bias would come from it",
        f"{C_ATTN} (thirds of the last dim) has the shape (24, 23) where "
        "backbone/layers_1/attention/value/kernel has (24, 24)",
        "transformer.h.2.ln_1.bias has no place in the model",
        "transformer.wpe.weight (same) has the shape (16, 24) where "
        "backbone/embed/positions has (17, 24)",
    ]


@pytest.mark.parametrize("shape", [(), (7,), (24, 72, 2)])
def test_a_tensor_of_another_rank_is_told_not_raised(gpt2, shape):
    with pytest.raises(JaxlmError, match="c_attn"):
        import_tensors(gpt2.weights | {C_ATTN: np.zeros(shape)}, gpt2.config)


def test_params_that_do_not_fit_the_config_are_refused(gpt2):
    params = gpt2.params | {"head": np.zeros((24, 61))}
    params["backbone"] = params["backbone"] | {"final_norm": {"scale": np.zeros(23)}}
    with pytest.raises(JaxlmError) as error:
        export_tensors(params, gpt2.config)
    message = str(error.value)
    assert "backbone/final_norm/bias is missing" in message
    assert "backbone/final_norm/scale has the shape (23,), not (24,)" in message
    assert "head has no place in the model" in message


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (tiny_config("learned"), "num_kv_heads"),  # grouped heads under GPT-2's names
        (tiny_config("none", num_kv_heads=4, head_dim=4), "positions"),
        (tiny_config("rotary"), "qk_norm"),
        (ModelConfig(vocab_size=9, max_seq_len=9, norm_position="post"), "norm_position"),
    ],
)
def test_a_structure_that_no_family_has_is_refused_by_name(config, told):
    with pytest.raises(JaxlmError, match=f"nearest to .*{told}"):
        export_tensors({}, config)
