"""Several processes train one run as one process does: real ones, which exchange by gloo."""

import hashlib
import json
import signal
import sys
import time

import pytest

from jaxlm.config import ConfigError, ParallelConfig
from jaxlm.processes import named_processes
from tests.parallel.launching import (
    TRAIN,
    finish,
    free_port,
    named,
    start,
    train,
    wait_all,
    write_settings,
)
from tests.training.runs import TEXT, assert_same_run, leaves, rows

CLOSE = 1e-5


def apart(left, right):
    """The largest difference of a loss between two runs with the same steps."""
    ours, theirs = rows(left), rows(right)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    return max(abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(tmp_path):
    alone = finish(write_settings(tmp_path / "alone"), 1)
    first, second = train(write_settings(tmp_path / "both"), 2)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "2 x cpu (data 2)" in first.stdout
    assert "24 steps in" in first.stdout
    assert "step" not in second.stdout
    both = tmp_path / "both" / "run"
    assert names(both) == names(alone)
    assert names(tmp_path / "both" / "temporary") == []
    assert apart(alone, both) < CLOSE
    assert rows(alone, "samples.jsonl") == rows(both, "samples.jsonl")


def test_a_mistake_is_told_once_and_all_end(tmp_path):
    first, second = train(write_settings(tmp_path), 2, "--run.resume", "must")
    assert (first.returncode, second.returncode) == (2, 2)
    assert "error: run.resume is must" in first.stderr
    assert "error" not in second.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", ["config", "data"])
def test_a_process_with_another_config_or_text_is_told(tmp_path, what):
    own = write_settings(tmp_path / "own", data={"source": "text.txt"})
    folders = [tmp_path / name for name in ("here", "there")]
    for folder, end in zip(folders, ("", "多" * (what == "data")), strict=True):
        folder.mkdir()
        (folder / "text.txt").write_text(TEXT + end, encoding="utf-8")
    command = [sys.executable, str(TRAIN), "--config", str(own)]
    words = ["--optim.learning_rate", "0.02"] if what == "config" else []
    both = [
        start([*command, *more], [environment], tmp_path / "temporary", folder)[0]
        for more, environment, folder in zip(([], words), named(2), folders, strict=True)
    ]
    first, second = wait_all(both)
    assert (first.returncode, second.returncode) == (2, 2), first.stderr + second.stderr
    assert f"process 1 has another {what} than the first" in first.stderr


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_one_step_and_they_go_on_exactly(tmp_path):
    train_fields = {"steps": 400, "checkpoint_every": 50, "eval_every": 100}
    whole = finish(write_settings(tmp_path / "whole", train=train_fields), 2)
    settings = write_settings(tmp_path / "cut", train=train_fields)
    command = [sys.executable, str(TRAIN), "--config", str(settings)]
    both = start(command, named(2), tmp_path / "temporary")
    metrics = tmp_path / "cut" / "run" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 20:
        assert all(process.poll() is None for process in both)
        time.sleep(0.01)
    both[1].send_signal(signal.SIGTERM)
    first, second = wait_all(both)
    assert (first.returncode, second.returncode) == (130, 130), first.stderr + second.stderr
    assert "the same command goes on from there" in first.stdout
    assert_same_run(finish(settings, 2), whole)


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(tmp_path):
    wide = {"train": {"batch_size": 8, "checkpoint_every": 6}, "parallel": {"fsdp": -1, "data": 1}}
    alone = finish(write_settings(tmp_path / "alone", **wide), 1)
    settings = write_settings(tmp_path / "many", **wide)
    for number, steps in ((1, 6), (2, 12), (4, 18), (1, 24)):
        run = finish(settings, number, "--train.steps", str(steps))
        kept = sorted(hashlib.sha256(x.tobytes()).hexdigest() for x in leaves(run).values())
        for others in {1, 2, 4} - {number}:
            command = [sys.executable, "-m", "tests.parallel.restored", str(run)]
            environments = named(others) if others > 1 else [{}]
            first, *_ = wait_all(start(command, environments, tmp_path / "temporary"))
            assert first.returncode == 0, first.stderr[-3000:]
            assert json.loads(first.stdout.splitlines()[-1]) == kept, (number, others)
    assert apart(alone, run) < CLOSE


@pytest.mark.slow
def test_adapters_are_trained_in_two_processes_as_in_one(tmp_path):
    base = finish(write_settings(tmp_path / "base"), 1)
    words = ["--finetune.init_from", str(base), "--finetune.lora_rank", "2"]
    words += ["--data.tokenizer", "char"]
    one = finish(write_settings(tmp_path / "one"), 1, *words)
    two = finish(write_settings(tmp_path / "two"), 2, *words)
    assert apart(one, two) < CLOSE


@pytest.mark.slow
def test_slurm_names_the_processes(tmp_path):
    common = {
        "SLURM_JOB_ID": str(free_port()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
    }
    environments = [common | {"SLURM_PROCID": i, "SLURM_LOCALID": i} for i in "01"]
    command = [sys.executable, str(TRAIN), "--config", str(write_settings(tmp_path))]
    first, second = wait_all(start(command, environments, tmp_path / "temporary"))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "2 x cpu (data 2)" in first.stdout


VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.mark.parametrize(
    ("fields", "environment", "told"),
    [
        ({"num_processes": 2, "process_id": 0}, (), "coordinator_address is not given"),
        ({}, ("host:1", "2", ""), "JAX_PROCESS_ID must be a whole number"),
        ({}, ("host:1", "2", "2"), "process 2 is none of 2"),
        ({}, ("host", "2", "1"), "has no port"),
    ],
)
def test_processes_named_by_halves_are_told(monkeypatch, fields, environment, told):
    for name, value in zip(VARIABLES, environment, strict=False):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=told):
        named_processes(ParallelConfig(**fields))


def test_the_config_comes_before_the_environment(monkeypatch):
    assert named_processes(ParallelConfig()) is None
    for name, value in zip(VARIABLES, ("host:1", "4", "3"), strict=True):
        monkeypatch.setenv(name, value)
    found = named_processes(ParallelConfig(process_id=1))
    assert found == {"coordinator_address": "host:1", "num_processes": 4, "process_id": 1}
