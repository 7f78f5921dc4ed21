"""A trace of chosen steps, which a viewer opens, and which changes nothing of the run."""

import gzip
import json

import pytest

from jaxlm.training import fit
from jaxlm.training.trainer import Trainer
from tests.training.runs import rows, tiny

QUIET = {"sample": {"every": 0}}


def traces(run):
    return sorted((run / "profile").rglob("perfetto_trace.json.gz"))


def marked(file):
    """The steps that a trace has marked."""
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    numbers = [e["args"]["step_num"] for e in events if e.get("name") == "step"]
    return sorted({int(number) for number in numbers})


def test_the_trace_holds_the_steps_asked_for_and_the_run_is_as_without(tmp_path, capsys):
    train = {"steps": 8, "eval_every": 8, "checkpoint_every": 8}
    (tmp_path / "plain").mkdir()
    fit(tiny(tmp_path / "plain", train=train, **QUIET))
    capsys.readouterr()
    fit(tiny(tmp_path, train={**train, "profile": "3:5"}, **QUIET))
    (file,) = traces(tmp_path / "run")
    assert f"wrote {file}; open it at ui.perfetto.dev" in capsys.readouterr().out
    assert marked(file) == [3, 4]
    assert rows(tmp_path / "run") == rows(tmp_path / "plain" / "run")
    again = {"run": {"dir": str(tmp_path / "run"), "overwrite": True}}
    fit(tiny(tmp_path, train={**train, "profile": None}, **again, **QUIET))
    assert not (tmp_path / "run" / "profile").exists()


def test_a_run_that_ends_while_traced_keeps_what_was_traced(tmp_path, monkeypatch):
    def broken(self, step, metrics):
        raise SystemExit

    monkeypatch.setattr(Trainer, "_log", broken)
    with pytest.raises(SystemExit):
        fit(tiny(tmp_path, train={"profile": "0:9"}, **QUIET))
    assert marked(traces(tmp_path / "run")[0]) == [0, 1]
