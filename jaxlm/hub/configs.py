"""Which family a config of ours belongs to, and a config of theirs in our words."""

from collections.abc import Mapping
from typing import Any

from jaxlm.config import JaxlmError, ModelConfig
from jaxlm.hub.families import FAMILIES
from jaxlm.hub.tables import REQUIRED, Family

# Their name of an activation and ours; several of theirs are one function.
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
}


def family_of(config: ModelConfig) -> Family:
    """The family that a model of this config belongs to; JaxlmError says what sets it apart."""
    derived = {"num_kv_heads": config.num_heads, "head_dim": config.d_model // config.num_heads}

    def differences(family: Family) -> list[str]:
        expected = {k: derived[k] if v is None else v for k, v in family.structure.items()}
        found = {name: getattr(config, name) for name in expected}
        return [f"{k} = {found[k]!r}, not {v!r}" for k, v in expected.items() if found[k] != v]

    nearest = min(FAMILIES.values(), key=lambda family: len(differences(family)))
    if apart := differences(nearest):
        raise JaxlmError(
            f"no family of {', '.join(FAMILIES)} has this structure; it is nearest to "
            f"{nearest.name}, but for {'; '.join(apart)}"
        )
    return nearest


def config_from_reference(theirs: Mapping[str, Any]) -> ModelConfig:
    """The ModelConfig that computes what a config.json of theirs describes.

    JaxlmError names every attribute that we know nothing of or would get wrong.
    """
    family = FAMILIES.get(theirs.get("model_type", ""))
    if family is None:
        given = repr(theirs["model_type"]) if "model_type" in theirs else "missing"
        raise JaxlmError(f"model_type must be one of {', '.join(FAMILIES)}, it is {given}")
    theirs = unnested(theirs)
    known = {name for name, _ in family.fields.values()} | set(family.harmless.split())
    faults = []
    for name, value in theirs.items():
        if name in family.demands:
            wanted = family.demands[name]
            if any(v != wanted for v in (value if isinstance(value, list) else [value])):
                faults.append(f"{name} must be {wanted!r}, it is {value!r}")
        elif name not in known:
            faults.append(f"{name} ({value!r}) is unknown to us")
    fields = {ours: theirs.get(name, default) for ours, (name, default) in family.fields.items()}
    faults += [f"{family.fields[k][0]} is missing" for k, v in fields.items() if v is REQUIRED]
    activation = fields["activation"]
    if activation not in ACTIVATIONS:
        faults.append(f"{family.fields['activation'][0]} {activation!r} is unknown to us")
    if faults:
        raise JaxlmError(f"this {family.name} config cannot be taken over: {'; '.join(faults)}")
    return ModelConfig(**{**fields, **family.structure, "activation": ACTIVATIONS[activation]})


def unnested(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Their attributes with the rotary ones flat, which newer files nest and older ones do not."""
    flat = dict(theirs)
    for group in ("rope_parameters", "rope_scaling"):
        for name, value in (flat.pop(group, None) or {}).items():
            flat[name if name == "rope_theta" else f"{group}.{name}"] = value
    return flat
