"""Five steps of tiny models on meshes of eight virtual devices, against one: a program.

It prints a line of JSON for each model and mesh, with the largest difference of losses and of
params, and how many leaves of the state are divided. Words such as gpt/2,2,2 choose among them.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxlm.config import Config, build_config
from jaxlm.models import make_model
from jaxlm.parallel import make_mesh, mesh_of, place_rows
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.tasks.masked_lm import masked_lm
from jaxlm.tasks.task import mean_scores
from jaxlm.tasks.teacher_forcing import TeacherForcing
from jaxlm.training.programs import compile_and_start
from jaxlm.training.state import evaluation_params, remembered

STEPS, ROWS, LENGTH = 5, 8, 12
MESHES = ((8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8))
BASE: dict[str, Any] = {
    "model": {"num_layers": 2, "num_heads": 8, "d_model": 32, "dropout": 0.1, "max_seq_len": 16},
    "data": {"seq_len": LENGTH},
    # A larger epsilon than usual: rounding must not decide the sign of an update.
    "optim": {"learning_rate": 1e-2, "warmup_steps": 0, "eps": 1e-4},
    "train": {"steps": STEPS, "batch_size": ROWS},
}


def case(**sections: dict[str, Any]) -> Config:
    return build_config({n: BASE.get(n, {}) | sections.get(n, {}) for n in {*BASE, *sections}})


def texts(step: int, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Rows with few targets beside rows with many."""
    random = np.random.default_rng(step)
    tokens = random.integers(0, 48, (rows, LENGTH + 1)).astype(np.int32)
    share = np.linspace(0.1, 1, rows)[:, None]
    weights = (random.random((rows, LENGTH)) < share).astype(np.float32)
    return {"ids": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights}


def packed(step: int) -> dict[str, np.ndarray]:
    """Two documents in a row, and seven rows, which divide over no mesh."""
    ends = np.random.default_rng(step).integers(2, LENGTH - 2, (7, 1))
    place = np.arange(LENGTH)[None]
    after = place >= ends
    positions = np.where(after, place - ends, place).astype(np.int32)
    return texts(step, 7) | {"segment_ids": after.astype(np.int32), "positions": positions}


def masked(step: int) -> dict[str, np.ndarray]:
    random, batch = np.random.default_rng(step), texts(step)
    places = np.sort(random.permuted(np.tile(np.arange(LENGTH), (ROWS, 1)), axis=1)[:, :3])
    lengths = random.integers(5, LENGTH + 1, (ROWS, 1))
    return {
        "ids": batch["ids"],
        "places": places.astype(np.int32),
        "targets": batch["targets"][:, :3],
        "weights": (places < lengths).astype(np.float32),
        "attention_mask": (np.arange(LENGTH) < lengths).astype(np.int32),
    }


def pairs(step: int) -> dict[str, np.ndarray]:
    source, target = texts(step), texts(step + 100)
    mask = np.arange(LENGTH) < np.linspace(3, LENGTH, ROWS)[:, None]
    named = {"source_ids": source["ids"], "source_mask": mask.astype(np.int32)}
    named |= {"target_ids": target["ids"], "targets": target["targets"]}
    return named | {"weights": target["weights"]}


LLAMA = {"norm": "rmsnorm", "positions": "rotary", "activation": "silu"}
LLAMA |= {"gated": True, "bias": False, "num_kv_heads": 2, "tie_embeddings": False}
CASES: dict[str, tuple[Config, Any, Callable[[int], dict[str, np.ndarray]]]] = {
    "gpt": (
        case(
            model={"vocab_size": 48},
            train={"accumulate_steps": 2, "average_last": 2},
            optim={"name": "muon"},
        ),
        causal_lm,
        texts,
    ),
    "gpt_scan": (
        case(
            model={"vocab_size": 48, "scan_layers": True, "remat": "full", "loss_chunk": 4},
            optim={"ema_decay": 0.5},
        ),
        causal_lm,
        texts,
    ),
    "bert": (
        case(model={"vocab_size": 49, "architecture": "encoder", "norm_position": "post"}),
        masked_lm,
        masked,
    ),
    "llama": (case(model={"vocab_size": 48, **LLAMA}), causal_lm, packed),
    "transformer": (
        case(
            model={
                "vocab_size": 48,
                "architecture": "encoder_decoder",
                "num_encoder_layers": 1,
                "share_embeddings": True,
            },
            optim={"name": "adafactor"},
        ),
        TeacherForcing(),
        pairs,
    ),
}


def trained(name: str, sizes: tuple[int, int, int]) -> tuple[list[float], Any, int]:
    """The losses of the steps, that of an evaluation last; the params; the leaves divided."""
    config, objective, batch = CASES[name]
    axes = dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    config = config.replace({"parallel": axes})
    model, mesh = make_model(config.model), make_mesh(config.parallel)
    state, update = compile_and_start(config, model, objective, batch(0), None, {}, mesh)
    losses = []
    for step in range(STEPS):
        state, metrics = update(state, place_rows(batch(step), mesh))
        losses += [float(metrics["loss"]), float(metrics["grad_norm"])]
        state = remembered(state)
    params = evaluation_params(state)
    assert mesh_of(state.params) == mesh
    losses.append(mean_scores(objective, model, params, [batch(99)])["loss"])
    divided = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state))
    return losses, flatten_dict(jax.device_get(params), sep="/"), divided


def main() -> None:
    asked = sys.argv[1:] or [f"{name}/{','.join(map(str, m))}" for name in CASES for m in MESHES]
    alone: dict[str, Any] = {}
    for word in asked:
        name, _, numbers = word.partition("/")
        if name not in alone:
            alone[name] = trained(name, (1, 1, 1))
        losses, params, _ = alone[name]
        data, fsdp, tensor = map(int, numbers.split(","))
        ours, theirs, divided = trained(name, (data, fsdp, tensor))
        apart = {
            path: float(np.abs(leaf - theirs[path]).max())
            for path, leaf in params.items()
            # A key bias has no gradient, so that rounding alone moves it.
            if not path.endswith("key/bias")
        }
        worst = max(apart, key=lambda path: apart[path])
        row = {"case": word, "divided": divided, "params": apart[worst], "worst": worst}
        row |= {"loss": float(np.abs(np.subtract(losses, ours)).max())}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
