"""Update rules and learning-rate schedules, and which parameters each rule takes."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxlm.config import JaxlmError, OptimConfig
from jaxlm.training.muon import scale_by_muon

Schedule = Callable[[Any], Any]

# The first pattern found in a parameter's path decides; a path that none matches is an error.
# matrix: hidden weights, which Muon orthogonalises; table: embeddings and heads; vector: no decay.
PARAMETER_KINDS = (
    (r"(^|/)(bias|scale|query_norm|key_norm)$", "vector"),
    (r"(^|/)lora_[ab]$", "table"),
    (r"(^|/)embed/\w+$", "table"),
    (r"(^|/)head$", "table"),
    (r"(^|/)(transform|pooler/dense|next_sentence|classifier)/kernel$", "table"),
    (r"(^|/)layers_\d+/.*kernel$", "matrix"),
)


def make_schedule(config: OptimConfig, steps: int, peak: float) -> Schedule:
    """Learning rate by step: linear warm-up to `peak`, then the config's course to the end."""
    warmup = min(config.warmup_steps, steps)
    rest = max(steps - warmup, 1)
    end = peak * config.final_fraction
    if config.schedule == "cosine":
        course = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
    elif config.schedule == "linear":
        course = optax.linear_schedule(peak, end, rest)
    elif config.schedule == "wsd":
        decay = round(config.decay_fraction * steps)
        course = optax.linear_schedule(peak, end, decay, transition_begin=max(rest - decay, 0))
    elif config.schedule == "inverse_sqrt":
        offset = max(warmup, 1)
        return lambda step: peak * jnp.minimum((step + 1) / offset, (offset / (step + 1)) ** 0.5)
    else:
        course = optax.constant_schedule(peak)
    if warmup == 0:
        return course
    # The first update already moves: a rate of zero would waste its batch.
    ramp = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, course], [warmup])


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, the update rule and decoupled weight decay of everything but vectors."""
    schedule = make_schedule(config, steps, config.learning_rate)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, update_rule(config, steps, schedule))


def update_rule(
    config: OptimConfig, steps: int, schedule: Schedule
) -> optax.GradientTransformation:
    decay: dict[str, Any] = {"weight_decay": config.weight_decay, "mask": decays}
    adam: dict[str, Any] = {"b1": config.beta1, "b2": config.beta2, "eps": config.eps} | decay
    if config.name == "lion":
        return optax.lion(schedule, b1=config.beta1, b2=config.beta2, **decay)
    if config.name == "adafactor":
        return optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.add_decayed_weights(config.weight_decay, decays),
            optax.scale_by_learning_rate(schedule),
        )
    if config.name == "schedule_free":
        base = optax.adamw(schedule, b1=0.0, b2=config.beta2, eps=config.eps, **decay)
        return optax.contrib.schedule_free(base, schedule, b1=config.beta1)
    if config.name == "muon":
        matrices = optax.chain(
            scale_by_muon(config.momentum),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(schedule),
        )
        rest = optax.adamw(make_schedule(config, steps, config.adam_learning_rate), **adam)
        return optax.partition({"matrix": matrices, "table": rest, "vector": rest}, parameter_kinds)
    return optax.adamw(schedule, **adam)


def parameter_kinds(params: Any) -> Any:
    """The kind of every leaf by PARAMETER_KINDS; JaxlmError for a path that no pattern covers."""

    def kind(path: tuple, _: Any) -> str:
        name = "/".join(str(part.key) for part in path)
        for pattern, found in PARAMETER_KINDS:
            if re.search(pattern, name):
                return found
        raise JaxlmError(f"no rule of PARAMETER_KINDS covers the parameter {name}")

    return jax.tree_util.tree_map_with_path(kind, params)


def decays(params: Any) -> Any:
    """True for the leaves that weight decay shrinks."""
    return jax.tree.map(lambda kind: kind != "vector", parameter_kinds(params))
