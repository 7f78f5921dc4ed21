"""Whole runs on meshes of eight virtual devices, against one device: a program.

`python -m tests.parallel.runs_on_meshes FOLDER` prints a line of JSON for each comparison.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.checkpoint import PARAMS, STATE, restore_newest
from jaxlm.config import Config, build_config, read_yaml
from jaxlm.models import make_model
from jaxlm.parallel import make_mesh
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training import fit
from jaxlm.training.programs import compile_and_start
from jaxlm.training.state import to_items
from tests.parallel.meshes import texts
from tests.training.runs import leaves, rows, tiny
from tests.training.tuning import tuned, write

SCHEDULE = {"schedule": "constant", "warmup_steps": 0, "eps": 1e-4}
ONE, MIXED, WIDE = (
    {"data": d, "fsdp": f, "tensor": t} for d, f, t in ((1, 1, 1), (2, 2, 2), (1, 2, 4))
)


def run(folder: Path, name: str, steps: int, parallel: dict[str, int], **sections: Any) -> Path:
    """Train, or go on training, a run of this name; returns where it is."""
    whole: dict[str, Any] = {
        "run": {"dir": str(folder / name)},
        "model": {"num_heads": 4, "num_kv_heads": 2, "dropout": 0.1},
        "optim": SCHEDULE,
        "train": {"steps": steps, "average_last": 2, "checkpoint_every": 6},
        "sample": {"every": 6},
        "parallel": parallel,
    }
    for section, fields in sections.items():
        whole[section] = whole.get(section, {}) | fields
    fit(tiny(folder, **whole))
    return folder / name


def apart(left: Path, right: Path) -> float:
    """The largest difference of a loss in the metrics of two runs."""
    ours, theirs = rows(left), rows(right)
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    return max(abs(a["loss"] - b["loss"]) for a, b in zip(ours, theirs, strict=True))


def unequal_leaves(folder: Path, parallel: dict[str, int]) -> list[str]:
    """The leaves of a run's last checkpoint that differ by a bit when restored on another mesh."""
    config: Config = build_config(read_yaml(folder / "config.yaml") | {"parallel": parallel})
    mesh, model = make_mesh(config.parallel), make_model(config.model)
    state, _ = compile_and_start(config, model, causal_lm, texts(0), None, {}, mesh)
    params, rest = to_items(state)
    items, _ = restore_newest(folder / "checkpoints", lambda meta: {PARAMS: params, STATE: rest})
    found = {
        jax.tree_util.keystr(path).replace(".", "").replace("'", ""): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(items)
    }
    kept = sorted(leaf.tobytes() for leaf in leaves(folder).values())
    assert len(kept) == len(found)
    return [] if kept == sorted(leaf.tobytes() for leaf in found.values()) else list(found)


def main() -> None:
    folder = Path(sys.argv[1])
    alone = run(folder, "alone", 12, ONE)
    divided = run(folder, "divided", 6, MIXED)
    print(json.dumps({"unequal": unequal_leaves(divided, WIDE)}), flush=True)
    run(folder, "divided", 12, WIDE)
    print(json.dumps({"pretraining": apart(alone, divided)}), flush=True)
    rated = [(1, "今天天气真好"), (0, "写代码的中年人"), (1, "the quick fox"), (0, "the lazy dog")]
    lines = [f"{label}\t{text} {c}" for c in "天气写代" for label, text in rated]
    write(folder, "reviews.tsv", ["label\ttext", *lines])
    for name, parallel in (("one", ONE), ("many", MIXED)):
        adapters = {"finetune": {"init_from": str(alone), "lora_rank": 2}, "optim": SCHEDULE}
        fit(tuned(folder, folder / name, source="alone", **adapters, parallel=parallel))
    left, right = folder / "one", folder / "many"
    print(json.dumps({"tuning": apart(left, right)}), flush=True)


if __name__ == "__main__":
    main()
