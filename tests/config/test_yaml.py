"""A config file: strict YAML, found by path or by name."""

from pathlib import Path

import pytest

from jaxlm.config import Config, ConfigError, load_config, read_yaml, reading


def load_text(folder: Path, text: str) -> Config:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_an_empty_file_gives_the_defaults(tmp_path):
    config = load_text(tmp_path, "")
    assert config.train == Config().train
    assert config.run.name == "recipe"
    assert config.resolved().run.dir == "runs/recipe"


def test_an_empty_section_gives_the_defaults(tmp_path):
    assert load_text(tmp_path, "model:\ntrain:\n").model == Config().model


def test_a_number_may_be_written_3e_4(tmp_path):
    assert load_text(tmp_path, "optim: {learning_rate: 3e-4}").optim.learning_rate == 3e-4


@pytest.mark.parametrize("name", ["010", "2024-01-01", "2024-13-45", "1:30", "yes", "1.10", "今天"])
def test_a_text_stays_as_it_is_written(tmp_path, name):
    assert load_text(tmp_path, f"run: {{name: {name}}}").run.name == name


@pytest.mark.parametrize("value", ["yes", "no", "on", "True", "1", "[true]"])
def test_a_boolean_is_true_or_false_and_nothing_else(tmp_path, value):
    with pytest.raises(ConfigError, match=r"model\.gated must be true or false, got"):
        load_text(tmp_path, f"model: {{gated: {value}}}")


@pytest.mark.parametrize("null", ["null", "~", ""])
def test_null_leaves_a_derived_field_to_be_derived(tmp_path, null):
    assert (
        load_text(tmp_path, f"model:\n  d_model: 64\n  d_ff: {null}\n").resolved().model.d_ff == 256
    )


def test_null_is_for_derived_and_optional_fields_only(tmp_path):
    assert load_text(tmp_path, "optim: {clip_norm: null}").optim.clip_norm is None
    with pytest.raises(ConfigError, match=r"^train\.steps must not be null$"):
        load_text(tmp_path, "train: {steps: null}")


def test_prompts_are_one_text_or_a_list(tmp_path):
    assert load_text(tmp_path, "sample: {prompts: To be}").sample.prompts == ("To be",)
    assert load_text(tmp_path, "sample: {prompts: [春, 夏]}").sample.prompts == ("春", "夏")
    assert load_text(tmp_path, "sample: {prompts: ['[CLS]']}").sample.prompts == ("[CLS]",)
    with pytest.raises(ConfigError, match="at least one text or null"):
        load_text(tmp_path, "sample: {prompts: []}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {d_model: 1, d_model: 2}", "line 1, .*: d_model is given twice"),
        ("model:\n  gated: true\nmodel:\n", "line 3, .*: model is given twice"),
        ("mdoel: {}", "mdoel is not a known section; did you mean model?"),
        ("zzz: {}", "the sections are run, model, data"),
        ("steps: 5", "steps is not a known section; write train.steps"),
        ("vocab_size: 5", "write model.vocab_size or data.vocab_size"),
        ("model: 3", "model is a section and must hold fields, got '3'"),
        ("run: [1]", r"run is a section and must hold fields, got \['1'\]"),
        ("- model", "must hold sections such as model and train"),
        ("model: {", "line 1, is not valid YAML"),
        ("\tmodel: 1", "line 1, is not valid YAML"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ("{[1]: 2}", "is not valid YAML"),
        ("a: &a [*a]", "is not valid YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2, .*: it holds an alias"),
        ("x\0: 1", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("model: {<<: {gated: true}}", "model.<< is not a known field"),
        ("train: {steps: !!int x}", "train.steps must be a whole number, got 'x'"),
        ("train: {steps: {a: 1}}", "train.steps must be a whole number"),
        ("run: {name: ''}", "run.name must be a text that is not empty"),
        ("run_format: 3", "this jaxlm reads run_format 2 and 1, not 3"),
        ("data: {seq_len: 64}\nmodel: {max_seq_len: 32}", "at most model.max_seq_len"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_text(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"run: {name: \xff}")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not UTF-8 text: byte 12 is wrong"):
        read_yaml(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file"):
        read_yaml(tmp_path / "none.yaml")


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """Two recipes, in configs/ of the current folder."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "gpt_tiny.yaml").write_text("train: {steps: 1}")
    (folder / "llama_tiny.yaml").write_text("train: {steps: 2}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "recipes_folder", lambda: folder)
    return folder


@pytest.mark.parametrize("name", ["gpt_tiny", "gpt_tiny.yaml", "configs/gpt_tiny.yaml"])
def test_a_recipe_is_found_by_name_or_path(recipes, name):
    assert load_config(name).train.steps == 1


def test_an_existing_path_comes_before_a_recipe_of_that_name(recipes):
    Path("gpt_tiny").write_text("train: {steps: 3}")
    assert load_config("gpt_tiny").train.steps == 3


def test_a_folder_does_not_hide_a_recipe_of_its_name(recipes):
    Path("gpt_tiny").mkdir()
    assert load_config("gpt_tiny").train.steps == 1


def test_recipes_are_found_from_any_folder(monkeypatch):
    monkeypatch.chdir("/")
    assert load_config("gpt_tiny").run.name == "gpt_tiny"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpt_tinny", "did you mean gpt_tiny?"),
        ("other", "the recipes are gpt_tiny, llama_tiny"),
        ("", "the recipes are gpt_tiny, llama_tiny"),
        ("a" * 300, "the recipes are gpt_tiny, llama_tiny"),
        ("configs", "configs is a folder, not a config file"),
        ("runs/one", "runs/one is a folder, .* did you mean runs/one/config.yaml?"),
    ],
)
def test_a_recipe_that_is_not_there_names_those_that_are(recipes, name, hint):
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/config.yaml").touch()
    with pytest.raises(ConfigError, match=hint):
        load_config(name)
