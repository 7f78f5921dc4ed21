"""Texts go in and their continuations come out, whatever the tokenizer."""

from dataclasses import replace

import numpy as np
import pytest

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.generation import (
    beam_search,
    best_texts,
    explain,
    generate,
    generate_tokens,
    stream,
    text_batch,
)
from jaxlm.generation.detokenizer import Detokenizer
from jaxlm.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer
from tests.fixtures.tiny import tiny_model

TEXT = "今天天气真好，写代码。the cats walk, the dogs walked"
PROMPTS = ["今天", "the cat", "代码写", "w", "天"]
WORDS = ["the cat walks and talks, the dog walked and talked. cats and dogs"] * 9


def make(specials: list[str]) -> Loaded:
    tokenizer = train_tokenizer("char", [TEXT], specials=specials)
    model, variables = tiny_model("learned", vocab_size=tokenizer.vocab_size, max_seq_len=32)
    return Loaded(model, variables["params"], tokenizer, model.config)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return make([END_OF_TEXT])


@pytest.fixture(scope="module")
def without_eos() -> Loaded:
    return make([])


def continuation(tokenizer: Tokenizer, prompt: list[int], new: list[int]) -> str:
    text = Detokenizer(tokenizer, prompt)
    return text.push(new) + text.finish()


def test_texts_are_the_tokens_up_to_eos_decoded(loaded):
    settings = {"max_new_tokens": 48, "temperature": 1.5, "top_k": 9, "seed": 4}
    texts = generate(loaded, PROMPTS, **settings)
    rows = [loaded.tokenizer.encode(prompt) for prompt in PROMPTS]
    ids = np.array([row + [0] * (9 - len(row)) for row in rows], np.int32)
    lengths = np.array([len(row) for row in rows], np.int32)
    out = generate_tokens(loaded.model, loaded.params, ids, lengths, **settings).tolist()
    eos = loaded.tokenizer.eos_id
    ends = [row.index(eos) if eos in row else len(row) for row in out]
    assert min(ends) < 48, "a fixture in which no text ends: choose another seed"
    expected = [loaded.tokenizer.decode(row[:end]) for row, end in zip(out, ends, strict=True)]
    assert texts == expected
    assert generate(loaded, PROMPTS, **settings) == texts


def test_an_empty_prompt_starts_from_the_token_that_opens_a_text(loaded):
    texts = generate(loaded, [""], max_new_tokens=5, temperature=0.0)
    ids = np.array([[loaded.tokenizer.eos_id]], np.int32)
    out = generate_tokens(loaded.model, loaded.params, ids, max_new_tokens=5, temperature=0.0)
    assert texts == [loaded.tokenizer.decode(out[0])]


def test_an_empty_prompt_without_such_a_token_is_an_error(without_eos):
    with pytest.raises(JaxlmError, match="the prompt is empty"):
        generate(without_eos, ["天", ""])


def test_an_unknown_character_is_an_error_that_names_it(without_eos):
    with pytest.raises(JaxlmError, match="'é'"):
        generate(without_eos, ["天é"])


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_told(loaded):
    model, variables = tiny_model("learned", vocab_size=8, max_seq_len=32)
    small = Loaded(model, variables["params"], loaded.tokenizer, model.config)
    with pytest.raises(JaxlmError, match=r"prompt 0 holds token \d+, but the model's are 0 to 7"):
        generate(small, ["the walk"])


def test_no_prompts_give_no_texts(loaded):
    assert generate(loaded, []) == []


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_prompt_and_continuation_join_to_the_whole_text(kind):
    tokenizer: Tokenizer = train_tokenizer(kind, WORDS, vocab_size=400)
    ids = tokenizer.encode("the dog walked and talks")
    whole = tokenizer.decode(ids)
    for cut in range(1, len(ids)):
        text = continuation(tokenizer, ids[:cut], ids[cut:])
        assert tokenizer.decode(ids[:cut]) + text == whole


def test_a_cut_inside_a_character_loses_no_later_text():
    tokenizer = train_tokenizer("bpe", WORDS, vocab_size=256)  # one token a byte
    ids = tokenizer.encode("天 a")
    assert len(ids) == 5
    assert continuation(tokenizer, ids[:1], ids[1:]).endswith(" a")


def test_one_prompt_gives_one_text_and_any_iterable_gives_a_list(loaded):
    options = {"max_new_tokens": 8, "temperature": 0}
    texts = generate(loaded, PROMPTS[:2], **options)
    assert generate(loaded, PROMPTS[0], **options) == texts[0]
    assert generate(loaded, (prompt for prompt in PROMPTS[:2]), **options) == texts


def test_banning_every_token_is_told(loaded):
    with pytest.raises(JaxlmError, match="leave no token that could come next"):
        generate(loaded, ["今天"], banned_tokens=list(range(loaded.config.vocab_size)))


def padded_model(tokenizer: Tokenizer, more: int) -> Loaded:
    """A model of more ids than its tokenizer has tokens, which likes the last of them best."""
    size = tokenizer.vocab_size + more
    model, variables = tiny_model("learned", vocab_size=size, max_seq_len=32, tie_embeddings=False)
    head = np.array(variables["params"]["head"])
    head[:, -1] = head[:, 0] * 50
    return Loaded(model, {**variables["params"], "head": head}, tokenizer, model.config)


def test_ids_that_are_no_tokens_are_never_drawn(loaded):
    padded = padded_model(loaded.tokenizer, 5)
    texts = generate(padded, PROMPTS, max_new_tokens=20, temperature=2.0)
    assert all(len(text) > 0 for text in texts)
    for batch in text_batch.TextBatch.of_prompts(padded, PROMPTS, max_new_tokens=20, seed=1):
        batch.complete()
        for row in batch.batch.rows:
            assert max(row.generated) < loaded.tokenizer.vocab_size
    for found in best_texts(padded, PROMPTS[:2], max_new_tokens=5):
        assert len(found[0][0]) == 5


def test_a_text_ends_at_every_token_that_the_models_files_name(loaded):
    plain = generate(loaded, ["今天"], max_new_tokens=20, temperature=0)[0]
    end = loaded.tokenizer.encode(plain[3])[0]
    named = replace(loaded, origin={"eos_token_ids": [end]})
    text = generate(named, ["今天"], max_new_tokens=20, temperature=0)[0]
    assert text == plain[: plain.index(plain[3])]
    assert "".join(stream(named, "今天", max_new_tokens=20, temperature=0)) == text


def test_beams_end_at_every_token_that_the_models_files_name(loaded):
    (free,) = best_texts(loaded, ["今天"], max_new_tokens=8, num_beams=3, num_best=3)
    end, eos = loaded.tokenizer.encode(free[0][0][3])[0], loaded.tokenizer.eos_id
    named = replace(loaded, origin={"eos_token_ids": [end]})
    found = best_texts(named, ["今天"], max_new_tokens=8, num_beams=3, num_best=3)[0]
    ids = [loaded.tokenizer.encode("今天")]
    ends = {"stop_tokens": [end, eos]}
    expected = beam_search(loaded.model, loaded.params, ids, 8, num_beams=3, num_best=3, **ends)
    rows = [row[:n] for row, n in zip(expected.tokens[0].tolist(), expected.counts[0], strict=True)]
    assert [row[-1] == end for row in rows].count(True) > 0, "a fixture in which no beam ends"
    left = [[token for token in row if token not in (end, eos)] for row in rows]
    assert [text for text, _ in found] == [loaded.tokenizer.decode(row) for row in left]
    assert [score for _, score in found] == expected.scores[0].tolist()


def test_a_bare_text_has_one_answer_and_a_list_has_a_list(loaded):
    for ask in (best_texts, explain):
        alone = ask(loaded, "今天", max_new_tokens=4)
        assert [alone] == ask(loaded, ["今天"], max_new_tokens=4)
        assert len(alone) > 0
