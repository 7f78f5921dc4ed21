"""Poisoned batches: their updates are skipped, the run goes back and on, and resumes exactly."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.checkpoint import saved_steps
from jaxlm.config import JaxlmError
from jaxlm.files import rows_in
from jaxlm.loading import load
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training import fit, guard
from jaxlm.training.faults import Restarts, batch_of, keep_batch
from jaxlm.training.trainer import Trainer
from tests.training.runs import assert_same_run, leaves, rows, tiny
from tests.training.test_own_parts import CopyTask
from tests.training.test_resume import interrupt_at


class PoisonedTask(CopyTask):
    """Copies, but for some batches whose loss is no number."""

    def __init__(self, *poisoned):
        super().__init__(4)
        self.poisoned, self.made = poisoned, []
        self.objective = self.poisonous

    @staticmethod
    def poisonous(model, params, batch, key):
        sums = causal_lm(model, params, batch, key)
        poison = batch["poison"].mean() if "poison" in batch else 0.0
        return sums | {"loss": sums["loss"] + jnp.float32(poison)}

    def train_batch(self, step):
        self.made.append(step)
        poison = np.full(4, np.nan if step in self.poisoned else 0.0, np.float32)
        return super().train_batch(step) | {"poison": poison}


def config(folder, name="run", **train):
    train = {"steps": 16, "eval_every": 8, "checkpoint_every": 5, "log_every": 4} | train
    run = {"dir": str(folder / name)}
    return tiny(folder, run=run, train=train, sample={"every": 0}, model={"dropout": 0.1})


def restarts(run):
    return [json.loads(line) for line in (run / "restarts.jsonl").read_text().splitlines()]


def test_a_poisoned_batch_is_skipped_kept_and_told(tmp_path, capsys):
    fit(config(tmp_path), task=PoisonedTask(3, 9))
    run = tmp_path / "run"
    found = {row["step"]: row for row in rows(run) if row["split"] == "train"}
    assert found[4]["loss"] is None  # the row of the update from batch 3
    assert [found[step].get("skipped") for step in (4, 8, 12, 16)] == [1, 1, 2, 2]
    kept = sorted(path.name for path in (run / "skipped").iterdir())
    assert kept == ["batch_3.npz", "batch_9.npz"]
    with np.load(run / "skipped" / "batch_9.npz") as batch:
        np.testing.assert_array_equal(batch["ids"], PoisonedTask().train_batch(9)["ids"])
    shown = capsys.readouterr().out
    assert "step 10: the update is skipped, as its loss or gradients are no numbers" in shown
    assert all(np.isfinite(x).all() for name, x in leaves(run).items() if "params" in name)
    assert not (run / "restarts.jsonl").exists()


def test_a_run_without_faults_has_no_trace_of_the_guard(tmp_path):
    fit(config(tmp_path), task=PoisonedTask())
    assert not any("skipped" in row or "guard_skipped" in row for row in rows(tmp_path / "run"))
    assert not (tmp_path / "run" / "skipped").exists()


def test_three_in_a_row_go_back_to_the_checkpoint_and_are_passed_over(tmp_path, capsys):
    task = PoisonedTask(6, 7, 8)
    fit(config(tmp_path), task=task)
    run = tmp_path / "run"
    (row,) = restarts(run)
    assert (row["step"], row["passed_over"]) == (5, [6, 7, 8])
    # The evaluation of step 8 is put off, and the loop looks at the next step.
    assert row["reached"] == 9
    assert "going back to step 5, and passing over the batches 6, 7, 8" in capsys.readouterr().out
    # After going back step 5 takes batch 5 again, step 6 takes batch 9, and the last batch 18.
    assert max(task.made) == 18
    steps = [row["step"] for row in rows(run)]
    assert steps == [4, 8, 8, 12, 16, 16]
    assert all(row["loss"] is not None and "skipped" not in row for row in rows(run))
    clean = CleanTask(6, 7, 8)
    fit(config(tmp_path, "clean"), task=clean)
    assert_same_run(run, tmp_path / "clean")
    goodput = json.loads((run / "summary.json").read_text())["goodput"]
    assert goodput["lost_to_restarts"] > 0


class CleanTask(PoisonedTask):
    """The same without the poisoned batches, those after them moved up."""

    def train_batch(self, step):
        return PoisonedTask.train_batch(PoisonedTask(), batch_of(step, self.poisoned))


CleanTask.__name__ = "PoisonedTask"  # as the config records it


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.slow), "after"])
def test_a_kill_around_going_back_changes_nothing(tmp_path, monkeypatch, moment):
    fit(config(tmp_path, "whole"), task=PoisonedTask(6, 7, 8))
    roll_back = Trainer._roll_back

    def killed(self, skips):
        if moment == "after":
            roll_back(self, skips)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_roll_back", killed)
        with pytest.raises(SystemExit):
            fit(config(tmp_path, "cut"), task=PoisonedTask(6, 7, 8))
    fit(config(tmp_path, "cut"), task=PoisonedTask(6, 7, 8))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    passed = [row.get("passed_over") for row in restarts(tmp_path / "cut")]
    assert passed.count([6, 7, 8]) == 1


def test_what_is_due_amidst_skipped_updates_is_done_after_them(tmp_path):
    fit(config(tmp_path), task=PoisonedTask(6, 7))
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found if row["split"] == "val"] == [9, 16]


def test_ctrl_c_amidst_skipped_updates_stops_after_them_and_resumes_exactly(tmp_path, monkeypatch):
    fit(config(tmp_path, "whole", log_every=1), task=PoisonedTask(6, 7, 8))
    run = tmp_path / "run"
    interrupt_at(8, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit(config(tmp_path, log_every=1), task=PoisonedTask(6, 7, 8))
    monkeypatch.undo()
    assert saved_steps(run / "checkpoints")[-1] == 6  # one step after going back to 5
    fit(config(tmp_path, log_every=1), task=PoisonedTask(6, 7, 8))
    assert_same_run(run, tmp_path / "whole")


def test_how_often_the_loop_looks_changes_nothing(tmp_path):
    for name, every in (("often", 1), ("seldom", 16)):
        fit(config(tmp_path, name, log_every=every), task=PoisonedTask(6, 7, 8))
    often, seldom = leaves(tmp_path / "often"), leaves(tmp_path / "seldom")
    for name, leaf in often.items():
        np.testing.assert_array_equal(leaf, seldom[name], err_msg=name)


def test_without_a_checkpoint_to_go_back_to_the_run_ends_with_one_sentence(tmp_path):
    with pytest.raises(JaxlmError, match=r"up to step 5, .* no checkpoint was saved before it"):
        fit(config(tmp_path), task=PoisonedTask(0, 1, 2))
    assert saved_steps(tmp_path / "run" / "checkpoints") == []


def test_going_back_again_and_again_ends_the_run_and_keeps_the_last_good_state(tmp_path):
    told = r"going back to the checkpoint of step 5 did not help 3 times"
    with pytest.raises(JaxlmError, match=told):
        fit(config(tmp_path), task=PoisonedTask(*range(5, 40)))
    run = tmp_path / "run"
    assert [row["passed_over"][0] for row in restarts(run)] == [5, 8, 11]
    assert saved_steps(run / "checkpoints") == [5]
    assert np.isfinite(load(run, step=5).params["backbone"]["embed"]["tokens"]).all()


def test_rollback_can_be_turned_off(tmp_path):
    fit(config(tmp_path, rollback_after=None), task=PoisonedTask(6, 7, 8, 9, 10))
    assert rows(tmp_path / "run")[-2]["skipped"] == 5
    assert not (tmp_path / "run" / "restarts.jsonl").exists()


def test_a_validation_that_is_no_number_is_never_the_best(tmp_path, monkeypatch):
    evaluate = PoisonedTask.evaluate
    losses = iter([1.0, float("nan"), 0.5, float("nan")])
    monkeypatch.setattr(
        PoisonedTask,
        "evaluate",
        lambda self, model, params: evaluate(self, model, params) | {"loss": next(losses)},
    )
    monkeypatch.setattr(PoisonedTask, "best_by", "loss")
    fit(config(tmp_path, eval_every=4), task=PoisonedTask())
    run = tmp_path / "run"
    vals = [row["loss"] for row in rows(run) if row["split"] == "val"]
    assert vals == [1.0, None, 0.5, None]
    assert saved_steps(run / "checkpoints") == [12, 16]  # the best and the last
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["best_val_loss"], summary["final_val_loss"]) == (0.5, 0.5)


class SpikingTask(PoisonedTask):
    """Copies, but for some batches whose loss is finite and far too large."""

    @staticmethod
    def poisonous(model, params, batch, key):
        sums = causal_lm(model, params, batch, key)
        spike = batch["poison"].mean() if "poison" in batch else 0.0
        return sums | {"loss": sums["loss"] * (1 + spike)}

    def train_batch(self, step):
        batch = super().train_batch(step)
        return batch | {"poison": np.nan_to_num(batch["poison"], nan=1e4)}


class SmoothTask(SpikingTask):
    """The same without the spikes, the batches after them moved up."""

    def train_batch(self, step):
        return SpikingTask.train_batch(SpikingTask(), batch_of(step, self.poisoned))


SmoothTask.__name__ = "SpikingTask"  # as the config records it


@pytest.fixture
def soon(monkeypatch):
    """Spikes are measured by the last four losses, so that a short run has some."""
    monkeypatch.setattr(guard, "WINDOW", 4)


def test_the_update_of_a_spike_is_skipped_where_the_config_says_so(tmp_path, soon, capsys):
    fit(config(tmp_path, skip_spikes=50.0), task=SpikingTask(9))
    run = tmp_path / "run"
    assert [row.get("skipped") for row in rows(run) if row["split"] == "train"][-2:] == [1, 1]
    assert "step 10: the update is skipped" in capsys.readouterr().out
    assert [path.name for path in (run / "skipped").iterdir()] == ["batch_9.npz"]
    fit(config(tmp_path, "taken"), task=SpikingTask(9))
    assert not any("skipped" in row for row in rows(tmp_path / "taken"))
    kept, taken = leaves(run), leaves(tmp_path / "taken")
    assert any((kept[name] != taken[name]).any() for name in kept if "params" in name)


def test_spikes_leave_no_trace_in_the_best_checkpoint_or_the_last(tmp_path, soon):
    fit(config(tmp_path, skip_spikes=50.0), task=SpikingTask(9, 10, 11))
    (row,) = restarts(tmp_path / "run")
    assert (row["step"], row["passed_over"]) == (8, [9, 10, 11])
    fit(config(tmp_path, "smooth", skip_spikes=50.0), task=SmoothTask(9, 10, 11))
    assert_same_run(tmp_path / "run", tmp_path / "smooth")
    saved = [saved_steps(tmp_path / name / "checkpoints") for name in ("run", "smooth")]
    assert saved[0] == saved[1]
    best = [load(tmp_path / name).params["backbone"]["embed"] for name in ("run", "smooth")]
    np.testing.assert_array_equal(best[0]["tokens"], best[1]["tokens"])


def test_passed_over_batches_take_no_step_and_leave_earlier_steps_alone():
    passed = [3, 4, 9]
    assert [batch_of(step, passed) for step in range(9)] == [0, 1, 2, 5, 6, 7, 8, 10, 11]
    assert [batch_of(step, []) for step in range(3)] == [0, 1, 2]


def test_a_torn_line_of_restarts_counts_as_none(tmp_path):
    path = tmp_path / "restarts.jsonl"
    Restarts(path, []).note(5, 9, 1.0, passed_over=[6])
    with path.open("a") as file:
        file.write('{"step": 5, "passed_over": [7')
    assert Restarts(path, rows_in(path)).passed_over == [6]


def test_few_batches_are_kept(tmp_path):
    made = [keep_batch(tmp_path / "skipped", n, {"ids": np.zeros(2)}) for n in range(40)]
    assert sum(path is not None for path in made) == 32
    assert keep_batch(tmp_path / "skipped", 3, {"ids": np.ones(2)}) is not None
