"""Keys and values into a Config: what is refused, derived, and kept when written back."""

import dataclasses

import pytest
import yaml

from jaxlm.config import (
    PRESETS,
    Config,
    ConfigError,
    ModelConfig,
    build_config,
    load_config,
    preset,
    to_yaml,
)
from jaxlm.config.sections import section_kinds

OF_CAUSAL_LM = ("name", "label_smoothing", "z_loss")
SMALL = {"d_model": 96, "num_heads": 6, "vocab_size": 1000, "norm": "rmsnorm"}


@pytest.fixture
def small(monkeypatch):
    """A preset of few fields, called small."""
    monkeypatch.setitem(PRESETS, "small", SMALL)


def refused(section: str, **fields: object) -> str:
    with pytest.raises(ConfigError) as error:
        build_config({section: fields})
    return str(error.value)


def test_an_unknown_key_names_the_nearest():
    assert refused("model", d_modle=3) == (
        "model.d_modle is not a known field; did you mean model.d_model?"
    )


def test_a_field_of_another_section_names_that_section():
    assert "did you mean optim.learning_rate?" in refused("train", learning_rate=1)
    assert "did you mean train.batch_size?" in refused("model", batch_size=1)
    assert "run.name or task.name or optim.name?" in refused("model", name="x")


def test_a_mistyped_field_of_another_section_is_found_too():
    assert "did you mean data.val_fraction?" in refused("train", valfraction=1)


def test_a_key_like_no_other_points_to_the_help():
    assert "train.py --help" in refused("train", zzz=1)


@pytest.mark.parametrize("value", ["1.5", "true", True, "nan", "inf", "1e999", "abc", [1], "0x10"])
def test_a_whole_number_is_one(value):
    assert "train.steps must be a whole number" in refused("train", steps=value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "abc", False, [1.0], "1,5", 10**400])
def test_a_number_is_finite(value):
    assert "optim.learning_rate must be a number" in refused("optim", learning_rate=value)


def test_a_large_whole_number_loses_no_digit():
    assert "got 9007199254740993" in refused("run", seed="9007199254740993")
    assert build_config({"run": {"seed": "4294967295"}}).run.seed == 2**32 - 1


def test_a_choice_names_what_is_allowed():
    assert refused("model", norm="batchnorm") == (
        "model.norm must be one of layernorm, rmsnorm, got 'batchnorm'"
    )
    assert "float32, bfloat16, null" in refused("model", compute_dtype="fp16")
    assert "must be one of" in refused("model", norm=["layernorm"])


def test_a_text_is_not_a_number():
    assert refused("run", name=5) == "run.name must be a text, got 5"


def test_a_value_out_of_range_names_the_range():
    assert refused("model", dropout=1) == "model.dropout must be in [0, 1), got 1.0"
    assert refused("train", steps=0) == "train.steps must be positive, got 0"
    assert refused("optim", ema_decay=1) == "optim.ema_decay must be in (0, 1), got 1.0"
    assert refused("sample", top_p=0) == "sample.top_p must be in (0, 1], got 0.0"
    assert refused("run", seed=-1) == "run.seed must be in [0, 2**32), got -1"


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("model", {"d_model": 100, "num_heads": 3}, "multiple of num_heads"),
        ("model", {"num_heads": 4, "num_kv_heads": 3}, "divisor of num_heads"),
        ("model", {"positions": "rotary", "head_dim": 3}, "even with rotary"),
        ("model", {"zero_init_head": True}, "false when tie_embeddings is true"),
        ("optim", {"ema_decay": 0.9, "name": "schedule_free"}, "null with schedule_free"),
        ("train", {"batch_size": 12, "accumulate_steps": 5}, "divisor of batch_size"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(section, fields, message):
    assert message in refused(section, **fields)


def test_a_window_longer_than_the_context_is_refused():
    with pytest.raises(ConfigError, match=r"data.seq_len must be at most model.max_seq_len \(32\)"):
        build_config({"model": {"max_seq_len": 32}, "data": {"seq_len": 64}})


def test_null_sizes_are_derived():
    written = build_config({"model": {"d_model": 96, "num_heads": 6}, "data": {"seq_len": 48}})
    assert written.model.head_dim is written.optim.adam_learning_rate is None
    config = written.resolved()
    model = config.model
    assert (model.head_dim, model.num_kv_heads, model.d_ff, model.max_seq_len) == (16, 6, 384, 48)
    assert ModelConfig(d_model=96, gated=True).resolved().d_ff == 256
    assert ModelConfig(bias=False).resolved().qkv_bias is False
    assert config.optim.adam_learning_rate == config.optim.learning_rate / 3
    assert config.sample.every == config.train.eval_every
    assert config.model.vocab_size is None  # the tokenizer's, known only with the data


def test_a_given_size_is_not_derived():
    model = build_config({"model": {"head_dim": 5, "qkv_bias": "true", "bias": "false"}}).model
    model = model.resolved()
    assert model.head_dim == 5
    assert model.qkv_bias
    assert not model.bias


def test_a_field_replaced_does_what_it_says():
    model = dataclasses.replace(preset("gpt2"), num_heads=24).resolved()
    assert (model.num_kv_heads, model.head_dim) == (24, 32)
    model = dataclasses.replace(ModelConfig(), d_model=256).resolved()
    assert (model.d_ff, model.head_dim) == (1024, 64)
    optim = dataclasses.replace(Config().optim, learning_rate=0.3)
    assert optim.resolved().adam_learning_rate == pytest.approx(0.1)


def test_what_is_resolved_stays_as_it_is():
    config = Config().resolved()
    assert config.resolved() == config


def test_an_option_of_another_task_is_refused_even_at_its_default():
    assert refused("task", stride=64) == (
        "task.stride is an option of question_answering, but task.name is causal_lm"
    )
    assert "is an option of masked_lm" in refused("task", name="chat", masking="word")
    assert build_config({"task": {"name": "masked_lm", "masking": "word"}}).task.masking == "word"


def test_a_config_of_run_format_1_has_its_task_moved():
    old = {
        "run_format": 1,
        "objective": {"name": "mlm", "masking": "word"},
        "finetune": {"task": None, "stride": 64, "freeze": []},
    }
    config = build_config(old)
    assert (config.task.name, config.task.masking) == ("masked_lm", "word")
    old["finetune"] |= {"task": "question_answering", "stride": 9}
    assert build_config(old).task.stride == 9


def test_a_preset_gives_its_fields_and_explicit_ones_override_it(small):
    model = build_config({"model": {"preset": "small", "num_heads": 3}}).model.resolved()
    assert (model.d_model, model.num_heads, model.norm, model.head_dim) == (96, 3, "rmsnorm", 32)


@pytest.mark.parametrize("name", ["large", ["small"], 5])
def test_an_unknown_preset_names_the_known(name):
    with pytest.raises(ConfigError, match=r"model\.preset must be one of gpt2, .*, got"):
        build_config({"model": {"preset": name}})


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"preset": "small", "norm_eps": 1e-6, "vocab_size": None}},
        {"run": {"name": "null-ish: #1"}, "sample": {"prompts": ["春眠\n", "[a", "null", " x"]}},
        {"run": {"name": "3e-4", "seed": 2**32 - 1}, "optim": {"eps": 1e-30, "clip_norm": None}},
    ],
)
def test_a_written_config_reads_back_equal_even_without_the_preset(tmp_path, sections):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", SMALL)
        config = build_config(sections).resolved()
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def test_a_written_config_holds_every_field_and_its_format():
    written = yaml.safe_load(to_yaml(Config()))
    assert written.pop("run_format") == 2
    for section, kind in section_kinds().items():
        names = [f.name for f in dataclasses.fields(kind)]
        # Of the options of tasks only those of its own.
        own = [n for n in names if section != "task" or n in OF_CAUSAL_LM]
        assert list(written[section]) == own


def test_another_run_format_is_refused():
    with pytest.raises(ConfigError, match="this jaxlm reads run_format 2 and 1, not 3"):
        build_config({"run_format": 3})


def test_a_config_cannot_be_changed_and_may_be_a_key():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.d_model = 3  # pyright: ignore
    assert {config: 1}[Config()] == 1


@pytest.mark.parametrize(
    ("section", "fields", "told"),
    [
        ("train", {"steps": 10**20}, "train.steps must be below 2**31"),
        ("model", {"vocab_size": 100_000_000_000}, "model.vocab_size must be below 2**31"),
        ("sample", {"top_k": 2**40}, "sample.top_k must be below 2**31"),
        ("optim", {"eps": 0}, "optim.eps must be positive"),
        ("optim", {"warmup_steps": 3000}, "optim.warmup_steps must be at most train.steps (2000)"),
    ],
)
def test_numbers_beyond_use_are_refused(section, fields, told):
    assert refused(section, **fields).startswith(told)


def test_the_warm_up_is_compared_where_it_is_given_and_steps_are_known():
    build_config({"train": {"steps": 5}})
    build_config({"train": {"epochs": 1}, "optim": {"warmup_steps": 3000}})
    build_config({"run": {"seed": 2**32 - 1}})


@pytest.mark.parametrize(
    ("given", "policy"), [("true", "full"), ("False", "none"), ("dots", "dots")]
)
def test_a_remat_of_an_older_config_is_read(given, policy):
    assert build_config({"model": {"remat": given}}).model.remat == policy
    assert (
        build_config({"model": {"remat": {"full": True}.get(policy, policy)}}).model.remat == policy
    )


def test_weights_are_averaged_in_one_way():
    sections = {"train": {"average_last": 3}, "optim": {"ema_decay": 0.9}}
    with pytest.raises(ConfigError, match=r"train\.average_last must be null with optim\.ema_dec"):
        build_config(sections)
