"""Hugging Face directories read as a Loaded, and written from one, model card included."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.artifact import FIRST_DEVICE, Loaded, Placement
from jaxlm.config import JaxlmError, ModelConfig
from jaxlm.files import folder_in_place
from jaxlm.hub.configs import FAMILIES, config_from_reference, config_to_reference
from jaxlm.hub.exchange import exported, import_tensors
from jaxlm.hub.weights import NAMES, WeightFiles, write_weights
from jaxlm.models import make_model
from jaxlm.tokenizer import AbsentTokenizer, Tokenizer, TokenizerError

SPECIALS = {"bos_id": "bos_token_id", "eos_id": "eos_token_id", "pad_id": "pad_token_id"}
TYPES = {name: jnp.dtype(name) for name in ("float32", "bfloat16", "float16")}
CARD = """---
library_name: transformers
tags:
- jaxlm
---

# {name}

A {model_class} with {num_params:,} parameters, written by jaxlm.

| | |
|---|---|
{rows}

```python
from transformers import AutoTokenizer, {model_class}

tokenizer = AutoTokenizer.from_pretrained(".")
model = {model_class}.from_pretrained(".")
```
"""
SHOWN = ("d_model", "num_layers", "num_heads", "num_kv_heads", "d_ff", "vocab_size", "max_seq_len")


class ExchangeError(JaxlmError):
    """A directory that cannot be read as a model, or a model that cannot be written as one."""


def is_reference(path: Path) -> bool:
    """Whether a directory looks like Hugging Face's: it has a config.json or weight files."""
    return any((path / name).is_file() for name in ("config.json", *NAMES))


def read_directory(path: Path, placement: Placement = FIRST_DEVICE) -> Loaded:
    """The model in a Hugging Face directory.

    Raises: JaxlmError where a file is missing or damaged, or its config is not supported.
    """
    theirs = read_config_json(path / "config.json")
    files = WeightFiles(path)
    config = config_from_reference(theirs, None if theirs.get("architectures") else guess(files))
    config = without_missing_pooler(config, files)
    tokenizer = read_tokenizer(path, config.vocab_size)
    if is_present(tokenizer) and tokenizer.vocab_size > config.vocab_size:
        raise ExchangeError(
            f"the tokenizer of {path} has {tokenizer.vocab_size} tokens, but the model only "
            f"{config.vocab_size}: it belongs to another model"
        )
    params = import_tensors(files, config, FAMILIES[theirs["model_type"]], placement)
    origin: dict[str, Any] = {"source": path.name, "dtype": files.dtype}
    mixed = {name: kind for name, kind in files.dtypes.items() if kind != files.dtype}
    origin |= {"other_dtypes": {name: kind for name, kind in mixed.items() if kind in TYPES}}
    origin |= {name: theirs[name] for name in SPECIALS.values() if theirs.get(name) is not None}
    return Loaded(make_model(config), params, tokenizer, config, origin)


def read_config_json(path: Path) -> dict[str, Any]:
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExchangeError(f"{path.parent} has no config.json to tell what model it is") from None
    except OSError as error:
        raise ExchangeError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ExchangeError(f"{path} is not JSON: {error}") from None
    if not isinstance(theirs, dict):
        raise ExchangeError(f"{path} must hold a JSON mapping")
    return theirs


def guess(files: WeightFiles) -> str:
    """The head of a model whose config names no architecture, by its tensors."""
    names = " ".join(files.keys())
    if "cls.seq_relationship." in names:
        return "pretraining"
    return "lm" if any(n in names for n in ("cls.predictions.", "lm_head.")) else "none"


def without_missing_pooler(config: ModelConfig, files: WeightFiles) -> ModelConfig:
    """The config without a pooler, where a bare encoder was saved without one."""
    if config.head == "none" and config.pooler and "pooler." not in " ".join(files.keys()):
        return dataclasses.replace(config, pooler=False)
    return config


def read_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    try:
        return Tokenizer.load(path, vocab_size)
    except TokenizerError as error:
        if any(path.glob("tokenizer.json")) or any(path.glob("vocab.*")):
            raise  # there is a tokenizer, but a damaged one
        return AbsentTokenizer(str(error))


def is_present(tokenizer: Tokenizer) -> bool:
    return not isinstance(tokenizer, AbsentTokenizer)


def write_directory(loaded: Loaded, path: Path, dtype: str | None = None) -> None:
    """Write a model as a directory that `transformers` loads, or nothing at all.

    `dtype` is float32, bfloat16 or float16; None means that of the imported source, else float32.

    Raises: JaxlmError where their format cannot express the model, WriteError.
    """
    others = {} if dtype else loaded.origin.get("other_dtypes", {})
    dtype = dtype or loaded.origin.get("dtype", "float32")
    if dtype not in TYPES:
        raise ExchangeError(f"dtype must be one of {', '.join(TYPES)}, got {dtype!r}")
    theirs = config_to_reference(loaded.config) | {"dtype": dtype, "torch_dtype": dtype}
    specials = special_ids(loaded)
    for name in specials.keys() & theirs.keys():
        if specials[name] is None:
            specials[name] = theirs[name]
        if specials[name] != theirs[name]:
            raise ExchangeError(
                f"{name} is {specials[name]}, but a {theirs['model_type']} must have {theirs[name]}"
            )
    theirs |= specials
    with folder_in_place(path) as folder:
        finer = {name: TYPES[kind] for name, kind in others.items()}
        write_weights(folder, exported(loaded.params, loaded.config, TYPES[dtype], finer))
        write_json(folder / "config.json", theirs)
        if loaded.config.architecture == "decoder" and loaded.config.head == "lm":
            write_json(folder / "generation_config.json", specials)
        if is_present(loaded.tokenizer):
            loaded.tokenizer.save(folder)
        card = model_card(loaded, theirs)
        (folder / "README.md").write_text(card, encoding="utf-8")


def special_ids(loaded: Loaded) -> dict[str, Any]:
    """The special tokens' ids by Hugging Face's names; without a tokenizer, the source's ids."""
    # None is written as null: for a missing name they take a default, which may be another token.
    ids = {name: loaded.origin.get(name) for name in SPECIALS.values()}
    if is_present(loaded.tokenizer):
        found = {name: getattr(loaded.tokenizer, ours) for ours, name in SPECIALS.items()}
        ids |= {name: i for name, i in found.items() if i is not None}
    return ids


def model_card(loaded: Loaded, theirs: Mapping[str, Any]) -> str:
    """The README.md of an exported model: sizes, val loss and the fingerprint of its data."""
    origin, config = loaded.origin, loaded.config
    facts = {name: getattr(config, name) for name in SHOWN}
    facts |= {"dtype": theirs["dtype"]}
    known = {"source": "source", "step": "step", "val_loss": "val loss (nats per token)"}
    known |= {"data": "fingerprint of data and tokenizer"}
    facts |= {text: origin[name] for name, text in known.items() if origin.get(name) is not None}
    return CARD.format(
        name=origin.get("source", "A model of jaxlm"),
        model_class=theirs["architectures"][0],
        num_params=sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
        rows="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
