"""What the page computes in JavaScript equals what jaxlm computes."""

import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.generation.options import options_of_rows
from jaxlm.generation.sampler import option_arrays, restrict
from jaxlm.inspection import ablated, attention_maps, logit_lens, residual_stream, run
from jaxlm.inspection.payload import encoder_of, in_text, packed_weights, settings_of
from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.tiny import random_ids
from tests.inspection.models import tiny_loaded

PAGE = resources.files("jaxlm.inspection") / "page"
CASES = Path(__file__).parent / "engine_cases.js"
IDS = random_ids(1, 9)
OFF = {0: [1, 3], 1: [0]}  # heads by layer

ENCODER = {"architecture": "encoder"}
LABELS = {"head": "sequence_classification", "labels": ("a", "b", "c")}
MODELS = {
    "learned": ("learned", {}),
    "rotary": ("rotary", {}),
    "slowed": ("rotary", {"rope_scaling": "linear", "rope_factor": 2.0}),
    "sinusoidal": ("sinusoidal", {}),
    "halves": (
        "sinusoidal",
        {"sinusoid_layout": "halves", "scale_embeddings": True, "norm_position": "pre"},
    ),
    "scaled": ("learned", {"scale_head": True, "scale_attention": False, "head_bias": True}),
    "none": ("none", {}),
    "offset": ("learned", {"position_offset": 2, "embed_norm": True, "activation": "gelu"}),
    "encoder": ("learned", {**ENCODER, "num_token_types": 2, "norm_position": "post"}),
    "untied encoder": ("learned", {**ENCODER, "tie_embeddings": False, "bias": False}),
    "pretraining": ("learned", {**ENCODER, "head": "pretraining"}),
    "pooler": ("learned", {**ENCODER, **LABELS}),
    "relu": ("learned", {**ENCODER, **LABELS, "pooler_activation": "relu", "pooling": "mean"}),
    "decoder of labels": ("rotary", LABELS),
}

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")


def computed(cases):
    command = ["node", str(CASES), str(PAGE)]
    done = subprocess.run(
        command, input=json.dumps(cases), capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)


def case_of(loaded, off=()):
    tensors, content = packed_weights(loaded.params)
    position = 4 if loaded.config.head in ("lm", "pretraining") else None
    known = {} if position is None else {"position": position}
    return {
        "config": settings_of(loaded),
        "tensors": tensors,
        "weights": in_text(content),
        "ids": IDS[0].tolist(),
        "off": list(off),
        **known,
    }


@pytest.fixture(scope="module")
def both():
    """Each model, and what JavaScript made of it whole and without some heads."""
    models = {name: tiny_loaded(kind, **more) for name, (kind, more) in MODELS.items()}
    off = [f"{layer},{head}" for layer, heads in OFF.items() for head in heads]
    cases = [case_of(model, heads) for model in models.values() for heads in ((), off)]
    found = computed(cases)
    pairs = zip(found[::2], found[1::2], strict=True)
    return {name: (model, *pair) for (name, model), pair in zip(models.items(), pairs, strict=True)}


def logits_of(answer):
    return np.asarray(answer[0] if isinstance(answer, tuple) else answer)[0].reshape(-1)


@pytest.mark.parametrize("name", MODELS)
def test_logits_agree_with_all_heads_and_without_some(both, name):
    loaded, whole, fewer = both[name]
    np.testing.assert_allclose(whole["logits"], logits_of(run(loaded, IDS)[0]), atol=1e-3)
    edits = {}
    for layer, heads in OFF.items():
        edits |= ablated(loaded, "heads", layer, heads)
    np.testing.assert_allclose(
        fewer["logits"], logits_of(run(loaded, IDS, edit=edits)[0]), atol=1e-3
    )
    maps = attention_maps(loaded, IDS)[:, 0].reshape(2, 4, -1)
    np.testing.assert_allclose(whole["maps"], maps, atol=1e-3)


@pytest.mark.parametrize("name", ["learned", "rotary", "encoder"])
def test_the_lens_agrees(both, name):
    loaded, whole, _ = both[name]
    stream = residual_stream(loaded.model, loaded.params, IDS)
    lens = logit_lens(loaded.model, loaded.params, stream)[:, 0, 4]
    np.testing.assert_allclose(whole["lens"], lens, atol=1e-3)


BOTH = {
    "rotary": ("rotary", {"num_encoder_layers": 3}),
    "learned": ("learned", {"norm_position": "post", "head_bias": True, "embed_norm": True}),
    "two vocabularies": ("learned", {"share_embeddings": False, "source_vocab_size": 23}),
    "2017": ("sinusoidal", {"scale_embeddings": True, "scale_head": True}),
}


@pytest.mark.parametrize("name", BOTH)
def test_both_sides_of_an_encoder_decoder_agree(name):
    kind, more = BOTH[name]
    loaded = tiny_loaded(kind, architecture="encoder_decoder", decoder_start_id=1, **more)
    source = random_ids(1, 7, seed=5)
    off = {"encoder/layers_0/attention": "encoder.0,2", "decoder/layers_1/attention": "decoder.1,0"}
    off["decoder/layers_0/cross_attention"] = "cross.0,3"
    case = case_of(loaded) | {"source": source[0].tolist()}
    whole, fewer = computed([case, case | {"off": list(off.values())}])
    logits, found = run(loaded, source, "**/weights", target_ids=IDS)
    np.testing.assert_allclose(whole["logits"], logits_of(logits), atol=1e-3)
    np.testing.assert_allclose(whole["lens"][-1], logits[0, 4], atol=1e-3)
    for part, maps in (("encoder", "read"), ("decoder", "maps")):
        for i, ours in enumerate(whole[maps]):
            weights = found[f"{part}/layers_{i}/attention/weights"][0].reshape(4, -1)
            np.testing.assert_allclose(ours, weights, atol=1e-3)
    weights = found["decoder/layers_1/cross_attention/weights"][0].reshape(4, -1)
    np.testing.assert_allclose(whole["cross"][1], weights, atol=1e-3)

    def without(head):
        return lambda x: x.at[:, head].set(0)

    edit = {f"{path}/mixed": without(int(name[-1])) for path, name in off.items()}
    logits, _ = run(loaded, source, edit=edit, target_ids=IDS)
    np.testing.assert_allclose(fewer["logits"], logits_of(logits), atol=1e-3)


TEXTS = ["The cat sat, on the mat.", "服务员的态度很好，房间很干净。", "a  b's 12\n好 cat!"]


@pytest.mark.parametrize("kind", ["char", "wordpiece", "bpe"])
def test_texts_are_cut_alike(kind):
    tokenizer = train_tokenizer(kind, TEXTS * 3, 300)
    plain = tokenizer.encode(TEXTS[0])
    rules = encoder_of(tokenizer, [7, *plain, 8, 9], plain)
    (found,) = computed([{"tokenizer": rules, "texts": TEXTS}])
    for (ids, text), written in zip(found, TEXTS, strict=True):
        assert ids == [7, *tokenizer.encode(written), 8, 9]
        if kind != "wordpiece":  # which keeps no spacing
            assert text == written


def test_a_character_without_a_token_is_told():
    tokenizer = train_tokenizer("char", ["abc"])
    rules = encoder_of(tokenizer, tokenizer.encode("abc"), tokenizer.encode("abc"))
    assert computed([{"tokenizer": rules, "texts": ["abz"]}])[0][0][0] is None


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, None, None), (0.5, 4, None), (1.7, None, 0.6)]
)
def test_sampling_leaves_the_same_distribution(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(size=19).astype(np.float32) * 2
    options = options_of_rows(1, temperature=temperature, top_k=top_k, top_p=top_p)
    expected = jax.nn.softmax(restrict(jnp.asarray(logits)[None], option_arrays(options, 1, 19)))[0]
    draw = {"logits": logits.tolist(), "options": [temperature, top_k or 99, top_p or 1]}
    np.testing.assert_allclose(computed([{"draw": draw}])[0], expected, atol=1e-5)


def test_both_languages_say_the_same_things():
    program = "console.log(JSON.stringify(WORDS))"
    source = (PAGE / "words.js").read_text(encoding="utf-8") + program
    done = subprocess.run(["node", "-e", source], capture_output=True, check=True, text=True)
    english, chinese = json.loads(done.stdout).values()
    assert english.keys() == chinese.keys()
    names = lambda text: set(re.findall(r"{\w+}", text))  # noqa: E731
    assert {k: names(v) for k, v in english.items()} == {k: names(v) for k, v in chinese.items()}
    files = ("page.js", "steps.js", "page.html")
    parts = "".join((PAGE / name).read_text(encoding="utf-8") for name in files)
    letters = {key for key in english if re.fullmatch("letter[A-Z]", key)}
    assert {key for key in english.keys() - letters if f'"{key}"' not in parts} == set()
