"""What a causal model promises, whatever its structure: causality, padding, packing, decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.nn.block import init_cache
from tests.fixtures.tiny import SIZES, STRUCTURES, random_ids, tiny_model

CLOSE = 2e-5
T, CUT = 9, 3
IDS = random_ids(1, T)


class Built:
    """A model of one structure, and the logits of its tokens in several layouts of the batch."""

    def __init__(self, structure: str):
        self.model, self.variables = tiny_model(structure, num_layers=1)
        apply = jax.jit(self.model.apply)
        self.whole = np.asarray(apply(self.variables, IDS))[0]
        self.later = np.asarray(apply(self.variables, IDS[:, CUT:]))[0]  # without the first CUT
        order = np.arange(T)
        rows = {
            "right": {"attention_mask": order < T - CUT},
            "left": {"attention_mask": order >= CUT, "positions": np.maximum(order - CUT, 0)},
            "packed": {"segment_ids": order >= CUT, "positions": order - CUT * (order >= CUT)},
        }
        neutral = {"attention_mask": order >= 0, "positions": order, "segment_ids": order >= T}
        keywords = {
            name: jnp.asarray(np.stack([row.get(name, value) for row in rows.values()]), jnp.int32)
            for name, value in neutral.items()
        }
        ids = jnp.concatenate([jnp.roll(IDS, -CUT), IDS, IDS])
        logits = np.asarray(apply(self.variables, ids, **keywords))
        self.laid_out = dict(zip(rows, logits, strict=True))


@pytest.fixture(scope="module", params=STRUCTURES)
def built(request) -> Built:
    return Built(request.param)


def assert_close(x, y, tolerance=CLOSE):
    assert np.shape(x) == np.shape(y)
    assert np.abs(np.asarray(x) - np.asarray(y)).max() < tolerance


def test_no_logit_depends_on_a_later_token_and_each_on_every_earlier(built):
    probe = jnp.asarray(np.random.default_rng(0).normal(size=SIZES["vocab_size"]), jnp.float32)

    def scores(embeddings):
        tap = lambda name, x: embeddings if name == "embeddings" else x  # noqa: E731
        return built.model.apply(built.variables, IDS, tap=tap)[0] @ probe

    embeddings = np.random.default_rng(1).normal(size=(1, T, SIZES["d_model"]))
    jacobian = jax.jit(jax.jacrev(scores))(jnp.asarray(embeddings, jnp.float32))[:, 0]
    depends = np.asarray(jacobian != 0).any(-1)  # exactly zero, not nearly
    np.testing.assert_array_equal(depends, np.tril(np.ones((T, T), bool)))


def test_right_padding_changes_nothing(built):
    assert_close(built.laid_out["right"][:-CUT], built.later)


def test_left_padding_with_positions_changes_nothing(built):
    assert_close(built.laid_out["left"][CUT:], built.later)


def test_packed_documents_equal_each_alone(built):
    assert_close(built.laid_out["packed"][:CUT], built.whole[:CUT])
    assert_close(built.laid_out["packed"][CUT:], built.later)
    assert np.abs(built.whole[CUT:] - built.later).max() > 0.1  # the first document would matter


def test_cached_decoding_in_ragged_chunks_equals_the_full_forward(built):
    model = built.model
    # What each call appends: so many tokens a row, of which so many count.
    chunks = [(5, (5, 2)), (3, (3, 2)), (1, (1, 1))]
    starts = np.cumsum([(0, 0), *(counts for _, counts in chunks)], axis=0)

    @jax.jit
    def decode(variables):
        cache, found = init_cache(model.config, 2, SIZES["max_seq_len"]), []
        for (width, counts), start in zip(chunks, starts, strict=False):
            rows = jnp.stack([IDS[0, s : s + width] for s in start])
            hidden, cache = model.apply(variables, rows, cache, jnp.array(counts), method="extend")
            found.append(model.apply(variables, hidden, method="head"))
        return found, cache.lengths

    found, lengths = decode(built.variables)
    for logits, (_, counts), start in zip(found, chunks, starts, strict=False):
        for row, (count, s) in enumerate(zip(counts, start, strict=True)):
            assert_close(logits[row, :count], built.whole[s : s + count])
    np.testing.assert_array_equal(lengths, starts[-1])


def test_long_packed_documents_have_the_logits_and_gradients_of_each_alone():
    long, cut = 128, 50  # the packed row is long enough that attention computes it in blocks
    model, variables = tiny_model("rotary", num_layers=1, max_seq_len=long)
    ids, order = random_ids(1, long), jnp.arange(long)[None]
    packed = {"segment_ids": (order >= cut) * 1, "positions": order - cut * (order >= cut)}
    probe = jnp.asarray(np.random.default_rng(0).normal(size=(long, SIZES["vocab_size"])))

    def together(variables):
        logits = model.apply(variables, ids, **packed)[0]
        return (logits * probe).sum() / long, logits

    def apart(variables):
        parts = [model.apply(variables, part)[0] for part in (ids[:, :cut], ids[:, cut:])]
        logits = jnp.concatenate(parts)
        return (logits * probe).sum() / long, logits

    ours, theirs = (
        jax.jit(jax.grad(score, has_aux=True))(variables)[::-1] for score in (together, apart)
    )
    assert_close(ours[0], theirs[0])
    for gradient, expected in zip(*map(jax.tree.leaves, (ours[1], theirs[1])), strict=True):
        assert_close(gradient, expected, 1e-5 * np.abs(expected).max() + 1e-7)


def value_and_gradients(**overrides):
    model, variables = tiny_model("rotary", **overrides)
    ids = random_ids(2, T)
    inputs = {
        "segment_ids": jnp.asarray(np.arange(T) // np.array([[4], [5]])),
        "attention_mask": jnp.asarray(np.arange(T) != np.array([[2], [3]])),
    }
    loss = lambda v: (model.apply(v, ids, **inputs) ** 2).mean()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss))(variables)


@pytest.fixture(scope="module")
def looped():
    return value_and_gradients()


@pytest.mark.parametrize(
    "changed",
    [
        {"scan_layers": True},
        {"remat": "full"},
        {"remat": "dots"},
        {"scan_layers": True, "remat": "dots"},
        {"scan_layers": True, "remat": "full"},
    ],
    ids=["scan", "full", "dots", "scan-dots", "scan-full"],
)
def test_scanning_and_rematerialising_change_nothing(looped, changed):
    value, gradients = value_and_gradients(**changed)
    assert_close(value, looped[0], 1e-5 * looped[0])
    assert jax.tree.structure(gradients) == jax.tree.structure(looped[1])
    for ours, theirs in zip(*map(jax.tree.leaves, (gradients, looped[1])), strict=True):
        assert_close(ours, theirs, 1e-5 * np.abs(theirs).max() + 1e-7)


def test_params_do_not_depend_on_scanning_or_rematerialising():
    trees = [
        jax.eval_shape(model.init, jax.random.key(0), IDS)
        for scan in (False, True)
        for remat in ("none", "full")
        for model in [tiny_model(scan_layers=scan, remat=remat)[0]]
    ]
    assert all(tree == trees[0] for tree in trees)


def test_bfloat16_is_close_to_float32():
    model, variables = tiny_model("learned")
    half = tiny_model("learned", compute_dtype="bfloat16")[0]
    exact = np.asarray(jax.jit(model.apply)(variables, IDS))
    rounded = jax.jit(half.apply)(variables, IDS)
    assert rounded.dtype == jnp.float32
    assert 0 < np.linalg.norm(rounded - exact) < 0.03 * np.linalg.norm(exact)
