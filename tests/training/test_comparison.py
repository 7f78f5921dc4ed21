"""Runs compared: groups over seeds, differences, means with their errors, paired tests."""

import json
import math

import pytest
import yaml

from jaxlm.config import JaxlmError, build_config, to_yaml
from jaxlm.training.comparison import comparison, grouped, paired_tests, read_run, read_runs
from jaxlm.training.plots import plot_curves

LOSSES = {1e-3: (2.0, 2.2, 2.1), 3e-3: (1.9, 2.0, 2.05)}


def write_run_like(folder, rate, seed, loss, finished=True, **sections):
    """What a run directory holds of a run, as far as a comparison looks."""
    folder.mkdir(parents=True)
    name, place = {"name": folder.name}, {"dir": str(folder)}
    config = {"run": {"seed": seed} | name | place, "optim": {"learning_rate": rate}} | sections
    (folder / "config.yaml").write_text(to_yaml(build_config(config).resolved()))
    rows = [{"step": 10, "split": "train", "loss": loss + 1}]
    rows += [{"step": 10, "split": "val", "loss": loss}]
    rows += [{"step": 20, "split": "val", "loss": loss + 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        summary = {"steps": 20, "seconds": 2.0, "tokens_per_second": 5.0, "test": {"f1": 0.5}}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two learning rates of three seeds."""
    for rate, losses in LOSSES.items():
        for seed, loss in enumerate(losses):
            write_run_like(tmp_path / f"{rate}_{seed}", rate, seed, loss)
    return tmp_path


def test_runs_that_differ_in_seed_name_and_cadence_are_one_group(runs):
    write_run_like(runs / "more", 1e-3, 7, 2.0, train={"log_every": 3})
    groups = grouped(read_runs([runs]))
    assert [group.label for group in groups] == ["learning_rate=0.001", "learning_rate=0.003"]
    assert [len(group.runs) for group in groups] == [4, 3]


def test_a_group_has_the_mean_over_seeds_and_its_standard_error(runs):
    found = comparison(read_runs([runs]))
    # Not optim.adam_learning_rate, which follows from it.
    assert found["differences"] == {"optim.learning_rate": ["0.001", "0.003"]}
    result = found["groups"][0]["results"]["best_val_loss"]
    assert result == {
        "mean": pytest.approx(2.1),
        "standard_error": pytest.approx(0.1 / math.sqrt(3)),
        "seeds": 3,
    }
    assert found["groups"][0]["results"]["final_val_loss"]["mean"] == pytest.approx(2.6)
    json.dumps(found, allow_nan=False)


def test_the_paired_test_is_students_over_common_seeds(runs):
    write_run_like(runs / "alone", 3e-3, 9, 0.1)  # a seed that the other group lacks
    test = next(t for t in paired_tests(grouped(read_runs([runs]))) if t.metric == "best_val_loss")
    # Differences -0.1, -0.2, -0.05: mean -0.11667, standard deviation 0.076376, 2 degrees of
    # freedom, for which p = 1 - |t| / sqrt(2 + t^2).
    assert test.seeds == 3
    assert test.difference == pytest.approx(-0.116667, abs=1e-5)
    assert test.t == pytest.approx(-2.645751, abs=1e-5)
    assert test.p == pytest.approx(0.118, abs=1e-3)


def test_equal_differences_have_no_t(runs):
    found = [t for t in paired_tests(grouped(read_runs([runs]))) if t.metric == "test f1"]
    assert [(t.difference, t.t, t.p) for t in found] == [(0.0, None, None)]


def test_an_unfinished_run_counts_as_far_as_it_went(tmp_path):
    run = read_run(write_run_like(tmp_path / "cut", 1e-3, 0, 2.0, finished=False))
    assert run.results() == {
        "best_val_loss": 2.0,
        "final_val_loss": 2.5,
        "final_train_loss": 3.0,
        "steps": 20,
    }


def test_what_is_no_run_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(JaxlmError, match="is no run directory"):
        read_runs([tmp_path / "empty"])
    (tmp_path / "empty" / "config.yaml").write_text(yaml.safe_dump({"run": {"seed": 1}}))
    with pytest.raises(JaxlmError, match="was not written by a run"):
        read_run(tmp_path / "empty")


def test_the_curves_are_drawn_also_where_a_loss_is_null(runs, tmp_path):
    groups = {g.label: [run.rows for run in g.runs] for g in grouped(read_runs([runs]))}
    next(iter(groups.values()))[0][1]["loss"] = None
    plot_curves(tmp_path / "curves.png", groups)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
