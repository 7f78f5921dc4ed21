"""Presets have the published sizes, and a model builds from its config alone."""

import pytest

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.models import num_params, preset


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_xl", 1_557_611_200),
        ("llama", 6_738_415_616),
        ("qwen2", 494_032_768),
    ],
)
def test_presets_have_the_published_number_of_parameters(name, count):
    assert num_params(preset(name)) == count


def test_bare_encoders_with_a_pooler_have_the_published_number_of_parameters():
    assert num_params(preset("bert_base", head="none")) == 109_482_240
    assert num_params(preset("bert_large", head="none")) == 335_141_888


def test_the_qwen2_of_the_article_is_counted_without_being_allocated():
    config = preset(
        "qwen2",
        num_layers=16,
        d_model=2048,
        d_ff=11008,
        num_heads=32,
        num_kv_heads=32,
        tie_embeddings=False,
    )
    attention = 4 * 2048 * 2048 + 3 * 2048
    layer = attention + 3 * 2048 * 11008 + 2 * 2048
    assert num_params(config) == 2 * 151936 * 2048 + 16 * layer + 2048


def test_presets_take_overrides():
    config = preset("gpt2", max_seq_len=16, d_model=36).resolved()
    assert (config.preset, config.max_seq_len, config.d_ff, config.head_dim) == ("gpt2", 16, 144, 3)


@pytest.mark.parametrize(("name", "field"), [("gpt3", "num_layers"), ("gpt2", "n_layer")])
def test_unknown_presets_and_fields_are_refused(name, field):
    with pytest.raises(ConfigError):
        preset(name, **{field: 1})


@pytest.mark.parametrize("missing", ["vocab_size", "max_seq_len"])
def test_a_model_without_a_needed_size_is_refused_by_name(missing):
    sizes = {"vocab_size": 7, "max_seq_len": 8, missing: None}
    with pytest.raises(ConfigError, match=missing):
        num_params(ModelConfig(**sizes))
