"""kill -9 at any moment, then the same command: the finished run is exact."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from jaxlm.checkpoint import saved_steps
from tests.training.runs import assert_same_run, rows, sections_of

TRAIN = Path(__file__).parents[2] / "train.py"


def command(folder: Path) -> list[str]:
    """The training command on the settings of `runs`, as a user types it."""
    folder.mkdir(exist_ok=True)
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(sections_of(folder), allow_unicode=True), encoding="utf-8")
    return [sys.executable, str(TRAIN), "--config", str(config), "--train.steps", "120"]


def finish(folder: Path) -> Path:
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def kill_when(folder: Path, moment: Callable[[], bool]) -> bool:
    """Start the command and kill -9 it as soon as `moment` holds; False if it ended before."""
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if moment():
            process.kill()
            process.wait()
            return True
        time.sleep(0.0005)
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("undisturbed") / "whole")


def last_step(run: Path) -> int:
    """The newest step in the metrics; a line may be half written while one looks."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1] if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


@pytest.mark.slow
def test_a_run_killed_during_a_save_goes_on_exactly(tmp_path: Path, undisturbed: Path):
    folder = tmp_path / "killed"
    checkpoints = folder / "run" / "checkpoints"

    def saving() -> bool:
        return last_step(folder / "run") >= 30 and any(checkpoints.glob("*tmp*"))

    assert kill_when(folder, saving)
    assert any(checkpoints.glob("*tmp*")), "the save was not cut off"
    assert_same_run(finish(folder), undisturbed)


@pytest.mark.slow
def test_a_run_killed_again_and_again_at_random_moments_is_exact(tmp_path: Path, undisturbed: Path):
    folder = tmp_path / "killed"
    random = np.random.default_rng(0)
    kills, reached = 0, 0
    while kills < 12:
        # From the last place on: in the middle of steps, saves, evaluations, deletions.
        target, delay = reached + int(random.integers(1, 12)), float(random.uniform(0, 0.3))

        def moment(target: int = target, delay: float = delay) -> bool:
            if last_step(folder / "run") < target:
                return False
            time.sleep(delay)
            return True

        if not kill_when(folder, moment):
            break
        kills += 1
        reached = max(saved_steps(folder / "run" / "checkpoints"), default=0)
    assert kills >= 4
    assert_same_run(finish(folder), undisturbed)


def test_a_mistake_is_one_sentence_and_status_2(tmp_path: Path):
    words = [*command(tmp_path / "wrong"), "--train.step", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: train.step is not a known field; did you mean")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "wrong" / "run").exists()


def test_help_names_every_setting():
    done = subprocess.run(
        [sys.executable, str(TRAIN), "--help"], capture_output=True, text=True, check=True
    )
    assert "--optim.adam_learning_rate" in done.stdout


@pytest.mark.slow
def test_the_rows_of_an_undisturbed_run_are_complete(undisturbed: Path):
    assert [row["step"] for row in rows(undisturbed) if row["split"] == "val"] == list(
        range(6, 121, 6)
    )
