"""Overrides on the command line: `--section.field value`."""

import pytest

from jaxlm.config import Config, ConfigError, load_config


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("train: {steps: 10}\noptim:\n")

    def load(*words: str) -> Config:
        return load_config(path, words)

    return load


def test_an_override_comes_before_the_file(load):
    assert load().train.steps == 10
    assert load("--train.steps", "20").train.steps == 20
    assert load("--train.steps=20").train.steps == 20


def test_an_override_reaches_a_section_that_the_file_leaves_out_or_empty(load):
    assert load("--model.d_model", "64").model.d_model == 64
    assert load("--optim.beta1", "0.5").optim.beta1 == 0.5


def test_the_last_of_several_counts(load):
    assert load("--train.steps", "20", "--train.steps=30").train.steps == 30


def test_a_whole_number_may_be_written_1e3(load):
    assert load("--train.steps=1e3").train.steps == 1000


def test_null_resets_a_field(load):
    assert load("--optim.clip_norm", "null").optim.clip_norm is None


def test_a_list_is_written_as_in_yaml(load):
    assert load("--sample.prompts", '[春眠, "a: b"]').sample.prompts == ("春眠", "a: b")
    assert load("--sample.prompts", "春眠不觉晓").sample.prompts == ("春眠不觉晓",)


def test_brackets_inside_a_text_are_no_list(load):
    assert load("--data.source", "[ab]*.txt").data.source == "[ab]*.txt"


def test_a_value_may_hold_an_equals_sign_or_begin_with_dashes(load):
    assert load("--run.dir", "a=b").run.dir == "a=b"
    assert load("--run.dir=a=b").run.dir == "a=b"
    assert load("--run.name=--x").run.name == "--x"


def test_a_negative_number_is_a_value(load):
    with pytest.raises(ConfigError, match=r"optim.learning_rate must be at least 0, got -1\.0"):
        load("--optim.learning_rate", "-1")


def test_the_run_is_named_after_the_file_unless_it_has_a_name(load):
    assert load().run.name == "recipe"
    assert load("--run.name", "mine").resolved().run.dir == "runs/mine"
    assert load("--run.dir", "here").run.name == "recipe"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.d_model"], "--model.d_model needs a value"),
        (["--model.d_model", "--train.steps", "5"], "--model.d_model needs a value"),
        (["--run.name", "--overwrite"], "--run.name needs a value"),
        (["--train.steps="], "--train.steps needs a value"),
        (["--train.steps", ""], "--train.steps needs a value"),
        (["model.d_model", "3"], "got 'model.d_model'; did you mean --model.d_model?"),
        (["--steps", "5"], "got '--steps'; did you mean --train.steps?"),
        (["–model.d_model", "3"], "did you mean --model.d_model?"),
        (["—steps", "3"], "did you mean --train.steps?"),
        (["--train.steps＝5"], "did you mean --train.steps?"),
        (["--train.steps 5"], "did you mean --train.steps?"),
        (["--train.steps", "5", "7"], "expected --section.field value, got '7'"),
        (["-m"], "expected --section.field value, got '-m'; python train.py --help"),
        (["--"], "expected --section.field value, got '--'"),
        (["--="], "expected --section.field value"),
        (["--."], "expected --section.field value"),
        (["--model.", "3"], "expected --section.field value"),
        (["--model", "3"], "expected --section.field value"),
        (["--.d_model", "3"], "did you mean --model.d_model?"),
        (["--model.a.b", "3"], "model.a.b is not a known field"),
        (["--modle.d_model", "3"], "modle is not a known section; did you mean model?"),
        (["--train.batch-size", "3"], "did you mean train.batch_size?"),
        (["--train.Steps", "3"], "did you mean train.steps?"),
        (["--train.steps", "[1"], r"train.steps must be a whole number, got '\[1'"),
        (["--sample.prompts", "[one, two"], r"a list such as \[one, two\], got '\[one, two'"),
        (["--sample.prompts", "[a: b: c]"], "--sample.prompts, line 1, is not valid YAML"),
        (["--sample.prompts", "[null]"], "must be a text or a list"),
        (["--run.name", "\udcff"], "run.name must be a text"),
        (["--run_format", "2"], "expected --section.field value"),
    ],
)
def test_a_mistake_is_told_in_one_line(load, words, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(*words)
    assert "\n" not in str(error.value)


def test_a_files_warm_up_ends_with_the_steps_of_the_command_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("train: {steps: 500}\noptim: {warmup_steps: 100}\n")
    assert load_config(path, ["--train.steps", "20"]).optim.warmup_steps == 20
    assert load_config(path, ["--train.steps", "200"]).optim.warmup_steps == 100
    with pytest.raises(ConfigError, match=r"optim.warmup_steps must be at most train.steps \(20\)"):
        load_config(path, ["--train.steps", "20", "--optim.warmup_steps", "30"])
