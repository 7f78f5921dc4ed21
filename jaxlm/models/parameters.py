"""The one table of parameter paths: what each parameter is, and the adapters beside kernels.

Low-rank adapters are two thin matrices beside a kernel, trained in its place (Hu et al. 2021).
`Dense` adds x @ lora_a @ lora_b * lora_scale wherever its params hold them, so a model with
adapters is the same model with more params.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from jaxlm.config import ConfigError, JaxlmError, ModelConfig
from jaxlm.models.heads import make_model

Kind = Literal["matrix", "head", "embedding", "vector", "adapter", "constant"]
Axes = tuple[str | None, ...]  # the logical name of each dim; None: without a name


class ParameterRule(NamedTuple):
    """What is true of every parameter whose whole "/"-joined path the regex matches.

    Kinds:
      matrix     weights (in, out) inside the blocks; Muon orthogonalises them
      head       weights (in, out) of what stands on the trunk
      embedding  tables that are looked up, one vector a row
      vector     biases and scales of norms: no weight decay
      adapter    the two thin matrices of LoRA
      constant   never trained
    """

    pattern: str
    kind: Kind
    axes: Axes | None  # None: a module of others, with any number of dims


def dense_rules(
    pattern: str, kind: Kind, in_axis: str, out_axis: str | None
) -> list[ParameterRule]:
    """The rules of a Dense layer: kernel, bias and adapter."""
    return [
        ParameterRule(f"{pattern}/kernel", kind, (in_axis, out_axis)),
        ParameterRule(f"{pattern}/bias", "vector", (out_axis,)),
        ParameterRule(f"{pattern}/lora_a", "adapter", (in_axis, None)),
        ParameterRule(f"{pattern}/lora_b", "adapter", (None, out_axis)),
        ParameterRule(f"{pattern}/lora_scale", "constant", ()),
    ]


NORMS = "(attention_norm|cross_attention_norm|feed_forward_norm|final_norm|embed/norm)"

# The first rule that matches decides.
RULES = (
    ParameterRule(".*embed/tokens", "embedding", ("vocab", "d_model")),
    ParameterRule(".*embed/positions", "embedding", ("positions", "d_model")),
    ParameterRule(".*embed/relative", "embedding", (None, None)),
    ParameterRule(".*embed/types", "embedding", ("token_types", "d_model")),
    *dense_rules(".*attention/query", "matrix", "d_model", "heads"),
    *dense_rules(".*attention/(key|value)", "matrix", "d_model", "kv_heads"),
    *dense_rules(".*attention/output", "matrix", "heads", "d_model"),
    *dense_rules(".*feed_forward/(up|gate)", "matrix", "d_model", "d_ff"),
    *dense_rules(".*feed_forward/down", "matrix", "d_ff", "d_model"),
    ParameterRule(".*(query|key)_norm", "vector", ("head_dim",)),
    ParameterRule(f"(.*/)?{NORMS}/(scale|bias)", "vector", ("d_model",)),
    ParameterRule("head", "head", ("d_model", "vocab")),
    ParameterRule("bias", "vector", ("vocab",)),
    *dense_rules("transform", "head", "d_model", None),
    ParameterRule("transform_norm/(scale|bias)", "vector", ("d_model",)),
    *dense_rules("pooler/dense", "head", "d_model", None),
    *dense_rules("next_sentence", "head", "d_model", None),
    *dense_rules("classifier", "head", "d_model", "labels"),
    # Modules of others, by the names that Flax gives.
    ParameterRule("(.*/)?(bias|scale)", "vector", None),
    ParameterRule("(.*/)?embedding", "embedding", None),
    ParameterRule("(.*/)?kernel", "matrix", None),
)


def rule_of(path: str) -> ParameterRule:
    """The rule of a parameter. Raises: JaxlmError where none matches its path."""
    for rule in RULES:
        if re.fullmatch(rule.pattern, path):
            return rule
    raise JaxlmError(f"no rule of jaxlm.models.parameters covers the parameter {path}")


def path_name(path: tuple) -> str:
    """A path of `jax.tree_util` as the table spells it: its parts joined by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def parameter_kinds(params: Any) -> Any:
    """The kind of every leaf. Raises: JaxlmError for a path without a rule."""
    tree_map = jax.tree_util.tree_map_with_path
    return tree_map(lambda path, _: rule_of(path_name(path)).kind, params)


def logical_axes(path: str, num_dims: int) -> Axes:
    """The logical name of each dim of a parameter; all None for modules of others."""
    axes = rule_of(path).axes
    return (None,) * num_dims if axes is None else axes


def output_dim(path: str) -> int | None:
    """Which dim of a weight indexes the outputs of its product with activations.

    1 for weights (in, out), 0 for token vectors, whose transpose is a tied head; None for a
    parameter that multiplies no activations.
    """
    rule = rule_of(path)
    if rule.kind in ("matrix", "head"):
        return 1
    return 0 if rule.axes == ("vocab", "d_model") else None


def depth(path: str, num_layers: int) -> int:
    """0 for the embeddings, i + 1 for block i, num_layers + 1 for what comes after the blocks."""
    if re.match("(.*/)?embed/", path):
        return 0
    block = re.match(r"(.*/)?layers_(\d+)/", path)
    return int(block[2]) + 1 if block else num_layers + 1


def layer_of(path: str) -> str:
    """The name of the block that a parameter belongs to, or of the module outside of blocks."""
    path = path.removeprefix("backbone/")
    block = re.match(r"(.*/)?layers_\d+(?=/)", path)
    return block[0] if block else path.rpartition("/")[0] or path


def count_layers(paths: Iterable[str]) -> int:
    """How many blocks the parameters of these paths make."""
    blocks = (re.match(r"(.*/)?layers_(\d+)/", path) for path in paths)
    return max((int(block[2]) + 1 for block in blocks if block), default=0)


def is_kernel(path: str) -> bool:
    """Whether this is the kernel of a Dense layer, which can take an adapter."""
    return path.endswith("/kernel")


def adapter_paths(kernel: str) -> tuple[str, str, str]:
    """The paths of lora_a, lora_b and lora_scale beside a kernel."""
    name = kernel.removesuffix("kernel")
    return name + "lora_a", name + "lora_b", name + "lora_scale"


def is_adapter(path: str) -> bool:
    """Whether this belongs to an adapter: lora_a, lora_b or their constant scale."""
    return rule_of(path).kind in ("adapter", "constant")


def is_classifier(path: str) -> bool:
    """Whether this has an entry for each label, so that it is useless with other labels."""
    return "labels" in (rule_of(path).axes or ())


def param_shapes(config: ModelConfig) -> Any:
    """Shape and type of every parameter, as nested dicts, without allocating them."""
    return unflatten_dict(shapes_by_path(config), sep="/")


def shapes_by_path(config: ModelConfig) -> dict[str, Any]:
    """Shape and type of every parameter by its "/"-joined path, without allocating them."""
    config = config.resolved()
    # All layers of a stack are alike: one of each is traced, however many there are.
    shallow = dataclasses.replace(config, num_layers=1)
    if config.num_encoder_layers is not None:
        shallow = dataclasses.replace(shallow, num_encoder_layers=1)
    whole: dict[str, Any] = {}
    for path, leaf in flatten_dict(traced_shapes(shallow), sep="/").items():
        stack, in_layer, name = path.partition("layers_0/")
        if not in_layer:
            whole[path] = leaf
            continue
        deep = config.num_encoder_layers if stack.endswith("encoder/") else config.num_layers
        whole |= {f"{stack}layers_{i}/{name}": leaf for i in range(deep)}
    return whole


@lru_cache(maxsize=8)  # loading, tuning and writing a model each ask for them
def traced_shapes(config: ModelConfig) -> Mapping[str, Any]:
    """The shapes of a resolved config's parameters, by tracing its init."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(make_model(config).init, jax.random.key(0), ids)["params"]


def num_params(config: ModelConfig) -> int:
    """Number of parameters of the config's model, counted without allocating them."""
    return sum(leaf.size for leaf in jax.tree.leaves(param_shapes(config)))


def flops_per_token(config: ModelConfig, num_params: int, seq_len: int) -> float:
    """Training FLOPs of one token: 6 a parameter, plus attention's products (PaLM, appendix B).

    Position embeddings are looked up, not multiplied; token vectors count only if they also are
    the head. In an encoder_decoder a token passes one half of the model: it is the mean over as
    many tokens of the source as of the target, `seq_len` of each.
    """
    config = config.resolved()
    both = config.architecture == "encoder_decoder"
    looked_up = config.max_seq_len * config.d_model if config.positions == "learned" else 0
    if not config.tie_embeddings:
        looked_up += config.vocab_size * config.d_model
    if both:
        looked_up *= 1 if config.positions != "learned" else 2
        if not config.share_embeddings:
            looked_up += config.source_vocab_size * config.d_model
    num_attentions = config.num_layers
    if both:
        num_attentions = config.num_encoder_layers + 2 * config.num_layers
    attention = 12 * num_attentions * config.num_heads * config.head_dim * seq_len
    return (6 * (num_params - looked_up) + attention) / (2 if both else 1)


def add_lora(
    params: Mapping[str, Any], rank: int, alpha: float, targets: Sequence[str], key: Array
) -> dict[str, Any]:
    """The params with an adapter beside each kernel in whose path a regex of `targets` is found.

    lora_a (I, rank) starts uniform in +-1/sqrt(I), lora_b (rank, O) at zero, so the model computes
    the same as before; lora_scale is alpha / rank. Raises: ConfigError for a regex found nowhere.
    """
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    kernels = sorted(filter(is_kernel, leaves))
    for target in targets:
        if not any(re.search(target, path) for path in kernels):
            raise ConfigError(
                f"finetune.lora_targets {target!r} is in the path of no kernel; one is {kernels[0]}"
            )
    adapted = [path for path in kernels if any(re.search(target, path) for target in targets)]
    for path, own in zip(adapted, jax.random.split(key, len(adapted)), strict=True):
        size_in, size_out = leaves[path].shape
        bound = size_in**-0.5
        a, b, scale = adapter_paths(path)
        leaves[a] = jax.random.uniform(own, (size_in, rank), jnp.float32, -bound, bound)
        leaves[b] = jnp.zeros((rank, size_out))
        leaves[scale] = jnp.asarray(alpha / rank, jnp.float32)
    return unflatten_dict(leaves, sep="/")


def merge_lora(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params with every adapter added into its kernel; unchanged where there is none."""
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    for kernel in list(filter(is_kernel, leaves)):
        if adapter_paths(kernel)[0] in leaves:
            a, b, scale = (leaves.pop(path) for path in adapter_paths(kernel))
            leaves[kernel] += scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return unflatten_dict(leaves, sep="/")
