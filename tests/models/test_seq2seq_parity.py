"""Encoder-decoders beside PyTorch's and transformers': recorded, and live with the marker."""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlm.config import ModelConfig
from jaxlm.generation import beam_search, generate_tokens
from jaxlm.hub import config_from_reference, config_to_reference, export_tensors, import_tensors
from jaxlm.hub.configs import FAMILIES
from jaxlm.models import Seq2SeqLM, make_model, shapes_by_path

FOLDER = Path(__file__).parents[1] / "fixtures"
MODELS = ("marian", "marian_apart", "marian_untied", "bart", "t5", "t5_gated")
TORCH = ("transformer_post_relu", "transformer_pre_gelu")
TORCH_LIVE = (*TORCH, "transformer_post_gelu", "transformer_pre_relu")
PART, WHOLE = 1e-5, 1e-4


@cache
def recorded(name):
    with np.load(FOLDER / f"seq2seq_{name}.npz") as arrays:
        return {
            path: np.asarray(x, np.float32) if path.startswith("weights/") else x
            for path, x in arrays.items()
        }


@cache
def live(name):
    from scripts.make_seq2seq_fixtures import record

    return record(name)


def sources(names, live_names):
    stored = [pytest.param((recorded, name), id=name) for name in names]
    return stored + [
        pytest.param((live, name), id=f"{name}-live", marks=pytest.mark.parity)
        for name in live_names
    ]


def under(arrays, prefix):
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


class Built:
    """A model of ours with the recorded weights."""

    def __init__(self, name, arrays):
        self.arrays, self.theirs = arrays, json.loads(str(arrays["config"]))
        self.generation = json.loads(str(arrays["generation_config"]))
        self.config = config_from_reference(self.theirs)
        self.family = FAMILIES[self.theirs["model_type"]]
        self.weights = under(arrays, "weights/")
        self.model = make_model(self.config)
        self.params = import_tensors(self.weights, self.config, self.family)
        lengths = arrays["lengths"]
        self.mask = np.arange(arrays["sources"].shape[1]) < lengths[:, None]
        self.rows = [row[:n].tolist() for row, n in zip(arrays["sources"], lengths, strict=True)]
        self.end = self.generation["eos_token_id"]
        self.last = self.generation.get("forced_eos_token_id")

    def whole(self, row):
        """Tokens up to the one that ends them."""
        row = list(map(int, row))
        return row[: row.index(self.end) + 1] if self.end in row else row


@pytest.fixture(scope="module", params=sources(MODELS, MODELS))
def built(request):
    make, name = request.param
    return Built(name, make(name))


def test_logits_of_ragged_sources_agree(built):
    ids = (jnp.asarray(built.arrays[side], jnp.int32) for side in ("sources", "targets"))
    apply = jax.jit(built.model.apply)
    logits = apply({"params": built.params}, *ids, source_mask=jnp.asarray(built.mask))
    assert np.abs(logits - built.arrays["logits"]).max() < WHOLE


def test_greedy_targets_are_the_references(built):
    expected = [built.whole(row) for row in built.arrays["greedy"]]
    out = generate_tokens(
        built.model,
        built.params,
        built.arrays["sources"],
        built.arrays["lengths"],
        built.arrays["greedy"].shape[1],
        temperature=0,
        stop_tokens=[built.end],
        forced_last=built.last,
    )
    assert [built.whole(row) for row in out] == expected


def test_four_beams_and_their_scores_are_the_references(built):
    new = built.arrays["greedy"].shape[1]
    found = beam_search(
        built.model,
        built.params,
        built.rows,
        new,
        num_beams=4,
        num_best=4,
        stop_tokens=[built.end],
        forced_last=built.last,
    )
    np.testing.assert_allclose(found.scores, built.arrays["scores"], atol=WHOLE)
    for ours, theirs, scores in zip(found.tokens, built.arrays["beams"], found.scores, strict=True):
        # Beams whose scores nearly tie may come in either order.
        order = range(1 if scores[0] - scores[1] > WHOLE else 0)
        for i in order:
            assert built.whole(ours[i]) == built.whole(theirs[i])
        assert sorted(map(built.whole, ours)) == sorted(map(built.whole, theirs))


def test_theirs_to_ours_and_back_is_identical(built):
    tensors = export_tensors(built.params, built.config)
    twice = ("embed_tokens.weight", "lm_head.weight", "embed_positions.weight")
    left_out = built.weights.keys() - tensors.keys()
    assert tensors.keys() <= built.weights.keys()
    assert all(name.endswith(twice) for name in left_out)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, built.weights[name])


def test_their_config_comes_back(built):
    again = config_to_reference(built.config, built.family.name)
    assert config_from_reference(again) == built.config


@pytest.fixture(scope="module", params=sources(TORCH, TORCH_LIVE))
def torch_side(request):
    """The arrays of a torch.nn.Transformer, and ours with its weights."""
    make, name = request.param
    _, place, activation = name.split("_")
    config = ModelConfig(
        architecture="encoder_decoder",
        vocab_size=3,
        d_model=24,
        num_layers=2,
        num_encoder_layers=3,
        num_heads=4,
        d_ff=36,
        max_seq_len=9,
        norm_position=place,
        final_norm=True,  # which PyTorch has with post-norm, too
        positions="none",
        activation=activation,
        norm_eps=1e-3,
    )
    arrays = make(name)
    return arrays, Seq2SeqLM(config), torch_params(under(arrays, "weights/"), config)


def torch_params(weights, config):
    """Our params from theirs, the token vectors zero; by the same table gradients."""
    leaves = {}
    for name, weight in weights.items():
        side, *middle, kind = name.split(".")
        place = f"layers_{middle[1]}" if middle[0] == "layers" else None
        part = middle[-1] if kind in ("weight", "bias") else middle[-1] + "." + kind
        if place is None:
            path = f"backbone/{side}/final_norm"
        else:
            part = ".".join([*middle[2:], kind]).rpartition(".")[0] or middle[2]
            norms = {"norm1": "attention_norm", "norm2": "cross_attention_norm"}
            norms |= {"norm3": "feed_forward_norm"}
            if side == "encoder":
                norms["norm2"] = "feed_forward_norm"
            own = {"self_attn": "attention", "multihead_attn": "cross_attention"}
            own |= {"linear1": "feed_forward/up", "linear2": "feed_forward/down"}
            head, _, rest = part.partition(".")
            path = f"backbone/{side}/{place}/{(own | norms)[head]}"
            if kind.startswith("in_proj"):
                for leaf, third in zip(("query", "key", "value"), np.split(weight, 3), strict=True):
                    end = "kernel" if third.ndim == 2 else "bias"
                    leaves[f"{path}/{leaf}/{end}"] = third.T
                continue
            path += "/output" if rest else ""
        end = "bias" if kind == "bias" else "kernel" if weight.ndim == 2 else "scale"
        leaves[f"{path}/{end}"] = weight.T
    shapes = shapes_by_path(config)
    for path, leaf in shapes.items():
        if "embed/" in path:
            leaves[path] = np.zeros(leaf.shape, np.float32)
        assert leaves[path].shape == leaf.shape, path
    return unflatten_dict({path: jnp.asarray(leaves[path]) for path in shapes}, sep="/")


def test_torch_transformer_gives_the_same_output_and_gradients(torch_side):
    arrays, model, params = torch_side

    @jax.jit
    def outcome(params, source, target):
        given = {"encoder/embeddings": source, "decoder/embeddings": target}
        out = model.apply(
            {"params": params},
            jnp.zeros(source.shape[:2], jnp.int32),
            jnp.zeros(target.shape[:2], jnp.int32),
            source_mask=jnp.asarray(arrays["source_mask"]),
            target_mask=jnp.asarray(arrays["target_mask"]),
            tap=lambda name, x: given.get(name, x),
            method="hidden",
        )
        return (out * arrays["loss_weights"]).sum(), out

    gradient = jax.grad(outcome, argnums=(0, 1, 2), has_aux=True)
    inputs = (jnp.asarray(arrays[side]) for side in ("source", "target"))
    (grads, *input_grads), out = gradient(params, *inputs)
    assert np.abs(out - arrays["output"])[arrays["target_mask"]].max() < PART
    theirs = under(arrays, "gradients/")
    for side, ours in zip(("source", "target"), input_grads, strict=True):
        assert np.abs(ours - theirs.pop(side)).max() < WHOLE
    expected = flatten_dict(torch_params(theirs, model.config), sep="/")
    for path, ours in flatten_dict(grads, sep="/").items():
        if "embed/" not in path:
            assert np.abs(ours - expected[path]).max() < WHOLE, path
