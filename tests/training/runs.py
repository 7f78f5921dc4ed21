"""A run small enough to train in a test, and how two runs are compared."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from jaxlm.checkpoint import saved_steps
from jaxlm.config import Config, build_config
from jaxlm.training import fit
from jaxlm.training.trainer import Trainer

TEXT = (
    "今天天气真好，写代码的中年人天天写代码。\nThe quick brown fox jumps over the lazy dog.\n" * 12
)
TIMES = ("seconds", "tokens_per_second", "mfu")


def sections_of(folder: Path) -> dict[str, dict[str, Any]]:
    """One layer, 24 steps, a checkpoint every 5 and an evaluation every 6, on TEXT."""
    source = folder / "text.txt"
    source.write_text(TEXT, encoding="utf-8")
    return {
        "run": {"dir": str(folder / "run")},
        "model": {"num_layers": 1, "num_heads": 2, "d_model": 16, "dropout": 0.1},
        "data": {"source": str(source), "seq_len": 16},
        "optim": {"learning_rate": 1e-2, "warmup_steps": 4},
        "train": {
            "steps": 24,
            "batch_size": 4,
            "eval_every": 6,
            "checkpoint_every": 5,
            "log_every": 2,
        },
        "sample": {"prompts": ["今天"], "every": 12, "max_new_tokens": 4},
    }


def tiny(folder: Path, **sections: dict[str, Any]) -> Config:
    """The config of `sections_of` with fields replaced, section by section."""
    base = sections_of(folder)
    whole = {name: base.get(name, {}) | sections.get(name, {}) for name in {*base, *sections}}
    warmup = min(whole["optim"]["warmup_steps"], whole["train"]["steps"])
    return build_config(whole | {"optim": whole["optim"] | {"warmup_steps": warmup}})


def rows(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """The rows of a file, if there is one, without what depends on the clock."""
    if not (run / name).exists():
        return []
    found = [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
    return [{key: row[key] for key in row if key not in TIMES} for row in found]


def leaves(run: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, by its path."""
    import orbax.checkpoint as ocp

    folder = run / "checkpoints" / str(saved_steps(run / "checkpoints")[-1])
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)  # wherever they lay
    trees = {}
    for item in ("params", "state"):
        place, reader = (folder / item).absolute(), ocp.PyTreeCheckpointer()
        kinds = jax.tree.map(lambda _: as_numpy, reader.metadata(place).item_metadata.tree)
        trees[item] = reader.restore(place, restore_args=kinds)
    flat = jax.tree_util.tree_leaves_with_path(trees)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def assert_same_run(left: Path, right: Path) -> None:
    """Equal bit for bit: metrics, samples, and the leaves of the last checkpoint."""
    assert rows(left) == rows(right)
    assert rows(left, "samples.jsonl") == rows(right, "samples.jsonl")
    ours, theirs = leaves(left), leaves(right)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name, strict=True)


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file under a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fit_until(config: Config, last: int) -> None:
    """Train until Ctrl-C after a step."""
    log = Trainer._log

    def stop(self, step, metrics):
        log(self, step, metrics)
        if step == last:
            raise KeyboardInterrupt

    with mock.patch.object(Trainer, "_log", stop), suppress(KeyboardInterrupt):
        fit(config)
