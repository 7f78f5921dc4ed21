"""Hugging Face's config.json as a ModelConfig and back, and the family of a ModelConfig."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlm.config import ConfigError, JaxlmError, ModelConfig
from jaxlm.hub.decoders import GPT2, LLAMA, MISTRAL, QWEN2, QWEN3
from jaxlm.hub.encoders import BERT, ROBERTA
from jaxlm.hub.tables import REQUIRED, Family

FAMILIES = {f.name: f for f in (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, BERT, ROBERTA)}

# Their name of an activation and ours; of several names for one function the first is written.
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
}
ROPE_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3"}
PROBLEMS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
# Fields of ours that any family can have, or that do not change the outputs.
FREE = "preset head labels problem pooler dropout zero_init_head compute_dtype scan_layers remat"


def family_of(config: ModelConfig) -> Family:
    """The family of a model of this config.

    Raises: JaxlmError, with the fields that differ from the nearest family, where there is none.
    """
    derived = {"num_kv_heads": config.num_heads, "head_dim": config.d_model // config.num_heads}
    defaults = {f.name: f.default for f in dataclasses.fields(ModelConfig)}
    # Only models with rotary positions use these fields.
    idle = "rope_" if config.positions != "rotary" else "never"

    def differences(family: Family) -> list[str]:
        expected = {
            name: default
            for name, default in defaults.items()
            if name not in family.fields and name not in FREE.split() and not name.startswith(idle)
        }
        expected |= {k: derived[k] if v is None else v for k, v in family.structure.items()}
        found = {name: getattr(config, name) for name in expected}
        apart = [f"{k} = {found[k]!r}, not {v!r}" for k, v in expected.items() if found[k] != v]
        if config.head not in family.heads:
            apart.append(f"head = {config.head!r}, not one of {', '.join(family.heads)}")
        return apart

    nearest = min(FAMILIES.values(), key=lambda family: len(differences(family)))
    if apart := differences(nearest):
        raise JaxlmError(
            f"no family of {', '.join(FAMILIES)} has this structure; it is nearest to "
            f"{nearest.name}, but for {'; '.join(apart)}"
        )
    return nearest


def config_from_reference(theirs: Mapping[str, Any], head: str | None = None) -> ModelConfig:
    """The ModelConfig of the model that their config.json describes.

    `head` replaces the head that their `architectures` names.

    Raises: JaxlmError, with every attribute that is unknown or not supported.
    """
    family = FAMILIES.get(str(theirs.get("model_type", "")))
    if family is None:
        given = repr(theirs["model_type"]) if "model_type" in theirs else "missing"
        raise JaxlmError(f"model_type must be one of {', '.join(FAMILIES)}, it is {given}")
    theirs, faults = unnested(theirs, rotary=family.structure["positions"] == "rotary")
    known = {name for name, _ in family.fields.values()} | {*family.dropout}
    known |= set(family.harmless.split())
    for name, value in theirs.items():
        if name in family.demands:
            wanted = family.demands[name]
            if any(v != wanted for v in (value if isinstance(value, list) else [value])):
                faults.append(f"{name} must be {wanted!r}, it is {value!r}")
        elif name not in known:
            faults.append(f"{name} ({value!r}) is unknown to us")
    fields = {ours: theirs.get(name, default) for ours, (name, default) in family.fields.items()}
    faults += [f"{family.fields[k][0]} is missing" for k, v in fields.items() if v is REQUIRED]
    if fields["activation"] not in ACTIVATIONS:
        name = family.fields["activation"][0]
        faults.append(f"{name} {fields['activation']!r} is unknown to us")
    head = head or head_of(family, theirs, faults)
    if faults:
        raise JaxlmError(f"this {family.name} config cannot be taken over: {'; '.join(faults)}")
    offset = family.structure.get("position_offset", 0)
    if (
        head == "none"
        and fields["tie_embeddings"]
        and family.structure["architecture"] != "encoder"
    ):
        head = "lm"  # a tied head has no weights, so a bare model has all that is needed
    fields |= {
        **family.structure,
        "activation": ACTIVATIONS[fields["activation"]],
        "max_seq_len": fields["max_seq_len"] - offset,
        "dropout": float(theirs.get(family.dropout[0], 0.0) or 0.0),
        "head": head,
    }
    if head.endswith("_classification"):
        fields |= labels_of(theirs)
    try:
        return ModelConfig(**fields)
    except (ConfigError, TypeError) as error:
        raise JaxlmError(f"this {family.name} config makes no model: {error}") from None


def head_of(family: Family, theirs: Mapping[str, Any], faults: list[str]) -> str:
    """The head of their first architecture, or the family's first head if they name none."""
    names = theirs.get("architectures") or []
    heads = {name: head for head, name in family.heads.items()}
    if names and names[0] not in heads:
        faults.append(f"architectures must be one of {', '.join(heads)}, it is {names[0]}")
    return heads.get(names[0] if names else "", next(iter(family.heads)))


def labels_of(theirs: Mapping[str, Any]) -> dict[str, Any]:
    named = theirs.get("id2label") or {i: f"LABEL_{i}" for i in range(theirs.get("num_labels", 2))}
    labels = tuple(str(named[i]) for i in sorted(named, key=int))
    problem = PROBLEMS.get(str(theirs.get("problem_type")), "single_label")
    if theirs.get("problem_type") is None and len(labels) == 1:
        problem = "regression"
    return {"labels": labels, "problem": problem}


def unnested(theirs: Mapping[str, Any], rotary: bool) -> tuple[dict[str, Any], list[str]]:
    """Their attributes, with those of rotary positions flat (new files nest them), and faults."""
    flat, faults = dict(theirs), []
    if not rotary:
        return flat, faults
    nested = {}
    for group in ("rope_scaling", "rope_parameters"):
        nested |= flat.pop(group, None) or {}
    kind = nested.pop("type", "default")
    kind = nested.pop("rope_type", kind)
    if kind not in ROPE_TYPES:
        faults.append(f"rope_type must be one of {', '.join(ROPE_TYPES)}, it is {kind!r}")
    return {**flat, **nested, "rope_type": ROPE_TYPES.get(str(kind), "none")}, faults


def config_to_reference(config: ModelConfig) -> dict[str, Any]:
    """Their config.json for a model of this config.

    Raises: JaxlmError where no family has its structure.
    """
    family = family_of(config)
    theirs: dict[str, Any] = {
        "model_type": family.name,
        "architectures": [family.heads[config.head]],
    }
    theirs |= {name: getattr(config, ours) for ours, (name, _) in family.fields.items()}
    theirs |= {name: value for name, value in family.demands.items() if name != "layer_types"}
    activation, limit = family.fields["activation"][0], family.fields["max_seq_len"][0]
    theirs[activation] = next(k for k, v in ACTIVATIONS.items() if v == config.activation)
    theirs[limit] += config.position_offset
    theirs |= dict.fromkeys(family.dropout, config.dropout)
    if config.positions == "rotary":
        names = [name for ours, (name, _) in family.fields.items() if ours.startswith("rope_")]
        rope = {name: theirs.pop(name) for name in names}
        theirs["rope_theta"] = rope.pop("rope_theta")
        kept = {"none": [], "linear": ["rope_type", "factor"], "llama3": list(rope)}
        theirs["rope_scaling"] = {name: rope[name] for name in kept[config.rope_scaling]} or None
    if config.labels:
        theirs["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
        theirs["label2id"] = {label: i for i, label in enumerate(config.labels)}
    if config.head == "sequence_classification":
        theirs["problem_type"] = {v: k for k, v in PROBLEMS.items()}[config.problem]
    return theirs
