"""Hugging Face directories read as a Loaded, and written from one, model card included."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.artifact import FIRST_DEVICE, Loaded, Placement
from jaxlm.config import JaxlmError, ModelConfig
from jaxlm.files import folder_in_place
from jaxlm.hub.configs import (
    config_from_reference,
    config_to_reference,
    family_of,
    family_told_by,
)
from jaxlm.hub.exchange import exported, import_tensors
from jaxlm.hub.tables import Family
from jaxlm.hub.weights import NAMES, WeightFiles, read_json_file, write_weights
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


# Options of generation by their names: those of sampling, which we call alike, and others.
SHAPED = ("temperature", "top_k", "top_p", "min_p")
# Attributes of an older config.json that say how an encoder-decoder generates.
DECODING = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "num_beams",
    "max_length",
)
DECODING += ("min_length", "length_penalty", "no_repeat_ngram_size", "early_stopping")
PENALTIES = {"repetition_penalty": "repetition_penalty", "no_repeat_ngram_size": "no_repeat_ngram"}
PENALTIES |= {name: name for name in ("max_new_tokens", "min_new_tokens")}


class ExchangeError(JaxlmError):
    """A directory that cannot be read as a model, or a model that cannot be written as one."""


def is_reference(path: Path) -> bool:
    """Whether a directory looks like Hugging Face's: it has a config.json or weight files."""
    return any((path / name).is_file() for name in ("config.json", *NAMES))


def read_directory(
    path: Path, placement: Placement = FIRST_DEVICE, accept: Iterable[str] = ()
) -> Loaded:
    """The model in a Hugging Face directory; attributes of its config in `accept` are not judged.

    Raises: JaxlmError where a file is missing or damaged, or its config is not supported.
    """
    theirs = read_config_json(path / "config.json")
    generation = read_generation(path, theirs)
    files = WeightFiles(path)
    family = family_told_by(theirs, files.keys())
    if family.structure["architecture"] == "encoder_decoder":
        generation = with_decoding(generation, theirs, family)
        start = generation["generation_config"].get("decoder_start_token_id")
        theirs |= {} if start is None else {"decoder_start_token_id": start}
    head = None if theirs.get("architectures") else guess(files, family)
    config = config_from_reference(theirs, head, files.shapes(), accept)
    config = without_missing_pooler(config, files)
    tokenizer = read_tokenizer(path, config.vocab_size)
    if is_present(tokenizer) and tokenizer.vocab_size > config.vocab_size:
        raise ExchangeError(
            f"the tokenizer of {path} has {tokenizer.vocab_size} tokens, but the model only "
            f"{config.vocab_size}: it belongs to another model"
        )
    params = import_tensors(files, config, family, placement)
    origin: dict[str, Any] = {"source": path.name, "dtype": files.dtype, "model_type": family.name}
    mixed = {name: kind for name, kind in files.dtypes.items() if kind != files.dtype}
    origin |= {"other_dtypes": {name: kind for name, kind in mixed.items() if kind in TYPES}}
    origin |= {name: theirs[name] for name in SPECIALS.values() if theirs.get(name) is not None}
    origin |= generation
    return Loaded(make_model(config), params, tokenizer, config, origin)


def read_generation(path: Path, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """What an origin keeps of generation: the file's mapping, and the ids that end a text.

    The ids are those of generation_config.json, else of config.json: one or a list.
    """
    file = path / "generation_config.json"
    generation = read_json_file(file) if file.is_file() else {}
    ends = generation.get("eos_token_id")
    where = file if ends is not None else path / "config.json"
    ends = theirs.get("eos_token_id") if ends is None else ends
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ends):
        raise ExchangeError(f"eos_token_id of {where} must be one id or a list of ids, not {ends}")
    found = {"eos_token_ids": ends}
    return found | ({"generation_config": generation} if file.is_file() else {})


def with_decoding(
    origin: dict[str, Any], theirs: Mapping[str, Any], family: Family
) -> dict[str, Any]:
    """What `read_generation` found, or config.json says where there is no file beside it."""
    if "generation_config" in origin:
        return origin
    told = {name: theirs[name] for name in DECODING if theirs.get(name) is not None}
    return origin | {"generation_config": {**family.generation, **told}}


def read_config_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_file(path)
    except FileNotFoundError:
        raise ExchangeError(f"{path.parent} has no config.json to tell what model it is") from None


def guess(files: WeightFiles, family: Family) -> str:
    """The head of a model whose config names no architecture, by its tensors.

    Raises: ExchangeError where they do not tell it.
    """
    if set(family.heads) == {"lm"}:
        return "lm"
    names = " ".join(files.keys())
    marks = {
        "pretraining": ("cls.seq_relationship.",),
        "question_answering": ("qa_outputs.",),
        "sequence_classification": ("score.", "pre_classifier.", "classifier.out_proj."),
        "lm": ("cls.predictions.", "lm_head.", "vocab_transform."),
    }
    for head, parts in marks.items():
        if head in family.heads and any(part in names for part in parts):
            return head
    if "classifier." not in names:
        return "none"
    if "pooler." in names:
        raise ExchangeError(
            "classifier.weight may be of a sequence or of a token classifier: name the class in "
            "the architectures of config.json"
        )
    return "token_classification"


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
    family = family_of(loaded.config, loaded.origin.get("model_type"))
    specials = special_ids(loaded)
    theirs = reference_config(loaded, family, specials) | {"dtype": dtype, "torch_dtype": dtype}
    with folder_in_place(path) as folder:
        finer = {name: TYPES[kind] for name, kind in others.items()}
        tensors = exported(loaded.params, loaded.config, TYPES[dtype], finer, family)
        write_weights(folder, tensors)
        write_json(folder / "config.json", theirs)
        if loaded.config.architecture != "encoder" and loaded.config.head == "lm":
            kept = loaded.origin.get("generation_config", {})
            if (start := theirs.get("decoder_start_token_id")) is not None:
                specials["decoder_start_token_id"] = start
            write_json(folder / "generation_config.json", specials | kept)
        if is_present(loaded.tokenizer):
            with_padding(loaded.tokenizer, specials["pad_token_id"]).save(folder)
        card = model_card(loaded, theirs)
        (folder / "README.md").write_text(card, encoding="utf-8")


def reference_config(loaded: Loaded, family: Family, specials: dict[str, Any]) -> dict[str, Any]:
    """Their config.json of a model, special tokens included; `specials` are brought into line."""
    theirs = config_to_reference(loaded.config, family.name)
    for name in specials.keys() & theirs.keys():
        # Some sources count positions from another id than their tokenizer's padding.
        if specials[name] is None or loaded.origin.get(name) == theirs[name]:
            specials[name] = theirs[name]
        if specials[name] != theirs[name]:
            raise ExchangeError(
                f"{name} is {specials[name]}, but a {theirs['model_type']} must have {theirs[name]}"
            )
    return theirs | specials


def special_ids(loaded: Loaded) -> dict[str, Any]:
    """The special tokens' ids by Hugging Face's names; without a tokenizer, the source's ids.

    The ids that end a text are the source's where it had any. Classifiers of decoders need padding,
    to find a row's last token: where there is none, another special token that no text ends with.
    """
    # None is written as null: for a missing name they take a default, which may be another token.
    ids = {name: loaded.origin.get(name) for name in SPECIALS.values()}
    tokenizer = loaded.tokenizer if is_present(loaded.tokenizer) else None
    if tokenizer is not None:
        found = {name: getattr(tokenizer, ours) for ours, name in SPECIALS.items()}
        ids |= {name: i for name, i in found.items() if i is not None}
    if ends := loaded.origin.get("eos_token_ids"):
        ids["eos_token_id"] = ends[0] if len(ends) == 1 else list(ends)
    classifies = loaded.config.head == "sequence_classification"
    if classifies and loaded.config.architecture == "decoder" and ids["pad_token_id"] is None:
        ids["pad_token_id"] = 0 if tokenizer is None else spare_id(tokenizer)
    return ids


def spare_id(tokenizer: Tokenizer) -> int | None:
    """The id of a special token that can stand for padding, as no text ends with it; or None."""
    last = tokenizer.backend.encode("").ids[-1:]
    ids = (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id)
    return next((i for i in ids if i is not None and i not in last), None)


def with_padding(tokenizer: Tokenizer, pad_id: int | None) -> Tokenizer:
    """The tokenizer with a padding token, if it has none."""
    if tokenizer.pad_id is not None or pad_id is None:
        return tokenizer
    token = tokenizer.backend.id_to_token(pad_id)
    return Tokenizer(tokenizer.backend, tokenizer.config | {"pad_token": token}, tokenizer.source)


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


def suggested_options(origin: Mapping[str, Any]) -> dict[str, Any]:
    """The options of generation, in our words, that the generation_config.json of a model sets.

    Without `do_sample` transformers decodes greedily, so that what shapes sampling is left out.
    """
    theirs = origin.get("generation_config") or {}
    names = {name: name for name in SHAPED if theirs.get("do_sample")} | PENALTIES
    return {ours: theirs[name] for name, ours in names.items() if theirs.get(name)}
