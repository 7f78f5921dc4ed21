"""What the attributes of a Hugging Face config.json mean: which count, which change nothing."""

import logging
import re
import sys
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from jaxlm.config import ModelConfig
from jaxlm.hub.tables import REQUIRED, Family

Theirs = Mapping[str, Any]

# Attributes that do not change the outputs, whatever their value.
HARMLESS = (
    # of every family
    "_name_or_path architectures bos_token_id chunk_size_feed_forward classifier_dropout "
    "cls_token_id decoder_start_token_id dtype eos_token_id gradient_checkpointing id2label "
    "initializer_range label2id mask_token_id model_type num_labels output_attentions "
    "output_hidden_states pad_token_id problem_type return_dict sep_token_id "
    "task_specific_params tokenizer_class torch_dtype transformers_version unk_token_id use_cache "
    # of generation: the parameters of transformers' GenerationConfig
    "assistant_confidence_threshold assistant_early_exit assistant_lookbehind bad_words_ids "
    "begin_suppress_tokens cache_config cache_implementation compile_config constraints "
    "disable_compile diversity_penalty do_sample dola_layers early_stopping "
    "encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff "
    "exponential_decay_length_penalty force_words_ids forced_bos_token_id forced_decoder_ids "
    "forced_eos_token_id generation_kwargs guidance_scale is_assistant length_penalty low_memory "
    "max_length max_matching_ngram_size max_new_tokens max_time min_length min_new_tokens min_p "
    "no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups "
    "num_beams num_return_sequences output_logits output_scores penalty_alpha prefill_chunk_size "
    "prefix prompt_lookup_num_tokens remove_invalid_values renormalize_logits repetition_penalty "
    "return_dict_in_generate sequence_bias stop_strings suppress_tokens target_lookbehind "
    "temperature token_healing top_h top_k top_p typical_p watermarking_config "
    # of older versions, and of the programs that files come from
    "_attn_implementation _attn_implementation_autoset _commit_hash _flash_attn_2_enabled "
    "_num_labels attn_implementation emb_size eos_token_ids finetuning_task internal_version "
    "is_gpu is_llama_config max_sequence_length model_max_length n_special neftune_noise_alpha "
    "output_past predict_special_tokens sbert_ce_default_activation_function "
    "sentence_transformers tf_legacy_loss tokenizer_padding_side torchscript "
    "transformers.js_config use_bfloat16 use_flash_attention_2"
)
HARMLESS_NAMES = re.compile(r"unsloth_.*|.*_token_id")
# Attributes that must have this value, in every family that does not say otherwise.
DEMANDS: dict[str, Any] = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_encoder_decoder": False,
    "partial_rotary_factor": 1,
    "pruned_heads": None,
    "quantization_config": None,
    "rope_interleaved": False,
    "tie_encoder_decoder": False,
    "use_mrope": False,
}
# A text under such a name tells where a file comes from, not how to compute.
NAMING = re.compile(
    r"(^|_)(author|authors|base_model|citation|comment|commit|created|dataset|date|description|"
    r"id|lang|language|license|name|name_or_path|note|notes|path|repo|revision|source|tag|task|"
    r"title|url|version)$"
)
ROTARY = ("rope_theta", "partial_rotary_factor")  # beside or inside rope_parameters
# Their name of a scaling of rotary positions, ours, and what it needs.
SCALINGS = {"default": "none", "linear": "linear", "llama3": "llama3"}
NEEDED = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
ORIGINAL = "original_max_position_embeddings"
# With a factor of 1 these compute what "default" does.
STRETCHING = ("linear", "dynamic", "yarn", "llama3")
PROBLEMS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
MOST_LABELS = 1_000_000


def shown(value: object) -> str:
    """A value as it stands in an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_empty(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def attribute_faults(theirs: Theirs, family: Family, accept: set[str]) -> list[str]:
    """Faults of attributes that would change the outputs in a way that ours do not.

    What is unknown but cannot matter is passed over, and `accept` names what is taken all the same;
    both are logged.
    """
    passed, taken = [], []
    faults = [f"there is no {name} to accept" for name in sorted(accept - theirs.keys())]
    known = {attribute for attribute, _ in family.fields.values()} | {*family.dropout}
    known |= {*HARMLESS.split(), *family.harmless.split(), *family.same}
    demands = DEMANDS | dict(family.demands)
    for name, value in theirs.items():
        if name in demands:
            wanted = demands[name]
            if value == wanted or (is_empty(wanted) and is_empty(value)):
                continue
            fault = f"{name} must be {shown(wanted)}, it is {shown(value)}"
        elif name == "auto_map":
            if not own_classes(value):
                continue
            fault = f"auto_map names a model class of its own, {own_classes(value)[0]}"
        elif name in known or HARMLESS_NAMES.fullmatch(name):
            continue
        elif is_empty(value) or (isinstance(value, str) and NAMING.search(name)):
            passed.append(name)
            continue
        else:
            fault = f"{name} ({shown(value)}) is unknown to us"
        if name in accept:
            taken.append(name)
        else:
            faults.append(fault)
    log = logging.getLogger(__name__)
    if passed:
        log.warning("config.json: passed over, unknown to us: %s", ", ".join(passed))
    if taken:
        log.warning("config.json: accepted at your own risk: %s", ", ".join(taken))
    return faults


def own_classes(auto_map: object) -> list[str]:
    """The model classes that an auto_map takes from code beside the weights."""
    if not isinstance(auto_map, dict):
        return [] if is_empty(auto_map) else [shown(auto_map)]
    return [shown(name) for kind, name in auto_map.items() if str(kind).startswith("AutoModel")]


def read_field(ours: str, name: str, value: Any, default: Any, faults: list[str]) -> Any:
    """The value of their attribute for a field of ours; what is of the wrong type is a fault."""
    if value is REQUIRED:
        faults.append(f"{name} is missing")
        return None
    # Without a number of key and value heads of its own, a model has as many as query heads.
    if value is None and (default is None or ours == "num_kv_heads"):
        return None
    kind = field_types()[ours]
    kinds = typing.get_args(kind) or (kind,)
    number: Any = value
    if bool in kinds:
        wanted, fits = "true or false", isinstance(value, bool)
    elif int in kinds:
        least = 0 if ours in ("num_token_types", "decoder_start_id") else 1
        wanted = f"a whole number of at least {least}"
        fits = is_finite(number) and isinstance(number, int) and number >= least
    elif float in kinds:
        wanted, fits = "a number above 0", is_finite(number) and number > 0
    else:
        return value
    if not fits:
        faults.append(f"{name} must be {wanted}, it is {shown(value)}")
        return None
    return float(number) if float in kinds else number


@cache
def field_types() -> dict[str, Any]:
    return typing.get_type_hints(ModelConfig)


def is_finite(value: Any) -> bool:
    """Whether it is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def read_rate(theirs: Theirs, name: str, faults: list[str]) -> float:
    """A dropout rate; null is none."""
    value = theirs.get(name)
    if value is None:
        return 0.0
    if not is_finite(value) or not 0 <= value < 1:
        faults.append(f"{name} must be a number from 0 to below 1, it is {shown(value)}")
        return 0.0
    return float(value)


def flat_rotary(theirs: Theirs, faults: list[str]) -> dict[str, Any]:
    """Their attributes with those of rotary positions beside the others; newer files nest them.

    As in transformers, rope_scaling comes before rope_parameters, and what either holds before the
    same attribute beside it.
    """
    parts = {"factor", "low_freq_factor", "high_freq_factor", ORIGINAL, "attention_factor"}
    flat = {name: value for name, value in theirs.items() if name not in parts}
    scaling, parameters = (flat.pop(name, None) for name in ("rope_scaling", "rope_parameters"))
    nested = scaling or parameters or {}
    if not isinstance(nested, dict):
        faults.append(f"rope_scaling must be a mapping, it is {shown(nested)}")
        return flat
    kind = nested.get("rope_type", nested.get("type", "default"))
    stretched = nested.get("factor") != 1 or not is_empty(nested.get("attention_factor"))
    if kind in STRETCHING and not stretched and is_empty(nested.get("mscale")):
        kind = "default"
    if not isinstance(kind, str) or kind not in SCALINGS:
        faults.append(f"rope_type must be one of {', '.join(SCALINGS)}, it is {shown(kind)}")
        return flat
    faults += [f"rope_scaling lacks {name}" for name in NEEDED[kind] if name not in nested]
    read = {name: nested[name] for name in (*ROTARY, *NEEDED[kind]) if name in nested}
    if kind == "llama3":
        read[ORIGINAL] = nested.get(ORIGINAL, flat.get("max_position_embeddings"))
    others = nested.keys() - read.keys() - parts - {"rope_type", "type"}
    if kind != "default":  # of which transformers reads nothing else
        flat |= {f"rope_scaling.{name}": nested[name] for name in others}
    return {**flat, **read, "rope_type": SCALINGS[kind]}


def window_faults(theirs: Theirs, family: Family, num_layers: int, limit: int) -> list[str]:
    """Faults of sliding windows that are narrower than the context in any layer."""
    if family.window is None:
        return []
    window = theirs.get("sliding_window", family.window)
    if family.window_switch and not theirs.get("use_sliding_window", False):
        window = None
    kinds = theirs.get("layer_types") if family.window_switch else None
    if kinds is None:
        first = theirs.get("max_window_layers", 28) if family.window_switch else 0
        slides = not isinstance(first, int) or first < num_layers
    elif isinstance(kinds, list) and set(map(shown, kinds)) <= {"'full_attention'"}:
        slides = False
    else:
        return [f"layer_types must be 'full_attention' in every layer, it is {shown(kinds)}"]
    if window is None or not slides or (isinstance(window, int) and window >= limit):
        return []
    told = f"{shown(window)}" + (" by default" if "sliding_window" not in theirs else "")
    return [f"sliding_window must be None or at least the context of {limit} tokens, it is {told}"]


def class_labels(theirs: Theirs, faults: list[str]) -> dict[str, Any]:
    """The names of the classes and what kind of problem they are."""
    problem = theirs.get("problem_type")
    if problem is not None and problem not in list(PROBLEMS):
        faults.append(f"problem_type must be one of {', '.join(PROBLEMS)}, it is {shown(problem)}")
        return {}
    named = theirs.get("id2label")
    if named is None:
        count = theirs.get("num_labels", 2)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            faults.append(f"num_labels must be a whole number above 0, it is {shown(count)}")
            return {}
        if count > MOST_LABELS:
            faults.append(f"num_labels must be at most {MOST_LABELS:,}, it is {count}")
            return {}
        named = {str(i): f"LABEL_{i}" for i in range(count)}
    if not isinstance(named, dict) or not named:
        faults.append(f"id2label must map numbers to names of classes, it is {shown(named)}")
        return {}
    if set(named) != set(map(str, range(len(named)))):
        faults.append(f"the keys of id2label must be 0 to {len(named) - 1}, it is {shown(named)}")
        return {}
    labels = tuple(str(named[str(i)]) for i in range(len(named)))
    one = "regression" if len(labels) == 1 else "single_label"
    return {"labels": labels, "problem": one if problem is None else PROBLEMS[problem]}
