"""Hugging Face's config.json as a ModelConfig and back, and the family of a ModelConfig."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlm.config import ConfigError, JaxlmError, ModelConfig
from jaxlm.config.schema import fields_with_role
from jaxlm.hub.attributes import (
    PROBLEMS,
    attribute_faults,
    class_labels,
    flat_rotary,
    read_field,
    read_rate,
    shown,
    window_faults,
)
from jaxlm.hub.decoders import GPT2, LLAMA, MISTRAL, QWEN2, QWEN3
from jaxlm.hub.encoder_decoders import BART, MARIAN, T5
from jaxlm.hub.encoders import BERT, CAMEMBERT, DISTILBERT, ROBERTA, XLM_ROBERTA
from jaxlm.hub.tables import Family

Shapes = Mapping[str, tuple[int, ...]]

FAMILIES = {
    family.name: family
    for family in (
        *(GPT2, LLAMA, MISTRAL, QWEN2, QWEN3),
        *(BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT),
        *(MARIAN, BART, T5),
    )
}
# The order in which marks are looked for: some are also found in later families.
MARKED = (BART, MARIAN, T5, GPT2, QWEN3, QWEN2, LLAMA, DISTILBERT, ROBERTA, BERT)

# Their name of an activation and ours; of several names for one function the first is written.
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
}
# Where the name of the activation also says that it is gated.
GATED = "gated-"
GATED_NAMES = {"gated-gelu": "gelu_new"}
# Fields of ours that are a dim of some tensor, or less.
SIZES = ("vocab_size", "d_model", "num_heads", "num_kv_heads", "head_dim", "d_ff", "max_seq_len")
SIZES += ("num_token_types", "source_vocab_size")
# Fields of ours that any family can have, or that do not change the outputs.
FREE = set(fields_with_role(ModelConfig, "head", "training", "execution", "name")) - {"pooling"}


def family_of(config: ModelConfig, name: str | None = None) -> Family:
    """The family of a model of this config: the one of this name, if it is, else the first.

    Raises: JaxlmError, with the fields that differ from the nearest family, where there is none.
    """
    config = config.resolved()
    if name in FAMILIES and not differences(config, FAMILIES[name]):
        return FAMILIES[name]
    nearest = min(FAMILIES.values(), key=lambda family: len(differences(config, family)))
    if apart := differences(config, nearest):
        raise JaxlmError(
            f"no family of {', '.join(FAMILIES)} has this structure; it is nearest to "
            f"{nearest.name}, but for {'; '.join(apart)}"
        )
    return nearest


def differences(config: ModelConfig, family: Family) -> list[str]:
    """In what a resolved config is not of a family."""
    both = config.architecture == "encoder_decoder"
    derived = {
        "num_kv_heads": config.num_heads,
        "head_dim": config.d_model // config.num_heads,
        "final_norm": config.norm_position == "pre",
        "num_encoder_layers": config.num_layers if both else None,
        "source_vocab_size": config.vocab_size if both else None,
    }
    # Only models with rotary positions use the fields of rope.
    idle = "rope_" if config.positions != "rotary" else "never"
    expected = {
        f.name: f.default
        for f in dataclasses.fields(ModelConfig)
        if f.name not in family.fields and f.name not in FREE and not f.name.startswith(idle)
    }
    expected |= family.structure
    expected = {k: derived.get(k) if v is None else v for k, v in expected.items()}
    apart = []
    if family.first_pad_id is not None:
        del expected["position_offset"]
        if config.position_offset < 1:
            apart.append(f"position_offset = {config.position_offset}, not 1 or more")
    found = {name: getattr(config, name) for name in expected}
    apart += [f"{k} = {found[k]!r}, not {v!r}" for k, v in expected.items() if found[k] != v]
    if config.head not in family.heads:
        apart.append(f"head = {config.head!r}, not one of {', '.join(family.heads)}")
    return apart


def family_told_by(theirs: Mapping[str, Any], names: Iterable[str] = ()) -> Family:
    """The family of their config: by model_type, else architectures, else the tensors' names.

    Raises: JaxlmError where none tells it, or it is not one of ours.
    """
    kind = theirs.get("model_type")
    if kind is not None:
        if isinstance(kind, str) and kind in FAMILIES:
            return FAMILIES[kind]
        raise JaxlmError(f"model_type must be one of {', '.join(FAMILIES)}, it is {shown(kind)}")
    architecture = first_architecture(theirs)
    if architecture is not None:
        for family in FAMILIES.values():
            if architecture.lower() in map(str.lower, family.heads.values()):
                return family
        raise JaxlmError(
            f"{architecture} is no architecture of {', '.join(FAMILIES)}, and model_type is missing"
        )
    names = list(names)
    for family in MARKED:
        if any(re.fullmatch(family.mark, name) for name in names):
            # Without a head, the tensors of BERT and RoBERTa have the same names.
            bare = family is BERT and not any(re.match(r"bert\.|cls\.", name) for name in names)
            if not (bare and theirs.get("type_vocab_size") == 1):
                return family
    raise JaxlmError(
        f"model_type must be one of {', '.join(FAMILIES)}, it is missing, and nothing else tells "
        "the family: add it to config.json"
    )


def first_architecture(theirs: Mapping[str, Any]) -> str | None:
    names = theirs.get("architectures") or [None]
    name = names[0] if isinstance(names, list) else names
    if name is not None and not isinstance(name, str):
        raise JaxlmError(f"architectures must be a list of names, it is {shown(names)}")
    return name


def config_from_reference(
    theirs: Mapping[str, Any],
    head: str | None = None,
    shapes: Shapes | None = None,
    accept: Iterable[str] = (),
) -> ModelConfig:
    """The ModelConfig of the model that their config.json describes.

    `head` replaces the head that their `architectures` names; `shapes` are those of the tensors
    that are there, against which sizes are held; attributes of `accept` are taken as they are.

    Raises: JaxlmError, with every attribute that is unknown or not supported.
    """
    shapes, accept = shapes or {}, {accept} if isinstance(accept, str) else set(accept)
    family = family_told_by(theirs, shapes)
    faults: list[str] = []
    if family.structure["positions"] == "rotary":
        theirs = flat_rotary(theirs, faults)
    judged = attribute_faults(theirs, family, accept)
    faults += judged
    head = head or head_of(family, theirs, faults)
    fields = {
        ours: read_field(ours, name, theirs.get(name, default), default, faults)
        for ours, (name, default) in family.fields.items()
    }
    for ours, other in family.fallback.items():
        fields[ours] = fields[other] if fields[ours] is None else fields[ours]
    for name, ours in family.same.items():
        if theirs.get(name, fields[ours]) != fields[ours]:
            wanted = f"{family.fields[ours][0]} {shown(fields[ours])}"
            faults.append(f"{name} must equal {wanted}, it is {shown(theirs[name])}")
    activation = fields["activation"]
    if "gated" in family.fields and isinstance(activation, str):
        fields["gated"] = activation.startswith(GATED)
        activation = GATED_NAMES.get(activation, activation.removeprefix(GATED))
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        faults.append(f"{family.fields['activation'][0]} {shown(activation)} is unknown to us")
    faults += size_faults(family, fields, shapes)
    if fields["num_layers"] and fields["max_seq_len"] and "sliding_window" not in accept:
        windows = window_faults(theirs, family, fields["num_layers"], fields["max_seq_len"])
        judged, faults = judged + windows, faults + windows
    if head.endswith("_classification"):
        fields |= class_labels(theirs, faults)
        most = largest(shapes)
        if shapes and len(fields.get("labels", ())) > most:
            faults.append(f"there are {len(fields['labels'])} labels, but no tensor is so large")
    offset = family.structure.get("position_offset", 0)
    if family.first_pad_id is not None:
        pad = theirs.get("pad_token_id", family.first_pad_id)
        if isinstance(pad, bool) or not isinstance(pad, int) or pad < 0:
            faults.append(f"pad_token_id must be a whole number, it is {shown(pad)}")
        else:
            offset = fields["position_offset"] = pad + 1
    dropout = read_rate(theirs, family.dropout[0], faults)
    if faults:
        told = f"this {family.name} config cannot be taken over: {'; '.join(faults)}"
        risk = "; jaxlm import --accept NAME takes an attribute at your own risk"
        raise JaxlmError(told + risk * (len(judged) == len(faults)))
    encoder = family.structure["architecture"] == "encoder"
    if head == "none" and fields["tie_embeddings"] and not encoder:
        head = "lm"  # a tied head has no weights, so a bare model has all that is needed
    fields |= {
        **family.structure,
        "activation": ACTIVATIONS[activation],
        "max_seq_len": fields["max_seq_len"] - (offset if family.limit_has_offset else 0),
        "dropout": dropout,
        "head": head,
        "pooler": encoder and head in family.pooled_heads,
    }
    try:
        return ModelConfig(**fields).resolved()
    except (ConfigError, TypeError) as error:
        raise JaxlmError(f"this {family.name} config makes no model: {error}") from None


def head_of(family: Family, theirs: Mapping[str, Any], faults: list[str]) -> str:
    """The head of their first architecture, or the family's first head if they name none."""
    name = first_architecture(theirs)
    if name is None:
        return next(iter(family.heads))
    heads = {kind.lower(): head for head, kind in family.heads.items()}
    if name.lower() not in heads:
        kinds = ", ".join(family.heads.values())
        faults.append(f"architectures must be one of {kinds}, it is {name}")
    return heads.get(name.lower(), "none")


def largest(shapes: Shapes) -> int:
    return max((size for shape in shapes.values() for size in shape), default=0)


def size_faults(family: Family, fields: Mapping[str, Any], shapes: Shapes) -> list[str]:
    """Faults of sizes beyond those of the tensors, found before anything of the size is made."""
    if not shapes:
        return []
    numbers = [int(n) for name in shapes for n in re.findall(r"(?<=\.)\d{1,9}(?=\.)", f".{name}")]
    layers, most = max(numbers, default=0) + 1, largest(shapes)
    faults = []
    for ours, (name, _) in family.fields.items():
        size = fields[ours]
        if ours.endswith("_layers") and size is not None and size > layers:
            faults.append(f"{name} is {size}, but the tensors are of {layers} layers")
        computed = ours == "max_seq_len" and family.structure["positions"] != "learned"
        sized = ours in SIZES and not computed
        if sized and size is not None and size > most:
            faults.append(f"{name} is {size}, but no tensor has a dim above {most}")
    return faults


def config_to_reference(config: ModelConfig, name: str | None = None) -> dict[str, Any]:
    """Their config.json for a model of this config, as that of the family of this name if it fits.

    Raises: JaxlmError where no family has its structure.
    """
    config = config.resolved()
    family = family_of(config, name)
    theirs: dict[str, Any] = {
        "model_type": family.name,
        "architectures": [family.heads[config.head]],
    }
    theirs |= {name: getattr(config, ours) for ours, (name, _) in family.fields.items()}
    theirs |= family.demands
    if family.window_switch:
        theirs["use_sliding_window"] = False
    elif family.window is not None:
        theirs["sliding_window"] = None
    if family.first_pad_id is not None:
        theirs["pad_token_id"] = config.position_offset - 1
    activation, limit = family.fields["activation"][0], family.fields["max_seq_len"][0]
    named = next(k for k, v in ACTIVATIONS.items() if v == config.activation)
    if "gated" in family.fields and config.gated:
        names = {ours: name for name, ours in GATED_NAMES.items()}
        named = names.get(named, GATED + named)
    theirs[activation] = named
    theirs[limit] += config.position_offset if family.limit_has_offset else 0
    theirs |= {name: getattr(config, ours) for name, ours in family.same.items()}
    theirs |= dict.fromkeys(family.dropout, config.dropout)
    if config.positions == "rotary":
        rope = {
            attribute: theirs.pop(attribute)
            for ours, (attribute, _) in family.fields.items()
            if ours.startswith("rope_")
        }
        theirs["rope_theta"] = rope.pop("rope_theta")
        kept = {"none": [], "linear": ["rope_type", "factor"], "llama3": list(rope)}
        theirs["rope_scaling"] = {key: rope[key] for key in kept[config.rope_scaling]} or None
    if config.labels:
        theirs["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
        theirs["label2id"] = {label: i for i, label in enumerate(config.labels)}
    if config.head == "sequence_classification":
        theirs["problem_type"] = {v: k for k, v in PROBLEMS.items()}[config.problem]
    return theirs
