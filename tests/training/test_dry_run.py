"""A dry run does everything once, leaves nothing behind, and says what the run will take."""

import re

import pytest

from jaxlm.training import fit
from jaxlm.training.trainer import Trainer
from tests.training.runs import contents, tiny


def test_everything_is_done_once_and_removed(tmp_path, capsys, monkeypatch):
    done = []
    for name in ("_evaluate", "_sample", "_save"):
        own = getattr(Trainer, name)

        def note(self, step, own=own, name=name):
            done.append((name, step))
            return own(self, step)

        monkeypatch.setattr(Trainer, name, note)
    config = tiny(tmp_path, train={"dry_run": True})
    before = contents(tmp_path)
    loaded = fit(config)
    assert done == [("_evaluate", 1), ("_sample", 1), ("_save", 1)]
    assert loaded.origin["step"] == 1
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]
    said = capsys.readouterr().out.splitlines()[-4:]
    assert [line.partition(":")[0] for line in said] == ["dry run of run", "time", "disk", "memory"]
    assert re.fullmatch(r"time: .* for 24 steps at [\d,]+ tokens/s \(.* of checkpoints\)", said[1])


def test_a_dry_run_beside_a_run_leaves_it_as_it_is(tmp_path, capsys):
    train = {"steps": 4, "eval_every": 4, "checkpoint_every": 4}
    fit(tiny(tmp_path, train=train))
    before = contents(tmp_path / "run")
    fit(tiny(tmp_path, train=train | {"dry_run": True}))
    assert contents(tmp_path / "run") == before
    assert "is finished" not in capsys.readouterr().out
    fit(tiny(tmp_path, train=train))  # the field is no difference between two configs
    assert "is finished" in capsys.readouterr().out


def test_a_dry_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(self, step):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trainer, "_save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tiny(tmp_path, train={"dry_run": True}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]
