"""Where the time of a run went: parts that add up, kept over kills and resumes."""

import json
import time
from types import SimpleNamespace

import pytest

from jaxlm.config import ModelConfig
from jaxlm.files import rows_in
from jaxlm.training import fit
from jaxlm.training.faults import Restarts
from jaxlm.training.goodput import PARTS, Goodput, goodput_line
from jaxlm.training.prefetch import Prefetch
from jaxlm.training.trainer import Trainer
from tests.training.runs import tiny


class Slow:
    """A task whose batches take a while."""

    def train_batch(self, step):
        time.sleep(0.05)
        return {}


def test_the_parts_are_exclusive_and_add_up_to_the_wall_time():
    began, goodput = time.perf_counter(), Goodput()
    with goodput.spent("steps"):
        time.sleep(0.02)
        with goodput.spent("evaluation"):
            time.sleep(0.03)
    seconds, wall = goodput.seconds(), time.perf_counter() - began
    assert sum(seconds.values()) == pytest.approx(wall, abs=2e-3)
    assert seconds["evaluation"] >= 0.03
    assert 0.02 <= seconds["steps"] < 0.03 + wall - 0.05
    report = goodput.report()
    assert sum(report[part] for part in PARTS) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("idle", "waited"), [(True, True), (False, False)])
def test_only_a_wait_with_nothing_on_the_device_is_one_for_data(idle, waited):
    loop = SimpleNamespace(goodput=Goodput(), state=SimpleNamespace())
    loop.state.step = SimpleNamespace(is_ready=lambda: idle)
    with Prefetch(Slow(), ModelConfig(vocab_size=9), 0, 3) as batches:
        loop.batches = batches
        Trainer._next_batch(loop)
    assert (loop.goodput.seconds()["waiting_for_data"] > 0.03) is waited


def test_times_are_kept_over_a_kill_and_what_was_done_again_is_lost(tmp_path, monkeypatch, capsys):
    evaluate = Trainer._evaluate

    def killed(self, step):
        if step == 18:
            raise SystemExit  # after the checkpoint of step 15
        return evaluate(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_evaluate", killed)
        with pytest.raises(SystemExit):
            fit(tiny(tmp_path))
    capsys.readouterr()
    run = tmp_path / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 18
    fit(tiny(tmp_path))
    lost = json.loads((run / "restarts.jsonl").read_text())
    assert (lost["step"], lost["reached"]) == (15, 18)
    assert 0 < lost["seconds"] <= rows[-1]["seconds"]
    goodput = json.loads((run / "summary.json").read_text())["goodput"]
    share = lost["seconds"] / goodput["seconds"]
    assert goodput["lost_to_restarts"] == pytest.approx(share, rel=0.05, abs=2e-4)
    assert goodput["compiling"] > 0
    assert goodput["evaluation"] > 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2] == goodput_line(goodput)


def restarts_in(folder):
    path = folder / "restarts.jsonl"
    return Restarts(path, rows_in(path))


def test_what_is_lost_adds_up_over_restarts(tmp_path):
    restarts = restarts_in(tmp_path)
    restarts.note(6, 8, 2.0)
    restarts.note(6, 9, 2.5, passed_over=[7, 8])
    again = restarts_in(tmp_path)
    assert (again.lost_seconds, again.passed_over) == (4.5, [7, 8])
    goodput = Goodput()
    goodput.restore({"steps": 3.0, "lost_to_restarts": 1.0}, again.lost_seconds)
    seconds = goodput.seconds()
    assert (seconds["lost_to_restarts"], seconds["steps"]) == (4.5, 3.0)


def test_what_came_after_the_checkpoint_that_a_run_goes_back_to_is_lost():
    goodput = Goodput()
    goodput.restore({"steps": 3.0}, 1.0)
    with goodput.spent("steps"):
        kept = goodput.seconds()
        time.sleep(0.03)
        before = sum(goodput.seconds().values())
        lost = goodput.roll_back(kept)
    seconds = goodput.seconds()
    assert 0.03 <= lost < 0.2
    assert seconds["lost_to_restarts"] == pytest.approx(1.0 + lost)
    assert sum(seconds.values()) == pytest.approx(before, abs=0.01)


def test_a_run_that_is_overwritten_forgets_what_was_lost(tmp_path):
    (tmp_path / "run").mkdir()
    fit(tiny(tmp_path, train={"steps": 2}))
    (tmp_path / "run" / "restarts.jsonl").write_text('{"step": 1, "seconds": 9.0}\n')
    fit(tiny(tmp_path, run={"dir": str(tmp_path / "run"), "overwrite": True}, train={"steps": 4}))
    assert not (tmp_path / "run" / "restarts.jsonl").exists()
