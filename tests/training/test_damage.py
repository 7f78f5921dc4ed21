"""Damage to a run: the newest whole checkpoint is taken, with a word, or nothing is."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxlm
from jaxlm import files
from jaxlm.checkpoint import saved_steps
from jaxlm.config import JaxlmError
from jaxlm.training import fit
from tests.training.runs import assert_same_run, fit_until, rows, tiny

TRAIN = {"steps": 12, "eval_every": 4, "checkpoint_every": 5, "log_every": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A whole run, and one that was stopped after its checkpoints of steps 8 (best) and 10."""
    folder = tmp_path_factory.mktemp("damage")
    fit(tiny(folder, run={"dir": str(folder / "whole")}, train=TRAIN, sample={"every": 3}))
    cut = tiny(folder, run={"dir": str(folder / "cut")}, train=TRAIN, sample={"every": 3})
    fit_until(cut, 11)
    assert saved_steps(folder / "cut" / "checkpoints") == [8, 10]
    return folder


@pytest.fixture
def run(home, tmp_path):
    shutil.copytree(home / "cut", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def go_on(home, run):
    """The same command again, on the copy of the stopped run."""
    config = tiny(home, run={"dir": str(run)}, train=TRAIN, sample={"every": 3})
    return lambda: fit(config)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", ["params/d/*", "state/d/*", "meta/metadata", "hashes.json"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(
    home, run, capsys, name, harm, go_on
):
    harm(next(run.glob(f"checkpoints/10/{name}")))
    go_on()
    said = capsys.readouterr().out
    assert "damaged: " in said
    assert "; it is kept as 10.damaged" in said
    assert_same_run(run, home / "whole")


@pytest.mark.parametrize("name", ["params/d/*", "meta/metadata"])
def test_a_damaged_best_checkpoint_is_told_when_loading(run, capsys, name):
    flip(next(run.glob(f"checkpoints/8/{name}")))
    assert jaxlm.load(run).origin["step"] == 10
    assert "8 is damaged" in capsys.readouterr().err
    with pytest.raises(JaxlmError, match="8 is damaged"):
        jaxlm.load(run, step=8)


def test_damage_to_all_is_one_sentence_and_nothing_is_touched(run, go_on):
    for file in run.glob("checkpoints/*/params/d/*"):
        flip(file)
    for call in (lambda: jaxlm.load(run), lambda: go_on()):
        with pytest.raises(JaxlmError, match="is not as it was written") as raised:
            call()
        assert "\n" not in str(raised.value)
    assert saved_steps(run / "checkpoints") == [8, 10]


def test_rows_that_are_none_are_dropped_with_a_word(home, run, capsys, go_on):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[2:2] = [b'{"step": "x"}\n', b"\xff\x00\n", b"[1]\n", b"[" * 5000 + b"\n"]
    (run / "metrics.jsonl").write_bytes(b"".join(lines))
    go_on()
    told = "is not as it was at step 10; 4 lines that are no rows are dropped"
    assert told in capsys.readouterr().out
    assert_same_run(run, home / "whole")


def test_a_row_that_was_changed_is_told(run, capsys, go_on):
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"step": 2', '"step": 3', 1))
    go_on()
    assert "metrics.jsonl is not as it was at step 10\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_what_describes_the_run_is_mended(home, run, name, go_on):
    flip(run / name)
    go_on()
    assert (run / name).read_bytes() == (home / "whole" / name).read_bytes()


def test_a_summary_that_is_cut_is_made_again(home, run, go_on):
    go_on()
    cut(run / "summary.json")
    cut(run / "summary.json")
    go_on()
    assert_same_run(run, home / "whole")
    assert (run / "summary.json").read_text().endswith("}\n")


def test_an_older_checkpoint_without_hashes_is_read(run):
    (run / "checkpoints/10/hashes.json").unlink()
    meta = run / "checkpoints/10/meta/metadata"
    meta.write_text(meta.read_text().replace('"hashed": true', '"hashed": false'))
    assert jaxlm.load(run, step=10).origin["step"] == 10


def test_nothing_counts_before_it_is_on_disk(tmp_path, monkeypatch):
    """A power cut loses what was not synced: names in a folder, and bytes of a file."""
    synced: dict[str, int] = {}
    fsync, rename, replace = os.fsync, os.rename, os.replace
    commits = []

    def note(descriptor):
        fsync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced[path] = os.fstat(descriptor).st_size
        if path.endswith("checkpoints") and commits:
            # The older ones are still there when the new one is safe.
            assert set(commits[-1][1]) <= set(os.listdir(path))

    def whole(folder: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            assert str(path) in synced, path
            assert path.is_dir() or synced[str(path)] == path.stat().st_size, path

    def watch(move):
        def moved(source, target, **options):
            source, target = Path(source), Path(target)
            if target.parent.name == "checkpoints" and target.name.isdigit():
                whole(source)
                metrics = tmp_path / "run" / "metrics.jsonl"
                assert synced[str(metrics)] >= metrics.read_bytes().find(b"\n") > 0
                commits.append((target.name, [n for n in os.listdir(target.parent) if n.isdigit()]))
            elif source.name.startswith(".jaxlm-"):
                whole(source)
            move(source, target, **options)

        return moved

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", watch(rename))
    monkeypatch.setattr(os, "replace", watch(replace))
    fit(tiny(tmp_path, train=TRAIN, sample={"every": 0}))
    assert [name for name, _ in commits] == ["4", "5", "8", "10", "12"]
    last = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert synced[str(tmp_path / "run" / "metrics.jsonl")] == len(last)
    assert str(tmp_path / "run") in synced


def test_a_full_disk_is_one_sentence_and_the_state_is_kept(home, run, monkeypatch, go_on):
    def full(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_tree", full)
        with pytest.raises(JaxlmError, match=r"cannot write a checkpoint to .*: No space left on"):
            go_on()
    assert saved_steps(run / "checkpoints") == [8, 10]
    go_on()
    assert_same_run(run, home / "whole")
    assert [row["step"] for row in rows(run) if row["split"] == "val"] == [4, 8, 12]
    assert np.isfinite([row["loss"] for row in rows(run)]).all()
