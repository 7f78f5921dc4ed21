"""A run directory: what a run may delete, what it records, and how it is lengthened or moved."""

import json
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
import yaml

import jaxlm
from jaxlm import tasks
from jaxlm.checkpoint import saved_steps
from jaxlm.config import JaxlmError, build_config, load_config
from jaxlm.models import make_model
from jaxlm.runtime import source_version
from jaxlm.training import fit
from jaxlm.training.console import closing_line
from jaxlm.training.run_directory import RunDirectory
from jaxlm.training.trainer import Trainer
from tests.training.runs import assert_same_run, contents, rows, sections_of, tiny

SHORT = {"steps": 4, "eval_every": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A finished run of four steps, and the text that it learned."""
    folder = tmp_path_factory.mktemp("short")
    fit(tiny(folder, train=SHORT, sample={"every": 0}))
    return folder


def copied(short: Path, folder: Path) -> Path:
    shutil.copytree(short, folder / "there")
    return folder / "there" / "run"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_a_config_of_ones_own_is_left_alone(tmp_path, overwrite):
    home = tmp_path / "run"
    home.mkdir()
    text = yaml.safe_dump(sections_of(tmp_path), allow_unicode=True)
    (home / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(JaxlmError, match=r"the config\.yaml in .* was not written by a run"):
        fit(tiny(tmp_path, run={"dir": str(home), "overwrite": overwrite}))
    (home / "notes").mkdir()
    before = contents(home)
    with pytest.raises(JaxlmError, match="was not written by a run"):
        fit(tiny(tmp_path, run={"dir": str(home), "overwrite": overwrite}))
    assert {name: x for name, x in contents(home).items() if ".lock" not in name} == {
        name: x for name, x in before.items() if ".lock" not in name
    }


@pytest.mark.parametrize(
    "stranger", ["thesis.tex", "checkpoints/thesis.tex", "src/main.py", "profile/a/thesis.tex"]
)
def test_a_run_that_holds_other_files_is_not_overwritten(short, tmp_path, stranger):
    run = copied(short, tmp_path)
    (run / stranger).parent.mkdir(exist_ok=True, parents=True)
    (run / stranger).write_text("years of work")
    before = contents(run)
    name = stranger.removesuffix("/main.py").removeprefix("checkpoints/").removeprefix("profile/a/")
    with pytest.raises(JaxlmError, match=f"holds {name}, which no run wrote"):
        fit(tiny(tmp_path, run={"dir": str(run), "overwrite": True}))
    assert contents(run) == before


def test_overwriting_empties_a_linked_folder_of_checkpoints_and_keeps_the_link(short, tmp_path):
    run, large_disk = copied(short, tmp_path), tmp_path / "large"
    (run / "checkpoints").rename(large_disk)
    (run / "checkpoints").symlink_to(large_disk)
    fit(tiny(tmp_path, run={"dir": str(run), "overwrite": True}, train=SHORT | {"steps": 2}))
    assert (run / "checkpoints").is_symlink()
    assert saved_steps(large_disk) == [2]


def test_a_run_whose_checkpoints_cannot_be_read_is_not_begun_anew(short, tmp_path):
    run = copied(short, tmp_path)
    (run / "summary.json").unlink()
    for file in run.glob("checkpoints/*/meta/metadata"):
        file.unlink()
    before = contents(run)
    with pytest.raises(JaxlmError, match=r"none of the checkpoints in .* is whole"):
        fit(tiny(short, run={"dir": str(run)}, train=SHORT, sample={"every": 0}))
    with pytest.raises(JaxlmError, match="has no checkpoint that is whole"):
        jaxlm.load(run)
    assert contents(run) == before


def test_overwriting_that_was_cut_off_can_be_done_again(short, tmp_path, monkeypatch):
    run = copied(short, tmp_path)
    again = tiny(tmp_path, run={"dir": str(run), "overwrite": True}, train=SHORT)

    def die(*_):
        raise KeyboardInterrupt

    for name in ("describe", "write"):
        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, name, die)
            with pytest.raises(KeyboardInterrupt):
                fit(again)
    kept = again.replace({"run": {"overwrite": False}})
    fit(kept)
    assert [row["step"] for row in rows(run) if row["split"] == "val"] == [2, 4]


def test_a_copied_run_goes_on_where_it_stands(short, tmp_path):
    fit(tiny(tmp_path, train=SHORT))
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "run", copy)
    before = contents(tmp_path / "run")
    fit(load_config(copy / "config.yaml", ["--train.steps", "6"]))
    assert saved_steps(copy / "checkpoints")[-1] == 6
    assert contents(tmp_path / "run") == before
    other = load_config(copy / "config.yaml", ["--run.dir", "elsewhere"])
    assert other.run.dir == "elsewhere"


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_is_lengthened_by_its_steps(tmp_path, capsys, monkeypatch, finished):
    def config(name, steps, schedule="constant"):
        sections = {"train": SHORT | {"steps": steps}, "optim": {"schedule": schedule}}
        sections["sample"] = {"every": 0}
        return tiny(tmp_path, run={"dir": str(tmp_path / name)}, **sections)

    fit(config("whole", 8))
    fit(config("run", 4))
    if not finished:
        (tmp_path / "run" / "summary.json").unlink()
    capsys.readouterr()
    fit(config("run", 8))
    told = "is lengthened from 4 to 8 steps: the schedule constant now runs over all of them"
    assert f"{told}, and at step 4 the learning rate stays 0.01" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 8
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    fit(config("run", 8))
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(JaxlmError, match=r"train\.steps: 8 -> 6"):
        fit(config("run", 6))


def test_steps_below_the_default_warm_up_make_a_run_like_any_other(tmp_path):
    sections = sections_of(tmp_path) | {"optim": {}}
    sections["train"] |= SHORT
    fit(build_config(sections))  # warms up over 100 steps by default
    assert jaxlm.load(tmp_path / "run").run_config.train.steps == 4
    again = load_config(tmp_path / "run" / "config.yaml", ["--train.steps", "6"])
    fit(again)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 6


def test_a_warm_up_that_the_steps_cut_short_does_not_stand_in_the_way_of_more(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(sections_of(tmp_path)), encoding="utf-8")
    for steps in (3, 6):  # the file has a warm-up of 4
        fit(load_config(file, ["--train.steps", str(steps)]))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 6


def test_what_a_longer_schedule_does_to_the_rate_is_told(tmp_path, capsys):
    fit(tiny(tmp_path, train=SHORT, optim={"warmup_steps": 0}))
    fit(tiny(tmp_path, train=SHORT | {"steps": 8}, optim={"warmup_steps": 0}))
    assert "at step 4 the learning rate goes from 0 to 0.005" in capsys.readouterr().out


def test_own_parts_are_named_and_must_be_given_again(tmp_path, capsys):
    def own_loss(model, params, batch, key=None):
        logits = model.apply({"params": params}, batch["ids"])
        return {"loss": (logits**2).sum(), "count": jnp.float32(batch["ids"].size)}

    fit(tiny(tmp_path, train=SHORT, sample={"every": 0}), objective=own_loss)
    run = tmp_path / "run"
    assert yaml.safe_load((run / "config.yaml").read_text())["run"]["own"] == ["objective own_loss"]
    said = capsys.readouterr().out
    assert "perplexity" not in said
    assert "gram" not in said
    assert not {"perplexity", "bits_per_byte"} & {key for row in rows(run) for key in row}
    with pytest.raises(JaxlmError, match=r"run\.own says that fit was given objective own_loss"):
        fit(load_config(run / "config.yaml"))
    with pytest.raises(JaxlmError, match=r"run\.own: \('objective own_loss',\) -> \(\)"):
        fit(tiny(tmp_path, train=SHORT, sample={"every": 0}))


def test_an_own_model_is_asked_for_when_loading(tmp_path):
    def own_model(config):
        return make_model(config)

    fit(tiny(tmp_path, train=SHORT, sample={"every": 0}), model=own_model)
    with pytest.raises(JaxlmError, match="was trained with an own model own_model; give it"):
        jaxlm.load(tmp_path / "run")
    assert jaxlm.load(tmp_path / "run", model=own_model).origin["source"] == "run"


def test_the_commit_is_that_of_the_checkout_and_changes_are_told(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    git("init")
    assert source_version(package) == {"commit": None, "changed": None}
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    git("add", ".")
    git(*author, "commit", "-m", "one")
    (tmp_path / "other").write_text("outside the package")
    git("add", ".")
    git(*author, "commit", "-m", "two")
    done = subprocess.run(
        ["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    assert source_version(package) == {"commit": done.stdout.strip(), "changed": False}
    (tmp_path / "other").write_text("changed")
    assert source_version(package)["changed"]


@pytest.mark.parametrize(
    ("best", "told"),
    [
        (3.0, "better than a 1-gram table's 6.572, worse than a 2-gram table's 2.500)"),
        (2.0, "(better than a 2-gram table's 2.500)"),
        (7.0, "(worse than a 1-gram table's 6.572: it has learned little)"),
    ],
)
def test_both_neighbours_among_the_n_grams_are_named(best, told):
    grams = {"1": 6.572, "2": 2.5}
    summary = {"steps": 1, "seconds": 1.0, "best_val_loss": best, "baselines": grams}
    assert told in closing_line(summary, Path("run"))


def test_a_run_directory_that_cannot_be_is_one_sentence(tmp_path):
    for name, told in (("x" * 300, "File name too long"), ("a\0b", "null")):
        with pytest.raises(JaxlmError, match=rf"cannot write to run\.dir .*{told}"):
            fit(tiny(tmp_path, run={"dir": str(tmp_path / name)}))


def test_a_run_directory_that_vanishes_is_one_sentence(tmp_path, monkeypatch):
    log = Trainer._log

    def log_and_vanish(self, step, metrics):
        log(self, step, metrics)
        shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr(Trainer, "_log", log_and_vanish)
    with pytest.raises(JaxlmError, match=r"cannot write .*No such file or directory"):
        fit(tiny(tmp_path))


def nan_at(step: int) -> optax.GradientTransformation:
    """Plain descent whose update of a step, counted from 1, is no number."""

    def update(updates, count, params=None):
        rate = jnp.where(count + 1 == step, jnp.nan, -0.01)
        return jax.tree.map(lambda x: rate * x, updates), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def test_weights_that_became_nan_between_rows_are_not_saved(tmp_path):
    train = {"log_every": 100, "eval_every": 100, "rollback_after": None}
    config = tiny(tmp_path, train=train, sample={"every": 0})
    told = "a weight became nan at step 10, and the checkpoint of step 5 is the last good one"
    with pytest.raises(JaxlmError, match=told):
        fit(config, optimizer=nan_at(8))
    assert saved_steps(tmp_path / "run" / "checkpoints") == [5]


def test_an_id_outside_the_vocabulary_is_told_as_such(tmp_path, monkeypatch):
    batches = tasks.causal_lm.train_batch

    def shifted(*arguments, **settings):
        batch = batches(*arguments, **settings)
        return batch | {"ids": batch["ids"] + 1000}

    monkeypatch.setattr(tasks.causal_lm, "train_batch", shifted)
    with pytest.raises(JaxlmError, match=r"holds the id 10\d\d, but the vocabulary has ids from 0"):
        fit(tiny(tmp_path))
