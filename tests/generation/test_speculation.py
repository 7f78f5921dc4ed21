"""Speculation changes the speed and never the tokens."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlm.config import JaxlmError
from jaxlm.generation import (
    DecodingBatch,
    DraftModel,
    GenerationOptions,
    Lookup,
    generate_tokens,
)
from jaxlm.generation.rules import Context
from jaxlm.generation.sampler import option_arrays
from jaxlm.generation.speculation import Proposal, look_up
from tests.fixtures.tiny import tiny_model
from tests.generation.reference import Reference, ragged, stacked

LIMIT = 60


@pytest.fixture(scope="module")
def target() -> Reference:
    return Reference("rotary", LIMIT)


@pytest.fixture(scope="module")
def draft(target) -> DraftModel:
    """The target with its weights slightly off: often right, and often not."""
    generator = np.random.default_rng(5)
    params = jax.tree.map(
        lambda x: x + 0.1 * jnp.asarray(generator.normal(size=x.shape), x.dtype), target.params
    )
    return DraftModel(target.model, params, width=3)


@pytest.fixture(scope="module", params=["lookup", "draft"])
def speculation(request, draft):
    return Lookup(width=5, shortest=1) if request.param == "lookup" else draft


SETTINGS: list[dict] = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 3},
    {"temperature": [0.0, 0.7, 1.3], "top_k": 5, "repetition_penalty": 1.4, "stop_tokens": [4]},
    {"temperature": 0.0, "no_repeat_ngram": 3, "max_new_tokens": [90, 7, 40]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_tokens_are_those_without_speculation(target, speculation, settings):
    # Past the context twice, over several dispatches, rows of all lengths.
    batch = stacked(ragged([7, 31, 2], vocab_size=19))
    settings = {"max_new_tokens": 90} | settings
    plain = generate_tokens(target.model, target.params, **batch, **settings)
    fast = generate_tokens(
        target.model, target.params, **batch, **settings, speculation=speculation
    )
    np.testing.assert_array_equal(fast, plain)


@flax.struct.dataclass
class Repeat:
    """A speculation of someone's own: the newest token once more. It counts its proposals."""

    width: int = flax.struct.field(pytree_node=False, default=2)

    def check(self, model):
        pass

    def start(self, rows, batch_size, num_slots):
        return jnp.zeros(batch_size, jnp.int32)

    def slide(self, memory, i, tokens):
        return memory

    def propose(self, memory, context, options, keys, active):
        newest = jnp.take_along_axis(context.tokens, context.lengths[:, None] - 1, axis=1)
        tokens = jnp.repeat(newest, self.width, axis=1)
        return Proposal(tokens, jnp.where(active, self.width, 0)), memory + active

    def learn(self, memory, lengths, proposal, gained):
        return memory


def test_ones_own_speculation_changes_no_token(target):
    batch = stacked(ragged([7, 31], vocab_size=19))
    options = {"max_new_tokens": 90, "temperature": 1.0}
    plain = generate_tokens(target.model, target.params, **batch, **options)
    own = generate_tokens(target.model, target.params, **batch, **options, speculation=Repeat())
    np.testing.assert_array_equal(own, plain)


def passes(target: Reference, speculation, prompt: list[int], **options) -> int:
    options = GenerationOptions(max_new_tokens=40, temperature=0.0, **options)
    batch = DecodingBatch(target.model, target.params, [prompt], [options], speculation=speculation)
    while not batch.done:
        batch.advance()
    return batch.num_steps


def test_a_perfect_draft_gives_its_width_and_one_more_a_pass(target):
    same = DraftModel(target.model, target.params, width=3)
    assert passes(target, same, [1, 2, 3]) == 10


def test_a_text_in_circles_is_looked_up(target):
    # Only the tokens 3 and 4 are allowed, in turns.
    only = {"banned_tokens": [t for t in range(19) if t not in (3, 4)], "no_repeat_ngram": None}
    prompt = [1, 2, 3]
    plain = passes(target, None, prompt, **only)
    assert plain == 40
    assert passes(target, Lookup(width=8), prompt, **only) < plain / 2


def looked_up(tokens: list[int], width: int) -> tuple[list[int], int]:
    padded = jnp.asarray([[*tokens, 6, 6, 6, 6]])  # what lies behind does not count
    length = jnp.asarray([len(tokens)])
    context = Context(padded, length, length, length)
    proposed, runs = jax.jit(look_up, static_argnums=(1, 2))(context, width, 8)
    return proposed[0].tolist(), int(runs[0])


def test_what_followed_the_longest_and_latest_match_is_proposed():
    assert looked_up([5, 6, 7, 8, 1, 6, 7, 9, 2, 6, 7], 4) == ([9, 2, 6, 7], 2)
    assert looked_up([5, 6, 7, 8, 1, 4, 7, 9, 2, 6, 7], 4) == ([8, 1, 4, 7], 2)
    assert looked_up([1, 2, 3, 4, 5, 6], 4)[1] == 0


def test_a_proposal_past_the_end_goes_on_with_the_period():
    assert looked_up([3, 4, 3, 4, 3], 5) == ([4, 3, 4, 3, 4], 3)


def test_lookup_asks_for_longer_matches_after_failures_and_shorter_after_successes():
    proposal = Proposal(jnp.zeros((4, 4), jnp.int32), jnp.asarray([4, 4, 0, 4]))
    memory = jnp.asarray([[8, 5], [8, 0], [8, 2], [32, 7]])
    gained = jnp.asarray([5, 1, 1, 1])
    learned = Lookup(width=4, longest=32).learn(memory, gained, proposal, gained)
    assert learned.tolist() == [[4, 0], [16, 1], [8, 3], [32, 8]]


def test_lookup_rests_where_nothing_was_gained_for_long():
    tokens = jnp.asarray([[3, 4, 3, 4, 3, 0]] * 4)
    lengths = jnp.full(4, 5)
    context = Context(tokens, lengths, lengths, lengths)
    options = option_arrays([GenerationOptions()] * 4, 4, 19)
    memory = jnp.asarray([[2, 7], [2, 9], [2, 16], [4, 0]])
    proposal, _ = Lookup(width=4).propose(
        memory, context, options, options.row_keys(), jnp.ones(4, bool)
    )
    assert proposal.counts.tolist() == [4, 0, 4, 0]


def test_sampling_with_a_draft_follows_the_models_distribution(target, draft):
    rows = 4000
    ids = np.tile([[3, 11, 5]], (rows, 1))
    out = generate_tokens(
        target.model, target.params, ids, max_new_tokens=2, speculation=draft, seed=1
    )
    first = target.logits([3, 11, 5])
    likeliest = int(np.argmax(first))
    for logits, drawn in (
        (first, out[:, 0]),
        (target.logits([3, 11, 5, likeliest]), out[out[:, 0] == likeliest, 1]),
    ):
        expected = np.asarray(jax.nn.softmax(jnp.asarray(logits)), np.float64) * len(drawn)
        counts = np.bincount(drawn, minlength=19)
        # Rare tokens together, as the test wants five or more of each.
        order = np.argsort(expected)
        num_rare = np.searchsorted(np.cumsum(expected[order]), 5) + 1
        counts, expected = counts[order], expected[order]
        counts = np.append(counts[num_rare:], counts[:num_rare].sum())
        expected = np.append(expected[num_rare:], expected[:num_rare].sum())
        assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_a_draft_of_another_vocabulary_is_refused(target):
    model, variables = tiny_model("rotary", vocab_size=23)
    with pytest.raises(JaxlmError, match="a vocabulary of 23 tokens, the model of 19"):
        generate_tokens(
            target.model,
            target.params,
            np.ones((1, 3), np.int32),
            speculation=DraftModel(model, variables["params"]),
        )


def test_a_draft_of_a_shorter_context_is_refused(target):
    short = Reference("rotary", LIMIT - 1)
    with pytest.raises(JaxlmError, match="a context of 59 tokens, shorter than the model's 60"):
        generate_tokens(
            target.model,
            target.params,
            np.ones((1, 3), np.int32),
            speculation=DraftModel(short.model, short.params),
        )


def test_a_draft_of_a_longer_context_changes_no_token(target):
    long = Reference("rotary", 2 * LIMIT)
    batch = stacked(ragged([7, 31], vocab_size=19))
    settings = {"max_new_tokens": 90, "temperature": 1.0}
    plain = generate_tokens(target.model, target.params, **batch, **settings)
    fast = generate_tokens(
        target.model,
        target.params,
        **batch,
        **settings,
        speculation=DraftModel(long.model, long.params),
    )
    np.testing.assert_array_equal(fast, plain)
