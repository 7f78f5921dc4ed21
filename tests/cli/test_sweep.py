"""`jaxlm sweep` as a user runs it: all combinations, once each, whatever happens to one."""

import json

import pytest
import yaml

from jaxlm.cli import main
from jaxlm.config import ConfigError
from jaxlm.training.sweeps import planned_runs, read_grid, sweep
from tests.cli.verbs import refused
from tests.training.runs import assert_same_run, rows, sections_of

FEW = ["--train.steps", "4", "--train.eval_every", "4", "--sample.every", "0"]


@pytest.fixture
def config(tmp_path):
    sections = sections_of(tmp_path)
    del sections["run"]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")
    return path


def command(config, *words):
    words = ["sweep", "--config", str(config), "--run.dir", str(config.parent / "sweep"), *words]
    return [*words, *FEW]


def test_a_grid_is_read_with_lists_in_brackets():
    words = ["optim.learning_rate=1e-3,3e-3", "sample.prompts=[a, b],[c]"]
    assert read_grid(words) == {
        "optim.learning_rate": ["1e-3", "3e-3"],
        "sample.prompts": ["[a, b]", "[c]"],
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optim.learning_rat=1"], "did you mean optim.learning_rate"),
        (["optim.learning_rate"], "needs values"),
        (["optim.learning_rate=1,1"], "twice"),
        (["run.dir=a,b"], "a folder of its own"),
    ],
)
def test_a_wrong_grid_is_told_before_anything_is_trained(config, capsys, words, told):
    flags = [word for text in words for word in ("--grid", text)]
    assert told in refused(capsys, *command(config, *flags))
    assert not (config.parent / "sweep").exists()


def test_every_combination_has_its_folder_and_its_seeds(config):
    grid = read_grid(["optim.learning_rate=1e-3,3e-3", "model.activation=relu,gelu_tanh"])
    folder, runs = planned_runs(config, ["--run.seed", "5"], grid, 2)
    assert folder.name == "tiny_sweep"
    assert len(runs) == 8
    assert runs[0].name == "learning_rate=1e-3,activation=relu,seed=5"
    assert runs[1].name == "learning_rate=1e-3,activation=relu,seed=6"
    with pytest.raises(ConfigError, match="needs --grid"):
        planned_runs(config, [], {}, None)


def test_a_sweep_trains_all_passes_finished_ones_over_and_ends_with_a_comparison(config, capsys):
    words = command(config, "--grid", "optim.learning_rate=1e-2,3e-2", "--seeds", "2")
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "run 4 of 4, learning_rate=3e-2,seed=1\n" in shown
    assert "results: mean ± standard error over seeds" in shown
    runs = sorted((config.parent / "sweep").iterdir())
    assert len(runs) == 4
    whole = json.loads((runs[0] / "summary.json").read_text())
    (runs[1] / "summary.json").unlink()  # as a run that was cut off just before its end
    assert main(words) == 0
    assert capsys.readouterr().out.count("finished before") == 3
    assert json.loads((runs[0] / "summary.json").read_text()) == whole
    alone = config.parent / "alone"
    sole = ["train", "--config", str(config), "--optim.learning_rate", "1e-2"]
    assert main([*sole, "--run.seed", "1", "--run.dir", str(alone), *FEW]) == 0
    assert_same_run(alone, runs[1])


def test_a_failing_combination_is_told_and_the_others_go_on(config, capsys):
    words = command(config, "--grid", "model.num_heads=3,2,4")
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "num_heads=3, failed: model." in captured.out
    assert captured.err == "error: 1 of 3 runs failed: num_heads=3\n"
    assert len(rows(config.parent / "sweep" / "num_heads=4")) == 3
    (config.parent / "sweep" / "num_heads=4" / "summary.json").unlink()
    words = command(config, "--grid", "model.num_heads=3,5")
    assert "num_heads" in refused(capsys, *words)


def test_a_failure_while_training_does_not_end_the_sweep(config, capsys):
    _, runs = planned_runs(config, ["--run.dir", str(config.parent / "s")], {}, 3)
    tried = []

    def train(config):
        tried.append(config.run.seed)
        if config.run.seed == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")

    assert list(sweep(config, runs, train)) == ["seed=1"]
    assert tried == [0, 1, 2]
    assert "seed=1, failed: RESOURCE_EXHAUSTED: out of memory\n" in capsys.readouterr().out
