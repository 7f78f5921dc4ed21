"""The state of a run directory: what of it is whole, what is damaged, and from where it goes on."""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from jax.sharding import SingleDeviceSharding

from jaxlm.base_model import newest_base
from jaxlm.checkpoint import (
    META,
    PARAMS,
    STATE,
    CheckpointError,
    DamagedError,
    is_checkpoint,
    quiet_orbax,
    read_meta,
    restore_items,
    step_folders,
)
from jaxlm.config import Config, JaxlmError, build_config, read_yaml, to_mapping
from jaxlm.files import damage, read_rows_of
from jaxlm.tasks import TASKS
from jaxlm.tokenizer import Tokenizer
from jaxlm.training.resolve import load_source, resolve
from jaxlm.training.run_directory import (
    CHECKPOINTS,
    LENGTHS,
    LOCK,
    ROWS,
    RunError,
    flat,
    not_compared,
)

Condition = Literal["whole", "damaged", "note"]
OTHER_FILES = ("summary.json", "environment.json")
PARTS = (PARAMS, STATE, META, "metrics", "_CHECKPOINT_METADATA")  # of a checkpoint
NEEDED = ("config.yaml", "base", "data")  # to resume, beside a checkpoint


@dataclass(frozen=True)
class Finding:
    """What was found of one part of a run, in a sentence."""

    part: str
    condition: Condition
    told: str


@dataclass
class Examination:
    """All findings, the step that training goes on from (None: it cannot), and why not."""

    findings: list[Finding] = field(default_factory=list)
    readable: list[int] = field(default_factory=list)  # steps whose checkpoints are whole
    resumes_at: int | None = None
    verdict: str = ""

    def add(self, part: str, condition: Condition, told: str) -> None:
        self.findings.append(Finding(part, condition, told))

    def damaged(self, *parts: str) -> bool:
        """Whether anything is damaged, or one of these parts."""
        named = [f for f in self.findings if not parts or f.part in parts]
        return any(finding.condition == "damaged" for finding in named)

    @property
    def status(self) -> int:
        """0: all is whole; 1: something is damaged, but a checkpoint can be read; 2: none can."""
        return 2 if self.damaged(CHECKPOINTS) else int(self.damaged())


def examine(run: Path) -> Examination:
    """Read and hash all that a run directory holds, and the data and the model that it needs.

    Nothing of the run is changed. Tokens that are missing in the cache are made again, as
    resuming would do.

    Raises: RunError for a folder that is no run.
    """
    if not run.is_dir() or not ((run / "config.yaml").exists() or (run / CHECKPOINTS).is_dir()):
        raise RunError(f"{run} is no run directory")
    found = Examination()
    if is_locked(run):
        found.add("lock", "note", "a process is training in it now")
    newest = check_checkpoints(run, found)
    config = check_config(run, newest, found)
    check_tokenizer(run, newest, found)
    check_rows(run, newest, found)
    for name in OTHER_FILES:
        check_json(run / name, found)
    check_needed(run, config, newest, found)
    judge(run, newest, found)
    return found


def is_locked(run: Path) -> bool:
    """Whether a process is training in a run directory."""
    with suppress(OSError):
        lock = os.open(run / LOCK, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
    return False


def check_checkpoints(run: Path, found: Examination) -> dict[str, Any] | None:
    """Read every array of every checkpoint; return the meta of the newest that is whole."""
    quiet_orbax()
    newest = None
    for folder in step_folders(run / CHECKPOINTS):
        part = f"checkpoint {folder.name}"
        try:
            meta, told = read_whole(folder)
        except CheckpointError as error:
            if folder.is_dir():  # else training replaced it meanwhile
                reason = str(error).removeprefix(f"the checkpoint {folder} is damaged: ")
                found.add(part, "damaged", f"damaged: {reason}")
            continue
        newest = meta
        found.readable.append(int(folder.name))
        found.add(part, "whole", told)
    for path in sorted((run / CHECKPOINTS).glob("*.damaged")):
        found.add(f"checkpoint {path.stem}", "note", f"set aside as {path.name} when it was found")
    if not found.readable:
        begun = found.damaged() or any((run / CHECKPOINTS).glob("*.damaged"))
        found.add(CHECKPOINTS, "damaged" if begun else "note", "none is whole" if begun else "none")
    return newest


def read_whole(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """The meta of a checkpoint whose files have their hashes and whose arrays can be read, and
    what it holds in words. Raises: CheckpointError."""
    import orbax.checkpoint as ocp

    if not is_checkpoint(checkpoint):
        raise DamagedError("it is not whole")
    meta = read_meta(checkpoint)
    # Before Orbax reads anything: what it says of a damaged file is no sentence.
    if reason := damage(checkpoint, PARTS, meta.get("hashed", False)):
        raise DamagedError(reason)
    place = SingleDeviceSharding(jax.devices("cpu")[0])
    number = size = 0
    for item in (PARAMS, STATE):
        if not (checkpoint / item).is_dir():
            continue  # nothing to resume from: an imported model
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata((checkpoint / item).absolute()).item_metadata
        if tree is None:
            raise DamagedError(f"{item} holds no arrays that can be read")
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), dict(tree)
        )
        leaves = jax.tree.leaves(restore_items(checkpoint, {item: target}))
        number, size = number + len(leaves), size + sum(leaf.nbytes for leaf in leaves)
        if item == PARAMS and not all(map(all_finite, leaves)):
            raise DamagedError("a weight is no finite number")
    val = "" if meta.get("val_loss") is None else f", val loss {meta['val_loss']:.4f}"
    unhashed = "" if meta.get("hashed") else ", by a version that kept no hashes"
    return meta, f"{number} arrays, {size / 1e6:,.1f} MB{val}{unhashed}"


def all_finite(leaf: jax.Array) -> bool:
    array = np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return True
    return bool(np.isfinite(array.astype(np.float32)).all())


def check_config(run: Path, newest: dict[str, Any] | None, found: Examination) -> Config | None:
    """The config of a run, from its config.yaml, or where that is damaged from a checkpoint."""
    copy = None
    with suppress(JaxlmError):
        copy = build_config(newest["config"]) if newest else None
    try:
        config = build_config(read_yaml(run / "config.yaml"))
    except (JaxlmError, OSError) as error:
        held = f"; checkpoint {newest['step']} holds the same settings" if newest and copy else ""
        found.add("config.yaml", "damaged", f"damaged: {error}{held}")
        return copy
    passed_over = not_compared() | set(LENGTHS)
    now, then = (dict(flat(to_mapping(c))) for c in (config, copy or config))
    changed = [name for name in now if now[name] != then.get(name) and name not in passed_over]
    if changed:
        told = f"{changed[0]} is {now[changed[0]]}, but was {then[changed[0]]} in training"
        found.add("config.yaml", "damaged", f"damaged: {told}")
    else:
        found.add("config.yaml", "whole", config.run.name or "")
    return config


def check_tokenizer(run: Path, newest: dict[str, Any] | None, found: Examination) -> None:
    try:
        tokenizer = Tokenizer.load(run)
    except (JaxlmError, OSError) as error:
        found.add("tokenizer", "damaged", f"damaged: {error}; resuming writes it again")
        return
    kept = newest and newest["tokenizer"]
    if kept and tokenizer.fingerprint != Tokenizer.from_saved(kept).fingerprint:
        told = "damaged: its tokens are not those of the checkpoints; resuming writes it again"
        found.add("tokenizer", "damaged", told)
    else:
        found.add("tokenizer", "whole", f"{tokenizer.vocab_size:,} tokens")


def check_rows(run: Path, newest: dict[str, Any] | None, found: Examination) -> None:
    """The rows of metrics and samples, beside their hash at the newest checkpoint."""
    for name in ROWS:
        content = (run / name).read_bytes() if (run / name).is_file() else b""
        rows, dropped = read_rows_of(content)
        kept = newest or {}
        size, value = (kept.get("rows") or {}).get(name) or (0, None)
        if value is not None and xxhash.xxh3_128_hexdigest(content[:size]) != value:
            found.add(name, "damaged", f"damaged: it is not as it was at step {kept['step']}")
        elif dropped:
            found.add(name, "damaged", f"damaged: {dropped} lines are no rows")
        elif rows or value is not None:
            last = f", the last of step {rows[-1]['step']}" if rows else ""
            found.add(name, "whole", f"{len(rows):,} rows{last}")


def check_json(file: Path, found: Examination) -> None:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        found.add(file.name, "damaged", f"damaged: {error}; training writes it again at its end")
    else:
        found.add(file.name, "whole", "")


def check_needed(
    run: Path, config: Config | None, newest: dict[str, Any] | None, found: Examination
) -> None:
    """The model that a run started from and its data, which it needs to go on."""
    if config is None or newest is None or newest.get("step") is None:
        return
    if config.run.own or config.task.name not in TASKS:
        own = ", ".join(config.run.own) or config.task.name
        found.add("data", "note", f"not checked: fit was given {own}")
        return
    if config.finetune.init_from is not None:
        try:
            _, place = load_source(config.finetune.init_from, run)
        except (JaxlmError, OSError) as error:
            found.add("base", "damaged", f"missing or damaged: {error}")
            found.add("data", "note", "not checked, as the model to start from is needed for it")
            return
        known = " as recorded, by its hash" if newest_base(run / CHECKPOINTS) else ""
        found.add("base", "whole", f"{place}{known}")
    try:
        task = resolve(config, None, None, run).task
    except (JaxlmError, OSError) as error:
        found.add("data", "damaged", f"missing or damaged: {error}")
        return
    if task.fingerprint != newest["data"]:
        told = f"{config.data.source} or the tokenizer has changed since step {newest['step']}"
        found.add("data", "damaged", told)
    else:
        found.add("data", "whole", f"{config.data.source} as recorded, by its hash")


def judge(run: Path, newest: dict[str, Any] | None, found: Examination) -> None:
    """From which checkpoint the same command goes on, or why it cannot."""
    if newest is None:
        found.verdict = "it has no checkpoint yet: the same command starts anew"
        if found.damaged(CHECKPOINTS):
            found.verdict = "no checkpoint is whole: bring one back from a copy, or start anew"
    elif newest.get("step") is None:
        found.verdict = "it holds an imported model, which can be loaded, not resumed"
    elif lacking := [part for part in NEEDED if found.damaged(part)]:
        found.verdict = (
            f"step {newest['step']} can be loaded, but goes on only when {' and '.join(lacking)} "
            "can be read as recorded"
        )
    else:
        found.resumes_at = newest["step"]
        ended = not found.damaged("summary.json") and (run / "summary.json").is_file()
        found.verdict = f"the same command goes on from checkpoint {newest['step']}"
        if ended:
            found.verdict = f"finished at step {newest['step']}; more train.steps go on from there"
