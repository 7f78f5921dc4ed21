"""What `jaxlm doctor` finds in whole, stopped and damaged runs."""

import json
import shutil
from pathlib import Path

import pytest

from jaxlm.checkpoint import set_aside
from jaxlm.cli import main
from jaxlm.config import JaxlmError, build_config
from jaxlm.training import fit
from jaxlm.training.doctor import examine
from jaxlm.training.run_directory import RunLock
from scripts.damages import cut, damages
from tests.training.runs import contents, fit_until, tiny
from tests.training.tuning import write

TRAIN = {"steps": 12, "eval_every": 4, "checkpoint_every": 5, "log_every": 1}
OF_RUNS = [(name, harm, all) for name, harm, all in damages() if not name.startswith("cache/")]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run that was stopped after its checkpoints of steps 8 (best) and 10."""
    folder = tmp_path_factory.mktemp("doctor")
    fit_until(tiny(folder, train=TRAIN, sample={"every": 3}), 11)
    return folder


@pytest.fixture
def run(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_whole_run_is_told_and_nothing_of_it_is_touched(run, capsys):
    before = contents(run)
    assert main(["doctor", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "the same command goes on from checkpoint 10"
    assert [line.partition("  ")[0] for line in said[:2]] == ["checkpoint 8", "checkpoint 10"]
    assert all("  whole" in line for line in said[:-1])
    assert contents(run) == before


def test_a_tokenizer_learned_from_rows_is_that_of_its_checkpoints(tmp_path):
    write(tmp_path, "rows.tsv", ["label\ttext", *(f"{c in 'ab'}\t{c} day" for c in "abcdefgh")])
    data = {"source": str(tmp_path / "rows.tsv"), "seq_len": 12}
    model = {"architecture": "encoder", "num_layers": 1, "num_heads": 2, "d_model": 16}
    sections = {"run": {"dir": str(tmp_path / "run")}, "data": data, "model": model}
    task, train = {"name": "sequence_classification"}, {"steps": 2, "batch_size": 2}
    fit(build_config(sections | {"task": task, "train": train}))
    assert examine(tmp_path / "run").status == 0


@pytest.mark.parametrize(
    ("name", "harm", "everywhere"), OF_RUNS, ids=lambda x: getattr(x, "__name__", str(x))
)
def test_every_damage_is_found_in_one_line(run, capsys, name, harm, everywhere):
    place = name.removeprefix("run/").replace("NEWEST", "10").replace("BEST", "8")
    files = sorted(run.glob(place), key=lambda file: file.stat().st_size)
    for file in files if everywhere else files[-1:]:
        harm(file)
    # A row file's later lines are not in a checkpoint's hash; a run goes on without the file.
    harmless = harm is Path.unlink and place == "environment.json"
    status = main(["doctor", str(run), "--json"])
    told = json.loads(capsys.readouterr().out)
    broken = [part for part in told["parts"] if part["condition"] == "damaged"]
    assert status == told["status"] == (2 if everywhere else 0 if harmless else 1)
    assert len(broken) == (3 if everywhere else 0 if harmless else 1)
    assert not any("\n" in part["told"] for part in broken)
    resumes = 8 if place.startswith("checkpoints/10") else 10
    unable = everywhere or place == "config.yaml"
    assert told["resumes_at"] == (None if unable else resumes)


def test_data_that_is_gone_or_other_is_told_by_doctor_and_on_resuming(home, run):
    config = tiny(home, run={"dir": str(run)}, train=TRAIN, sample={"every": 3})
    text = home / "text.txt"
    kept = text.read_text(encoding="utf-8")
    try:
        for harm, sentence in ((Path.unlink, "is no file, and no folder"), (cut, "changed")):
            text.write_text(kept, encoding="utf-8")
            harm(text)
            found = examine(run)
            assert (found.status, found.resumes_at) == (1, None)
            assert found.verdict == (
                "step 10 can be loaded, but goes on only when data can be read as recorded"
            )
            assert sentence in found.findings[-1].told
            with pytest.raises(JaxlmError, match=sentence) as raised:
                fit(config)
            assert "\n" not in str(raised.value)
    finally:
        text.write_text(kept, encoding="utf-8")


def test_the_model_that_a_run_stands_on_is_looked_for(home, run, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(run, base)
    tuned = {"init_from": str(base), "lora_rank": 2}
    parts = {"model": {}, "finetune": tuned, "train": TRAIN | {"steps": 2}, "sample": {"every": 0}}
    config = tiny(home, run={"dir": str(tmp_path / "tuned")}, **parts)
    # The model is that of the base.
    config = config.replace({"model": {"num_layers": 1}})
    fit(config)
    assert examine(tmp_path / "tuned").status == 0
    base.rename(tmp_path / "away")
    found = examine(tmp_path / "tuned")
    assert found.status == 1
    assert found.verdict.startswith("step 2 can be loaded, but goes on only when base")


def test_a_run_being_trained_and_checkpoints_set_aside_are_told(run):
    set_aside(run / "checkpoints" / "10")
    lock = RunLock(run)
    found = examine(run)
    lock.release()
    told = {f.part: f.told for f in found.findings if f.condition == "note"}
    assert told == {
        "lock": "a process is training in it now",
        "checkpoint 10": "set aside as 10.damaged when it was found",
    }
    assert found.resumes_at == 8


def test_a_run_without_checkpoints_is_whole_and_a_folder_that_is_no_run_refused(run, tmp_path):
    for name in ("checkpoints", "metrics.jsonl", "samples.jsonl"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = examine(run)
    assert (found.status, found.resumes_at) == (0, None)
    assert found.verdict == "it has no checkpoint yet: the same command starts anew"
    with pytest.raises(JaxlmError, match="is no run directory"):
        examine(tmp_path)


def test_an_older_checkpoint_without_hashes_is_read(run):
    for file in run.glob("checkpoints/*/hashes.json"):
        file.unlink()
    for meta in run.glob("checkpoints/*/meta/metadata"):
        meta.write_text(meta.read_text().replace('"hashed": true', '"hashed": false'))
    assert examine(run).status == 0
    (run / "checkpoints/10/params/_METADATA").unlink()
    assert examine(run).resumes_at == 8
