"""Captured activations beside the hidden states and attentions of the reference implementation."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.artifact import Loaded
from jaxlm.hub import config_from_reference, import_tensors
from jaxlm.hub.configs import FAMILIES
from jaxlm.inspection import run, run_generation
from jaxlm.models import make_model
from jaxlm.models.activations import FINAL, WEIGHTS, layers_of, stream_of
from jaxlm.tokenizer import AbsentTokenizer
from tests.inspection.models import executed

pytestmark = pytest.mark.parity
DECODERS = ("gpt2", "llama", "qwen2")
TRANSLATING = ("marian", "bart", "t5")
EXECUTIONS = [{}, {"scan_layers": True, "remat": "full"}]
TOLERANCE = 1e-4


@cache
def pair_of(name):
    """A tiny model of the reference with random weights, and ours with the same."""
    from scripts.reference_models import reference_model

    return paired(reference_model(name))


def paired(theirs):
    config = config_from_reference(theirs.config.to_dict())
    tensors = {name: x.detach().numpy() for name, x in theirs.state_dict().items()}
    params = import_tensors(tensors, config, FAMILIES[theirs.config.model_type])
    return theirs, Loaded(make_model(config), params, AbsentTokenizer("made here"), config)


def compared(found, hidden, attentions):
    weights = layers_of(found, WEIGHTS)
    assert len(weights) == len(attentions)
    for ours, their in zip(weights, attentions, strict=True):
        np.testing.assert_allclose(ours, their.numpy(), atol=TOLERANCE)
    states = stream_of(found)
    # The reference's last state is that after the final norm, where there is one.
    for ours, their in zip([*states[:-1], found[FINAL]], hidden, strict=True):
        np.testing.assert_allclose(ours, their.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
@pytest.mark.parametrize("name", [*DECODERS, "BertForMaskedLM"])
def test_hidden_states_and_attentions_agree(name, execution):
    import torch

    theirs, loaded = pair_of(name)
    ids = np.random.default_rng(0).integers(40, size=(2, 11))
    mask = np.ones_like(ids)
    mask[1, 8:] = 0
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            output_hidden_states=True,
            output_attentions=True,
        )
    keywords = {"attention_mask": jnp.asarray(mask)}
    logits, found = run(executed(loaded, **execution), ids, "**", **keywords)
    np.testing.assert_allclose(
        np.asarray(logits)[mask == 1], out.logits.numpy()[mask == 1], atol=TOLERANCE
    )
    compared(
        {name: x[:1] for name, x in found.items()},
        [x[:1] for x in out.hidden_states],
        [x[:1] for x in out.attentions],
    )


def generated(theirs, ids):
    """Four greedy tokens of the reference, none of which ends a text, and what they came from."""
    import torch

    return theirs.generate(
        torch.tensor(ids),
        max_new_tokens=4,
        do_sample=False,
        num_beams=1,
        output_hidden_states=True,
        output_attentions=True,
        return_dict_in_generate=True,
        eos_token_id=None,
        forced_eos_token_id=None,
        pad_token_id=0,
    )


@pytest.mark.parametrize("name", DECODERS)
def test_generation_with_the_cache_agrees(name):
    theirs, loaded = pair_of(name)
    ids = np.random.default_rng(1).integers(40, size=(2, 5))
    out = generated(theirs, ids)
    steps = run_generation(loaded, ids, "**", max_new_tokens=4, temperature=0.0)
    for i, step in enumerate(steps):
        np.testing.assert_array_equal(step.tokens, out.sequences[:, 5 + i].numpy())
        compared(step.activations, out.hidden_states[i], out.attentions[i])


def compared_crossing(found, attentions):
    for i, their in enumerate(attentions):
        ours = found[f"layers_{i}/cross_attention/weights"]
        np.testing.assert_allclose(ours, their.numpy(), atol=TOLERANCE)


def of_part(found, part):
    return {k.removeprefix(f"{part}/"): v for k, v in found.items() if k.startswith(f"{part}/")}


@cache
def translating_pair(name):
    """A tiny encoder-decoder of the reference with random weights, and ours with the same."""
    from scripts.make_seq2seq_fixtures import seq2seq_model

    theirs = seq2seq_model(name)
    for path, weight in theirs.named_parameters():
        if weight.ndim > 1 and "embed_positions" not in path:
            weight.data *= 0.4  # with states of 20 the two differ by rounding
    return paired(theirs)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
@pytest.mark.parametrize("name", TRANSLATING)
def test_both_sides_of_an_encoder_decoder_agree(name, execution):
    import torch

    theirs, loaded = translating_pair(name)
    random = np.random.default_rng(0)
    source, target = random.integers(3, 30, size=(1, 9)), random.integers(3, 30, size=(1, 6))
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor(source),
            decoder_input_ids=torch.tensor(target),
            output_hidden_states=True,
            output_attentions=True,
        )
    logits, found = run(executed(loaded, **execution), source, "**", target_ids=jnp.array(target))
    np.testing.assert_allclose(logits, out.logits.numpy(), atol=TOLERANCE)
    compared(of_part(found, "encoder"), out.encoder_hidden_states, out.encoder_attentions)
    compared(of_part(found, "decoder"), out.decoder_hidden_states, out.decoder_attentions)
    compared_crossing(of_part(found, "decoder"), out.cross_attentions)


@pytest.mark.parametrize("name", TRANSLATING)
def test_generation_of_an_encoder_decoder_with_the_cache_agrees(name):
    theirs, loaded = translating_pair(name)
    source = np.random.default_rng(0).integers(3, 30, size=(2, 9))
    out = generated(theirs, source)
    never = [token for (token,) in theirs.generation_config.bad_words_ids or ()]
    steps = run_generation(
        loaded,
        out.sequences[:, :1].numpy(),
        "**",
        max_new_tokens=4,
        source_ids=source,
        temperature=0.0,
        banned_tokens=never,
    )
    for i, step in enumerate(steps):
        np.testing.assert_array_equal(step.tokens, out.sequences[:, 1 + i].numpy())
        found = of_part(step.activations, "decoder")
        compared(found, out.decoder_hidden_states[i], out.decoder_attentions[i])
        compared_crossing(found, out.cross_attentions[i])
