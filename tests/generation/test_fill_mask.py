"""Masks filled: the model's own probabilities, the likeliest first, in the text as written."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.artifact import Loaded
from jaxlm.cli import main
from jaxlm.config import JaxlmError
from jaxlm.generation import fill
from jaxlm.loading import write_run
from jaxlm.models import make_model
from jaxlm.tokenizer import SPECIAL_TOKENS, train_tokenizer
from tests.fixtures.tiny import params_of, random_ids, tiny_config, tiny_model

TEXT = "今天[MASK]气很好， the day is  [MASK]。"


@pytest.fixture(scope="module")
def loaded():
    tokenizer = train_tokenizer(
        "wordpiece", ["今天天气很好，the day is good。" * 9], 60, SPECIAL_TOKENS
    )
    config = tiny_config(
        architecture="encoder", vocab_size=tokenizer.vocab_size, max_seq_len=40, d_model=18
    )
    params = params_of(make_model(config), random_ids(1, 1))
    return Loaded(make_model(config), params, tokenizer, config)


def test_candidates_are_the_likeliest_tokens_with_their_probabilities(loaded):
    (filled,) = fill(loaded, [TEXT], top=3)
    ids = loaded.tokenizer.backend.encode(TEXT).ids
    logits = loaded.model.apply({"params": loaded.params}, jnp.array([ids]))[0]
    for place, candidates in zip(
        [i for i, token in enumerate(ids) if token == loaded.tokenizer.mask_id],
        filled.candidates,
        strict=True,
    ):
        chances = np.asarray(jax.nn.softmax(logits[place]))
        special = loaded.tokenizer.backend.get_added_tokens_decoder()
        best = np.array([i for i in np.argsort(-chances).tolist() if i not in special][:3])
        tokens = [loaded.tokenizer.decode([i], False) for i in best.tolist()]
        assert [token for token, _ in candidates] == tokens
        np.testing.assert_allclose([chance for _, chance in candidates], chances[best], rtol=1e-4)


def test_the_text_around_the_masks_stays_as_it_was_written(loaded):
    (filled,) = fill(loaded, [TEXT])
    first, second = (candidates[0][0].removeprefix("##") for candidates in filled.candidates)
    assert filled.text == f"今天{first}气很好， the day is  {second}。"


def test_what_cannot_be_filled_is_told(loaded):
    with pytest.raises(JaxlmError, match=r"no mask to fill: write \[MASK\]"):
        fill(loaded, ["今天"])
    with pytest.raises(JaxlmError, match="has 52 tokens, but the model takes 40"):
        fill(loaded, ["天" * 49 + "[MASK]"])
    model, variables = tiny_model()
    decoder = Loaded(model, variables["params"], loaded.tokenizer, model.config)
    with pytest.raises(JaxlmError, match="a CausalLM does not fill masks"):
        fill(decoder, [TEXT])


def test_the_verb_prints_texts_and_candidates(loaded, tmp_path, capsys):
    write_run(loaded, tmp_path / "run")
    assert main(["fill", str(tmp_path / "run"), TEXT, "--top", "2", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    (filled,) = fill(loaded, [TEXT], top=2)
    assert (row["prompt"], row["text"]) == (TEXT, filled.text)
    assert main(["fill", str(tmp_path / "run"), TEXT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == filled.text
    assert len(lines) == 3
