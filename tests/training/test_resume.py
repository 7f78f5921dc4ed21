"""The same command again: exact continuation, refusals, and what a crash may leave behind."""

import signal
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxlm.checkpoint import saved_steps
from jaxlm.config import JaxlmError, build_config, read_yaml
from jaxlm.loading import load, write_run
from jaxlm.training import fit
from jaxlm.training.run_directory import RunLock
from jaxlm.training.trainer import Trainer
from tests.training.runs import TEXT, assert_same_run, contents, rows, tiny


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    fit(tiny(folder))
    return folder / "run"


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process Ctrl-C while a step's row is written."""
    log = Trainer._log

    def log_and_interrupt(self: Trainer, at: int, metrics: dict) -> None:
        log(self, at, metrics)
        if at == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_log", log_and_interrupt)


def interrupted(folder: Path, step: int, **sections: dict) -> Path:
    """A run directory that Ctrl-C left at a step."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(step, patch)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(folder, **sections))
    return folder / "run"


@pytest.mark.parametrize("step", [2, 14])
def test_ctrl_c_saves_and_the_same_command_goes_on_exactly(
    tmp_path: Path, undisturbed: Path, step: int
):
    run = interrupted(tmp_path, step)
    assert saved_steps(run / "checkpoints")[-1] == step
    fit(tiny(tmp_path))
    assert_same_run(run, undisturbed)


def test_the_config_that_a_run_keeps_does_not_delete_it(tmp_path: Path, capsys):
    overwrite = tiny(tmp_path, run={"overwrite": True}, train={"steps": 2})
    fit(overwrite)
    kept = build_config(read_yaml(tmp_path / "run" / "config.yaml"))
    assert (kept.run.overwrite, kept.run.resume) == (False, "auto")
    before = contents(tmp_path / "run")
    fit(kept)
    assert contents(tmp_path / "run") == before
    capsys.readouterr()
    fit(overwrite)
    assert f"overwriting {tmp_path / 'run'}: what it held is deleted" in capsys.readouterr().out


def test_an_imported_model_is_not_trained_on(tmp_path: Path, undisturbed: Path):
    write_run(load(undisturbed), tmp_path / "run")
    with pytest.raises(JaxlmError, match="holds an imported model"):
        fit(build_config(read_yaml(tmp_path / "run" / "config.yaml")))


def test_another_optimizer_of_ones_own_is_told_when_resuming(tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(4, patch)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(tmp_path), optimizer=optax.sgd(0.1))
    with pytest.raises(JaxlmError, match=r"run\.own: \('optimizer GradientTr.*',\) -> \(\)"):
        fit(tiny(tmp_path))
    with pytest.raises(JaxlmError, match="of another model or optimizer than the config's"):
        fit(tiny(tmp_path), optimizer=optax.adam(0.1))


def test_masks_and_sentence_pairs_resume_exactly(tmp_path: Path):
    model = {"architecture": "encoder", "head": "pretraining", "num_token_types": 2}
    sections = {
        "model": model,
        "data": {"tokenizer": "wordpiece", "vocab_size": 80},
        "task": {"name": "masked_lm", "masking": "word"},
        "train": {"steps": 8},
        "sample": {"prompts": None, "every": 4},
    }
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    fit(tiny(tmp_path / "whole", **sections))
    run = interrupted(tmp_path / "parts", 6, **sections)
    fit(tiny(tmp_path / "parts", **sections))
    assert_same_run(run, tmp_path / "whole" / "run")
    assert "[MASK]" in rows(run, "samples.jsonl")[0]["prompt"]
    assert {"next_loss", "next_accuracy"} <= rows(run)[0].keys()


@pytest.mark.parametrize(
    "optim", [{"name": "muon", "ema_decay": 0.9}, {"name": "schedule_free"}, {"name": "adafactor"}]
)
def test_every_kind_of_optimizer_state_resumes_exactly(tmp_path: Path, optim: dict):
    train = {"steps": 8, "accumulate_steps": 2}
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    fit(tiny(tmp_path / "whole", optim=optim, train=train))
    run = interrupted(tmp_path / "parts", 4, optim=optim, train=train)
    fit(tiny(tmp_path / "parts", optim=optim, train=train))
    assert_same_run(run, tmp_path / "whole" / "run")


def test_the_average_of_the_last_weights_resumes_exactly(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    train = {"average_last": 3, "checkpoint_every": 7}
    averaged = fit(tiny(whole, train=train))
    run = interrupted(cut, 20, train=train)
    fit(tiny(cut, train=train))
    assert_same_run(run, whole / "run")
    # What is kept is the mean of the weights at steps 12, 18 and 24.
    config = tiny(tmp_path, train={"eval_every": 6, "checkpoint_every": 1}).replace(
        {"run": {"dir": str(tmp_path / "raw")}}
    )
    kept = {}
    save = Trainer._save

    def keep(self: Trainer, step: int) -> None:
        kept[step] = jax.tree.map(np.asarray, self.state.params)
        save(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", keep)
        fit(config)
    mean = jax.tree.map(lambda *x: np.mean(x, axis=0), *(kept[step] for step in (12, 18, 24)))
    last = load(whole / "run", step=24).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mean, last)
    assert averaged.run_config.train.average_last == 3


def test_rows_after_the_restored_step_and_a_torn_line_are_cut_off(
    tmp_path: Path, undisturbed: Path
):
    run = interrupted(tmp_path, 8)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 10, "split": "train", "loss": 0.5}\n{"step": 12, "spl')
    with (run / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 12, "prompt": "今天", "te')
    fit(tiny(tmp_path))
    assert_same_run(run, undisturbed)


def test_an_unfinished_checkpoint_is_ignored(tmp_path: Path, undisturbed: Path):
    run = interrupted(tmp_path, 8)
    (run / "checkpoints" / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (run / "checkpoints" / "10").mkdir()
    fit(tiny(tmp_path))
    assert_same_run(run, undisturbed)


def test_a_run_without_a_checkpoint_starts_again(tmp_path: Path, undisturbed: Path):
    fit(tiny(tmp_path, train={"steps": 2}))
    run = tmp_path / "run"
    (run / "summary.json").unlink()
    for step in saved_steps(run / "checkpoints"):
        (run / "checkpoints" / str(step)).rename(tmp_path / f"gone{step}")
    fit(tiny(tmp_path))
    assert_same_run(run, undisturbed)


def test_a_crash_before_the_summary_is_mended_by_the_same_command(
    tmp_path: Path, undisturbed: Path
):
    fit(tiny(tmp_path))
    (tmp_path / "run" / "summary.json").unlink()
    fit(tiny(tmp_path))
    assert (tmp_path / "run" / "summary.json").exists()
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_finished_run_says_so_and_changes_nothing(
    undisturbed: Path, capsys: pytest.CaptureFixture
):
    before = contents(undisturbed)
    fit(tiny(undisturbed.parent))
    assert "is finished" in capsys.readouterr().out
    assert contents(undisturbed) == before


def test_a_changed_config_is_refused_with_its_difference(undisturbed: Path):
    before = contents(undisturbed)
    with pytest.raises(JaxlmError, match=r"optim\.learning_rate: 0\.01 -> 0\.1"):
        fit(tiny(undisturbed.parent, optim={"learning_rate": 0.1}))
    with pytest.raises(JaxlmError, match=r"optim\.clip_norm: 1\.0 -> None"):
        fit(tiny(undisturbed.parent, optim={"clip_norm": None}))
    assert contents(undisturbed) == before


def test_cadence_and_samples_may_change_when_resuming(tmp_path: Path):
    run = interrupted(tmp_path, 8)
    changed = {"train": {"log_every": 3, "checkpoint_every": 9}, "sample": {"prompts": ["写"]}}
    fit(tiny(tmp_path, **changed))
    assert [row["step"] for row in rows(run)][-3:] == [21, 24, 24]


def test_changed_text_is_refused(tmp_path: Path):
    interrupted(tmp_path, 8)
    config = tiny(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT.replace("quick", "brown"), encoding="utf-8")
    with pytest.raises(JaxlmError, match="data or tokenizer"):
        fit(config)


def test_resume_and_overwrite_decide_what_happens_to_an_old_run(tmp_path: Path):
    with pytest.raises(JaxlmError, match=r"run\.resume is must"):
        fit(tiny(tmp_path, run={"dir": str(tmp_path / "run"), "resume": "must"}))
    assert not (tmp_path / "run").exists()
    fit(tiny(tmp_path, train={"steps": 2}))
    with pytest.raises(JaxlmError, match=r"run\.resume is never"):
        fit(tiny(tmp_path, run={"dir": str(tmp_path / "run"), "resume": "never"}))
    fit(tiny(tmp_path, run={"dir": str(tmp_path / "run"), "overwrite": True}, train={"steps": 4}))
    assert [row["step"] for row in rows(tmp_path / "run")] == [2, 4, 4]


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(JaxlmError, match="holds other files"):
            fit(tiny(tmp_path, run={"dir": str(tmp_path / "run"), "overwrite": overwrite}))
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_two_processes_cannot_train_in_one_directory(tmp_path: Path):
    (tmp_path / "run").mkdir()
    lock = RunLock(tmp_path / "run")
    with pytest.raises(JaxlmError, match="another process is training"):
        fit(tiny(tmp_path))
    lock.release()
    fit(tiny(tmp_path, train={"steps": 2}))
