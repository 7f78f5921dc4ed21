"""Rows sent to TensorBoard, wandb and trackio: all of them, also after a resume."""

import json
import struct
import sys
from types import ModuleType

import pytest

from jaxlm.config import JaxlmError
from jaxlm.training import fit, loggers
from tests.training.runs import tiny
from tests.training.test_resume import interrupted

TRAIN = {"steps": 8, "eval_every": 4, "checkpoint_every": 4}


def config(folder, *names, **sections):
    run = {"dir": str(folder / "run"), "name": "foxes", "loggers": list(names)}
    return tiny(folder, run=run, train=TRAIN, sample={"every": 0}, **sections)


def losses(folder):
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [(row["split"], row["step"], row["loss"]) for row in map(json.loads, lines)]


class FakeRun:
    """What a client's `init` returns, and what it was told."""

    def __init__(self, given):
        self.given, self.logged, self.finished, self.defined = given, [], False, []

    def define_metric(self, *names, **keywords):
        self.defined.append((names, keywords))

    def log(self, values, step=None):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def client(monkeypatch):
    """Both clients, as fakes that collect their runs."""
    runs = []
    for name in ("wandb", "trackio"):
        fake = ModuleType(name)
        fake.init = lambda **given: runs.append(FakeRun(given)) or runs[-1]
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(loggers, "find_spec", lambda name: True)
    return runs


def test_wandb_gets_every_row_and_knows_a_resumed_run_again(tmp_path, client):
    run = {"dir": str(tmp_path / "run"), "name": "foxes", "loggers": ["wandb"]}
    sections = {"run": run, "train": TRAIN}
    interrupted(tmp_path, 4, **sections, sample={"every": 0})
    fit(config(tmp_path, "wandb"))
    first, second = client
    assert first.given["id"] == second.given["id"]
    assert second.given["resume"] == "allow"
    assert second.given["name"] == "foxes"
    assert second.given["config"]["optim"]["learning_rate"] == 1e-2
    assert first.defined == [(("*",), {"step_metric": "step"})]
    assert first.finished
    assert second.finished
    found = [
        (split, values["step"], values[f"{split}/loss"])
        for _, values in first.logged + second.logged
        for split in ("train", "val")
        if f"{split}/loss" in values
    ]
    assert found == losses(tmp_path)
    again = config(tmp_path, "wandb").replace({"run": {"overwrite": True}})
    fit(again)
    assert client[2].given["id"] != first.given["id"]


def test_trackio_gets_every_row_at_its_step(tmp_path, client):
    fit(config(tmp_path, "trackio"))
    (run,) = client
    assert [step for step, _ in run.logged] == [step for _, step, _ in losses(tmp_path)]
    assert "val/perplexity" in run.logged[-1][1]
    assert (run.given["project"], run.finished) == ("jaxlm", True)


def scalars(folder):
    """Tag, step and value of each scalar in the event files of a folder, in order."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)  # then a hash of it, the event, a hash
            event = Event.FromString(content[at + 12 : at + 12 + size])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += size + 16
    return found


def test_tensorboard_reads_what_was_logged(tmp_path):
    pytest.importorskip("tensorboardX")
    fit(config(tmp_path, "tensorboard"))
    found = scalars(tmp_path / "run" / "tensorboard")
    for split, step, loss in losses(tmp_path):
        value = next(v for tag, at, v in found if (tag, at) == (f"{split}/loss", step))
        assert value == pytest.approx(loss, rel=1e-6)
    assert {"train/grad_norm", "val/accuracy"} <= {tag for tag, _, _ in found}


def test_a_missing_package_is_one_sentence_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    told = "run.loggers names wandb, but the package wandb is not installed; pip install wandb"
    with pytest.raises(JaxlmError, match=told):
        fit(config(tmp_path, "wandb"))
    assert not (tmp_path / "run").exists()


def test_a_logger_that_fails_does_not_end_the_run(tmp_path, client, monkeypatch, capsys):
    def lost(self, values, step=None):
        raise ConnectionError("the network is gone\nand more")

    monkeypatch.setattr(FakeRun, "log", lost)
    fit(config(tmp_path, "wandb", "trackio"))
    assert len(losses(tmp_path)) == 6
    shown = capsys.readouterr().out
    told = "wandb fails, and gets no more rows: ConnectionError: the network is gone\n"
    assert shown.count(told) == 1
    assert "and more" not in shown


def test_a_logger_that_cannot_be_opened_is_told(tmp_path, client, monkeypatch):
    def refuse(**given):
        raise RuntimeError("no account")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(JaxlmError, match=r"wandb of run\.loggers cannot be opened: no account"):
        fit(config(tmp_path, "trackio", "wandb"))
    assert client[0].finished
