"""Adapters in PEFT's layout: written and read exactly, and refused by name."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import jaxlm
from jaxlm.config import JaxlmError
from tests.fixtures.reference import recorded
from tests.hub.adapted import TARGETS, adapt, is_head, reference, same

NAMES = (
    *("gpt2", "llama", "mistral", "qwen2", "qwen3", "bert", "roberta", "LlamaModel"),
    *("GPT2ForSequenceClassification", "LlamaForTokenClassification", "BertModel"),
    *("BertForSequenceClassification", "BertForQuestionAnswering", "BertForMaskedLM"),
    *("RobertaForSequenceClassification", "DistilBertForSequenceClassification"),
)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A base, adapters on it, and the params that they make."""
    folder = tmp_path_factory.mktemp("gpt2")
    base = reference(recorded("gpt2"), folder / "base")
    return base, folder, adapt(base, folder / "adapters", folder / "base")


@pytest.fixture
def adapters(gpt2, tmp_path):
    """A copy of those adapters to change."""
    _, folder, _ = gpt2
    for file in (folder / "adapters").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_bit_for_bit(name, tmp_path):
    base = reference(recorded(name), tmp_path / "base")
    targets = [*TARGETS, "classifier"] if base.config.labels else TARGETS
    wanted = adapt(base, tmp_path / "adapters", tmp_path / "base", targets)
    loaded = jaxlm.load(tmp_path / "adapters")
    same(loaded.params, wanted)
    assert loaded.config == base.config
    told = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert bool(told["modules_to_save"]) == any(map(is_head, flatten_dict(wanted, sep="/")))


def test_names_and_shapes_are_those_of_peft(gpt2, adapters):
    told = json.loads((adapters / "adapter_config.json").read_text())
    assert told["target_modules"] == ["c_attn", "mlp.c_proj"]
    # Queries and values share a module, side by side: twice the rank and alpha.
    ranks = {"c_attn": (4, 6), "mlp.c_proj": (2, 3)}
    for name, (rank, alpha) in ranks.items():
        assert told["rank_pattern"].get(name, told["r"]) == rank
        assert told["alpha_pattern"].get(name, told["lora_alpha"]) == alpha
    tensors = load_file(adapters / "adapter_model.safetensors")
    d = gpt2[0].config.d_model
    down = tensors["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"]
    up = tensors["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"]
    assert (down.shape, up.shape) == ((4, d), (3 * d, 4))
    assert not up[d : 2 * d].any()


def test_scales_follow_patterns_and_rslora(gpt2, adapters):
    base, _, wanted = gpt2
    whole = {"r": 2, "lora_alpha": 3, "rank_pattern": {"c_attn": 4}, "target_modules": None}
    edit(adapters / "adapter_config.json", **whole, alpha_pattern={r"h\.\d+\.attn\.c_attn": 6})
    same(jaxlm.load(adapters).params, wanted)
    scaled = {r".*c_attn": 3.0, "c_proj": 3 / 2**0.5}
    edit(adapters / "adapter_config.json", use_rslora=True, alpha_pattern=scaled)
    for ours, theirs in zip(
        *map(jax.tree.leaves, (jaxlm.load(adapters).params, wanted)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    edit(adapters / "adapter_config.json", alpha_pattern={}, use_rslora=False)
    block = jaxlm.load(adapters).params["backbone"]["layers_0"]["attention"]["query"]["kernel"]
    assert (block != wanted["backbone"]["layers_0"]["attention"]["query"]["kernel"]).any()
    assert (block != base.params["backbone"]["layers_0"]["attention"]["query"]["kernel"]).any()


REFUSED = {
    "use_dora": True,
    "bias": "all",
    "lora_bias": True,
    "peft_type": "LOHA",
    "init_lora_weights": "pissa_niter_4",
    "layer_replication": [[0, 2]],
    "trainable_token_indices": [1],
    "target_parameters": ["mlp"],
    "rank_pattern": {"(": 4},
    "alpha_pattern": {"c_attn": 0},
    "r": 0,
    "lora_alpha": "16",
    "task_type": "SEQ_2_SEQ_LM",
    "a_new_option": {"of": "theirs"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(adapters, name):
    edit(adapters / "adapter_config.json", **{name: REFUSED[name]})
    with pytest.raises(JaxlmError, match=name) as raised:
        jaxlm.load(adapters)
    assert "\n" not in str(raised.value)


def test_what_only_training_needs_is_passed_over(gpt2, adapters):
    passed = {"lora_dropout": 0.1, "inference_mode": False, "target_modules": "all-linear"}
    passed |= {
        "peft_version": "0.21.2",
        "use_dora": False,
        "loftq_config": {},
        "corda_config": None,
    }
    passed |= {"megatron_core": "megatron.core", "qalora_group_size": 16, "exclude_modules": ["x"]}
    edit(adapters / "adapter_config.json", **passed, init_lora_weights="gaussian")
    same(jaxlm.load(adapters).params, gpt2[2])


CHANGES = {
    "has no place in the model": lambda t: t | {"base_model.model.other.lora_A.weight": t["A"]},
    "transformer.wte.weight does not have the shape": lambda t: (
        t | {"base_model.model.transformer.wte.weight": t["A"]}
    ),
    "embed/tokens is also the head": lambda t: (
        t | {"base_model.model.transformer.wte.weight": np.zeros(t["tokens"], np.float32)}
    ),
    "not of rank": lambda t: t | {t["name"]: t["A"][:1].copy()},
    "not finite": lambda t: t | {t["name"]: t["A"] * np.float32(np.nan)},
    r"c_attn\.lora_B\.weight has no place": lambda t: {
        k: v for k, v in t.items() if k != t["name"]
    },
    "an adapter beside transformer.wte is not supported": lambda t: (
        t | {f"base_model.model.transformer.wte.lora_{part}.weight": t["A"] for part in "AB"}
    ),
}


@pytest.mark.parametrize("told", CHANGES)
def test_tensors_that_do_not_fit_are_told(gpt2, adapters, told):
    file = adapters / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    told_of = {"A": tensors[name], "name": name}
    told_of["tokens"] = (gpt2[0].config.vocab_size, gpt2[0].config.d_model)
    changed = CHANGES[told](tensors | told_of)
    save_file({k: v for k, v in changed.items() if k not in told_of}, file)
    with pytest.raises(JaxlmError, match=told):
        jaxlm.load(adapters)


def test_the_base_is_found_named_or_missed_and_known_by_its_hash(gpt2, adapters, tmp_path):
    base, folder, wanted = gpt2
    edit(adapters / "adapter_config.json", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(JaxlmError, match=r"gone, which is not there; bring it back, or name"):
        jaxlm.load(adapters)
    same(jaxlm.load(adapters, base=folder / "base").params, wanted)
    same(jaxlm.load(adapters, base=base).params, wanted)
    (adapters / "beside").symlink_to(folder / "base")
    edit(adapters / "adapter_config.json", base_model_name_or_path="beside")
    same(jaxlm.load(adapters).params, wanted)
    jaxlm.load(adapters, dtype="bfloat16")
    edit(adapters / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(JaxlmError, match="adapters of a model that it does not name, which is not"):
        jaxlm.load(adapters)
    edit(adapters / "adapter_config.json", base_model_name_or_path="someone/else")
    moved = jax.tree.map(lambda leaf: leaf * 1.001, base.params)
    other = jaxlm.Loaded(base.model, moved, base.tokenizer, base.config, base.origin)
    with pytest.raises(JaxlmError, match="not of this model: a weight differs"):
        jaxlm.load(adapters, base=other)
    # Adapters of others tell no hash.
    file = adapters / "adapter_model.safetensors"
    save_file(load_file(file), file)
    jaxlm.load(adapters, base=other)
    with pytest.raises(JaxlmError, match="holds all of its weights: leave base out"):
        jaxlm.load(folder / "base", base=base)


def test_adapters_in_half_precision_are_read(gpt2, adapters):
    file = adapters / "adapter_model.safetensors"
    half = {k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(file).items()}
    save_file(half, file)
    for ours, theirs in zip(*map(jax.tree.leaves, (jaxlm.load(adapters).params, gpt2[2])),
                            strict=True):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, atol=0.05)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_adapters_too_large_for_float16_are_told(adapters):
    file = adapters / "adapter_model.safetensors"
    save_file({name: 1e6 * tensor for name, tensor in load_file(file).items()}, file)
    jaxlm.load(adapters)
    with pytest.raises(JaxlmError, match=r"lora_\w holds values too large for float16"):
        jaxlm.load(adapters, dtype="float16")


def test_a_new_head_gets_its_labels_from_beside_the_adapters_or_numbers(tmp_path):
    base = reference(recorded("BertForSequenceClassification"), tmp_path / "base")
    adapt(base, tmp_path / "adapters", tmp_path / "base")
    bare = reference(recorded("BertModel"), tmp_path / "bare")
    (tmp_path / "adapters" / "config.json").unlink()
    file = tmp_path / "adapters" / "adapter_model.safetensors"
    save_file(load_file(file), file)  # without the hash of the base
    loaded = jaxlm.load(tmp_path / "adapters", base=bare)
    count = len(base.config.labels)
    assert loaded.config.labels == tuple(f"LABEL_{i}" for i in range(count))
    pooled = {k: v for k, v in load_file(file).items() if "pooler" not in k}
    save_file(pooled, file)
    masked = reference(recorded("BertForMaskedLM"), tmp_path / "masked")
    with pytest.raises(JaxlmError, match=r"not of this model: pooler/dense/\w+ differs"):
        jaxlm.load(tmp_path / "adapters", base=masked)
