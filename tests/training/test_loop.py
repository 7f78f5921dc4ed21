"""What the loop does between two steps: nothing that waits, and nothing that grows with the run."""

import json
import threading
from importlib import import_module

import jax
import numpy as np
import pytest

from jaxlm.config import JaxlmError, ModelConfig
from jaxlm.runtime import DETERMINISTIC
from jaxlm.training import fit, trainer
from jaxlm.training.history import History
from jaxlm.training.prefetch import AHEAD, Prefetch
from jaxlm.training.trainer import Trainer
from tests.training.runs import tiny


class Sealed(list):
    """Rows that can be added to, but not walked over."""

    def __iter__(self):
        raise AssertionError("the loop walks over all rows")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run whose loop may neither move data unasked nor walk over rows, and what it did."""
    folder = tmp_path_factory.mktemp("loop")
    train, log, load, start = Trainer.train, Trainer._log, trainer.load, threading.Thread.start
    seen = {"written": [], "loads": 0, "imports": 0}

    def guarded_train(self, interrupted):
        self.history.rows = Sealed(self.history.rows)
        with jax.transfer_guard("disallow"):
            train(self, interrupted)
        self.history.rows = self.history.rows[:]

    def watched_log(self, step, metrics):
        log(self, step, metrics)
        text = (folder / "run" / "metrics.jsonl").read_text() if step > 2 else ""
        seen["written"].append((step, [json.loads(line)["step"] for line in text.splitlines()]))

    def counted_load(*inputs, **keywords):
        seen["loads"] += 1
        return load(*inputs, **keywords)

    def counted_start(self):
        seen["imports"] += getattr(self, "_target", None) is import_module
        start(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", guarded_train)
        patch.setattr(Trainer, "_log", watched_log)
        patch.setattr(trainer, "load", counted_load)
        patch.setattr(threading.Thread, "start", counted_start)
        fit(tiny(folder, sample={"every": 0}, train={"patience": 3}))
    return seen


def test_a_row_is_fetched_when_the_next_is_due_or_before_an_evaluation(watched):
    rows = dict(watched["written"])
    assert rows[4] == [2]
    # The evaluation of step 6 comes after the rows up to it.
    assert rows[8] == [2, 4, 6, 6]


def test_saving_is_imported_once_and_the_best_checkpoint_loaded_once(watched):
    assert watched["imports"] == 1
    assert watched["loads"] == 1


class Counting:
    """A task that fills one buffer again and again, and counts its batches."""

    def __init__(self, broken=None):
        self.buffer, self.made, self.broken = np.zeros((2, 3), np.int32), [], broken

    def train_batch(self, step):
        self.made.append(step)
        self.buffer[:] = step
        if step == self.broken:
            self.buffer[0, 0] = 99
        return {"ids": self.buffer}


def test_batches_come_in_order_each_its_own_and_few_are_made_ahead():
    task = Counting()
    with Prefetch(task, ModelConfig(vocab_size=50), 3, 20) as batches:
        taken = [batches.take() for _ in range(5)]
        assert [int(batch["ids"][0, 0]) for batch in taken] == [3, 4, 5, 6, 7]
        assert all(isinstance(batch["ids"], jax.Array) for batch in taken)
    assert task.made == list(range(3, 3 + len(task.made)))
    assert len(task.made) <= 5 + AHEAD


def test_no_batch_is_made_past_the_end():
    task = Counting()
    with Prefetch(task, ModelConfig(vocab_size=50), 0, 2) as batches:
        batches.take(), batches.take()
    assert task.made == [0, 1]


def test_a_wrong_batch_is_told_at_its_own_step():
    with Prefetch(Counting(broken=1), ModelConfig(vocab_size=50), 0, 9) as batches:
        batches.take()
        with pytest.raises(JaxlmError, match="the batch of step 1 holds the id 99"):
            batches.take()


class Judge:
    """What History needs of a task and of a run directory."""

    step_tokens = 1.0

    def __init__(self):
        self.rows = []

    def score(self, row):
        return row["accuracy"]

    def epochs_at(self, step):
        return 0.0

    def append(self, name, row):
        self.rows.append(row)


def test_the_best_score_is_kept_and_a_score_that_is_no_number_is_the_worst():
    judge = Judge()
    history = History(judge, judge, None)
    scores = [float("nan"), 0.2, 0.2, 0.5, float("nan"), 0.4]
    better = [history.add_evaluation(i, {"loss": 1.0, "accuracy": s}) for i, s in enumerate(scores)]
    assert better == [False, True, False, True, False, False]
    assert (history.best, history.evaluations_since_best) == (0.5, 2)
    assert judge.rows[0]["accuracy"] is None
    again = History(judge, judge, None)
    again.restore(judge.rows, 5, 1.0)
    assert (again.best, again.evaluations_since_best) == (0.5, 2)
    assert again.last_val == judge.rows[-1]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), "too little memory"),
        (IndexError("absl::raw_hash_map<>::at"), "leave train.deterministic out"),
    ],
)
def test_what_a_device_says_is_told_in_a_sentence(tmp_path, monkeypatch, error, told):
    def fail(self, interrupted):
        raise error

    monkeypatch.setattr(Trainer, "train", fail)
    monkeypatch.setenv("XLA_FLAGS", DETERMINISTIC)
    with pytest.raises(JaxlmError, match=told):
        fit(tiny(tmp_path, train={"deterministic": True}))
