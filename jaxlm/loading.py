"""Open a run, a checkpoint or a Hugging Face directory as a Loaded, and write one as either."""

import re
from pathlib import Path

import tokenizers

from jaxlm import checkpoint
from jaxlm.artifact import Loaded, written_whole
from jaxlm.checkpoint import CheckpointError, is_checkpoint, read_meta, read_params, saved_steps
from jaxlm.config import Config, DataConfig, RunConfig, build_config, to_settings, to_yaml
from jaxlm.hub import is_reference, read_directory, write_directory
from jaxlm.hub.remote import download
from jaxlm.models import make_model, param_shapes
from jaxlm.tokenizer import AbsentTokenizer, Tokenizer

HUB_ID = r"[\w.-]+(/[\w.-]+)?"


def load(path: str | Path, step: int | None = None, revision: str | None = None) -> Loaded:
    """A run (its best checkpoint, else its last; `step` chooses one), a checkpoint, or a model of
    Hugging Face: a directory, or a hub id such as openai-community/gpt2 with its `revision`.

    Raises JaxlmError where there is nothing to load, or something that is damaged or unknown.
    """
    path = Path(path)
    if not path.is_dir():
        if path.exists() or not re.fullmatch(HUB_ID, str(path)):
            raise CheckpointError(
                f"there is no directory {path}; give a run, a checkpoint or a Hugging Face model"
            )
        return read_directory(download(str(path), revision))
    if is_checkpoint(path):
        if step is not None:
            raise CheckpointError(f"{path} is one checkpoint; give its run to choose a step")
        return load_checkpoint(path)
    if not (path / "config.yaml").exists() and is_reference(path):
        return read_directory(path)
    folder = path / "checkpoints"
    steps = saved_steps(folder)
    if not steps:
        what = "has no checkpoint yet" if (path / "config.yaml").exists() else "holds no model"
        raise CheckpointError(
            f"{path} {what}; give a run directory, a checkpoint in one, or a directory with a "
            "config.json of Hugging Face's"
        )
    if step is None:
        step = best_step(folder, steps)
    if step not in steps:
        raise CheckpointError(f"{path} has no step {step}; it has {', '.join(map(str, steps))}")
    return load_checkpoint(folder / str(step))


def best_step(folder: Path, steps: list[int]) -> int:
    """The step with the lowest val loss; the last one where none was measured."""
    losses = {step: read_meta(folder / str(step)).get("val_loss") for step in steps}
    measured = {step: loss for step, loss in losses.items() if loss is not None}
    return min(measured, key=measured.__getitem__) if measured else steps[-1]


def load_checkpoint(path: Path) -> Loaded:
    meta = read_meta(path)
    settings = build_config(meta["config"])
    config, tokenizer = settings.model, meta["tokenizer"]
    if tokenizer is None:
        tokenizer = AbsentTokenizer(f"none stood beside the weights of {settings.run.name}")
    else:
        backend = tokenizers.Tokenizer.from_str(tokenizer["backend"])
        tokenizer = Tokenizer(backend, tokenizer["config"])
    params = read_params(path, param_shapes(config))
    origin = {name: meta.get(name) for name in ("step", "val_loss", "data")}
    origin |= {"source": settings.run.name} | meta.get("origin", {})
    known = {name: value for name, value in origin.items() if value is not None}
    return Loaded(make_model(config), params, tokenizer, config, known)


def export(loaded: Loaded, directory: str | Path, dtype: str | None = None) -> None:
    """Write a model as a Hugging Face directory: see `jaxlm.hub.write_directory`."""
    write_directory(loaded, Path(directory), dtype)


def write_run(loaded: Loaded, directory: str | Path) -> None:
    """Write a model as a run directory without metrics, or nothing at all."""
    path = Path(directory)
    config = Config(
        run=RunConfig(name=path.name, dir=str(path)),
        model=loaded.config,
        data=DataConfig(seq_len=min(DataConfig.seq_len, loaded.config.max_seq_len)),
    )
    tokenizer = loaded.tokenizer
    absent = isinstance(tokenizer, AbsentTokenizer)
    meta = {
        "step": None,  # it was not trained here
        "config": to_settings(config),
        "tokenizer": None
        if absent
        else {"backend": tokenizer.backend.to_str(), "config": tokenizer.config},
        "data": None,
        "val_loss": None,
        "origin": dict(loaded.origin),
    }
    with written_whole(path) as folder:
        (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        if not absent:
            tokenizer.save(folder)
        checkpoint.write_params(folder / "checkpoints" / "0", loaded.params, meta)
