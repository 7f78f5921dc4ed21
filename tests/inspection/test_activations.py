"""Captured and edited activations: every layer, however it is executed, and no bit changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.inspection import InspectionError, activation_shapes, forward, run, run_generation
from jaxlm.models.heads import TRUNKS
from jaxlm.nn.layers import UniformTap
from tests.fixtures.tiny import random_ids
from tests.inspection.models import executed, tiny_loaded

IDS = random_ids(2, 8)
STRUCTURES = ("learned", "rotary", "sinusoidal")
EXECUTIONS = ({"scan_layers": True}, {"remat": "full"}, {"scan_layers": True, "remat": "full"})


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded("rotary")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_activation_is_listed_in_order_with_its_shape(structure):
    loaded = tiny_loaded(structure)
    shapes = activation_shapes(loaded, 5)
    assert next(iter(shapes)) == "embeddings"
    assert list(shapes)[-1] == "final"
    assert shapes["layers_1/attention/weights"] == (1, 4, 5, 5)
    assert shapes["layers_0/feed_forward/hidden"] == (1, 5, 28)
    logits, found = run(loaded, IDS[:1, :5], "**")
    assert {name: x.shape for name, x in found.items()} == shapes
    assert logits.shape == (1, 5, 19)


def test_patterns_are_paths_globs_and_regexes(loaded):
    def names(pattern):
        return sorted(run(loaded, IDS, pattern)[1])

    both = ["layers_0/attention/weights", "layers_1/attention/weights"]
    assert names("layers_*/attention/weights") == names("**/weights") == both
    assert names(r"re:layers_[01]/attention/weights") == both
    assert names(both) == both
    assert names("*") == ["embeddings", "final"]
    assert names("layers_?/attention") == ["layers_0/attention", "layers_1/attention"]


@pytest.mark.parametrize("where", ["capture", "edit"])
def test_a_wrong_name_is_told_with_the_nearest(loaded, where):
    wrong = "layers_0/attention/weight"
    given = {"capture": {"capture": wrong}, "edit": {"edit": {wrong: lambda x: x}}}[where]
    with pytest.raises(InspectionError, match="nearest is 'layers_0/attention/weights'"):
        run(loaded, IDS, **given)
    with pytest.raises(InspectionError, match="no regular expression"):
        run(loaded, IDS, "re:(")


def test_an_edit_of_another_shape_is_refused(loaded):
    with pytest.raises(InspectionError, match=r"\(2, 8\), but it takes the shape \(2, 8, 16\)"):
        run(loaded, IDS, edit={"final": lambda x: x[..., 0]})


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("length", [8, 128, 512])
def test_an_identity_edit_of_every_name_changes_no_bit(length, compiled):
    loaded = tiny_loaded("rotary", max_seq_len=512, num_layers=1)
    ids, jit = random_ids(1, length), jax.jit if compiled else lambda f: f
    plain = jit(lambda p: loaded.model.apply({"params": p}, ids))(loaded.params)
    edited = jit(lambda p: forward(loaded.model, p, ids, (), {"**": lambda x: x})[0])
    np.testing.assert_array_equal(edited(loaded.params), plain)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
@pytest.mark.parametrize("length", [8, 128])
def test_scan_and_remat_hide_no_layer(length, execution):
    loaded = tiny_loaded("rotary", max_seq_len=128)
    ids = random_ids(1, length)
    logits, found = run(loaded, ids, "**")
    others, seen = run(executed(loaded, **execution), ids, "**")
    assert seen.keys() == found.keys()
    np.testing.assert_allclose(others, logits, atol=1e-5)
    for name, x in found.items():
        np.testing.assert_allclose(seen[name], x, atol=1e-5)
    plain = executed(loaded, **execution).model.apply({"params": loaded.params}, ids)
    np.testing.assert_allclose(plain, logits, atol=1e-5)


def test_without_capture_the_program_is_that_of_the_model():
    loaded = tiny_loaded(max_seq_len=128, scan_layers=True)
    ids = random_ids(1, 128)
    text = lambda f: jax.jit(f).lower(loaded.params).as_text()  # noqa: E731
    plain = text(lambda p: loaded.model.apply({"params": p}, ids))
    assert text(lambda p: forward(loaded.model, p, ids)[0]) == plain
    assert text(lambda p: forward(loaded.model, p, ids, "final")[0]) != plain


def test_an_edit_takes_effect_where_it_stands(loaded):
    _, found = run(loaded, IDS, "layers_1/residual")
    edit = {"layers_1/residual": 2 * found["layers_1/residual"]}
    _, after = run(loaded, IDS, "*", edit)
    _, norm = run(loaded, IDS, "*", {"layers_1/residual": lambda x: x * 2})
    np.testing.assert_allclose(after["final"], norm["final"], atol=1e-5)
    first = {"layers_0/attention/weights": lambda x: jnp.zeros_like(x).at[..., 0].set(1)}
    _, after = run(loaded, IDS, "layers_0/attention/*", first)
    value = after["layers_0/attention/value"][:, :, None, :1]
    mixed = after["layers_0/attention/mixed"].reshape(2, 2, 2, 8, 6)
    np.testing.assert_allclose(mixed, np.broadcast_to(value, mixed.shape), atol=1e-6)


def test_edits_are_vmapped_and_jitted(loaded):
    scales = jnp.array([0.0, 1.0, 2.0])

    @jax.jit
    @jax.vmap
    def scaled(scale):
        edit = {"layers_*/attention/mixed": lambda x: scale * x}
        return forward(loaded.model, loaded.params, IDS, "final", edit)

    logits, found = scaled(scales)
    np.testing.assert_allclose(logits[1], run(loaded, IDS)[0], atol=1e-5)
    assert found["final"].shape == (3, 2, 8, 16)
    assert np.abs(logits[0] - logits[2]).max() > 0.1


@pytest.mark.parametrize("execution", [{}, EXECUTIONS[-1]], ids=str)
@pytest.mark.parametrize(
    "name", ["embeddings", "layers_0/attention/scores", "layers_1/feed_forward/hidden"]
)
def test_gradients_through_edits_match_finite_differences(name, execution):
    loaded = executed(tiny_loaded("rotary"), **execution)
    _, found = run(loaded, IDS, name)
    direction = jax.random.normal(jax.random.key(0), found[name].shape)

    @jax.jit
    def score(size):
        edit = {name: lambda x: x + size * direction}
        logits, _ = forward(loaded.model, loaded.params, IDS, (), edit)
        return jax.nn.log_softmax(logits)[..., 3].mean()

    step = 1e-2
    numeric = (score(step) - score(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(score)(0.0), numeric, rtol=0.02, atol=1e-4)
    assert abs(numeric) > 1e-4


def test_a_uniform_tap_stays_inside_scan_and_remat():
    loaded = tiny_loaded(scan_layers=True, remat="full")
    calls = []

    def halved(name, x):
        calls.append(name)
        return x / 2 if name == "residual" else x

    tapped = lambda p, tap: loaded.model.apply({"params": p}, IDS, tap=tap)  # noqa: E731
    scanned = jax.jit(lambda p: tapped(p, UniformTap(halved)))
    assert "while" in scanned.lower(loaded.params).as_text()
    assert calls == ["embeddings", "residual", "final"]
    edit = {"layers_*/residual": lambda x: x / 2}
    expected, _ = run(loaded, IDS, edit=edit)
    np.testing.assert_allclose(scanned(loaded.params), expected, atol=1e-5)
    unscanned = executed(loaded, scan_layers=False, remat="none")
    out = unscanned.model.apply({"params": loaded.params}, IDS, tap=UniformTap(halved))
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_generation_captures_every_step_and_chooses_the_same_tokens():
    loaded = tiny_loaded("rotary", max_seq_len=24)
    steps = run_generation(loaded, IDS, "**", max_new_tokens=4, temperature=0.8, seed=3)
    tokens = np.stack([step.tokens for step in steps], axis=1)
    same = jaxlm.generate_tokens(
        loaded.model, loaded.params, IDS, max_new_tokens=4, temperature=0.8, seed=3
    )
    np.testing.assert_array_equal(tokens, same)
    whole = np.concatenate([IDS, tokens], axis=1)
    _, found = run(loaded, whole[:, :-1], "**")
    for i, step in enumerate(steps):
        assert step.ids.shape[1] == (8 if i == 0 else 1)
        rows = slice(0, 8) if i == 0 else slice(7 + i, 8 + i)
        seen = found["layers_1/attention/weights"][:, :, rows, : 8 + i]
        ours = step.activations["layers_1/attention/weights"]
        np.testing.assert_allclose(ours, seen, atol=1e-5)
        state = step.activations["layers_0/residual"]
        np.testing.assert_allclose(state, found["layers_0/residual"][:, rows], atol=1e-5)
    with pytest.raises(jaxlm.JaxlmError, match="do not fit"):
        run_generation(loaded, IDS, max_new_tokens=30)


def test_generation_is_edited_in_every_step():
    loaded = tiny_loaded("rotary", max_seq_len=24)
    final = jnp.asarray(np.random.default_rng(0).normal(size=16), jnp.float32)
    edit = {"final": lambda x: jnp.broadcast_to(final, x.shape)}
    steps = run_generation(loaded, "abc", edit=edit, max_new_tokens=3, temperature=0.0)
    assert len({int(step.tokens[0]) for step in steps}) == 1


def test_texts_and_rows_of_ids_are_taken():
    loaded = tiny_loaded()
    ids = loaded.tokenizer.encode("abc")
    for same in ("abc", ids, np.array([ids]), jnp.array(ids)):
        np.testing.assert_array_equal(run(loaded, same)[0], run(loaded, "abc")[0])
    for wrong in ("", [], [0.5], [[[1]]]):
        with pytest.raises(InspectionError):
            run(loaded, wrong)


@pytest.mark.parametrize("architecture", TRUNKS)
def test_heads_of_labels_are_seen_into(architecture):
    loaded = tiny_loaded(
        architecture=architecture, head="sequence_classification", labels=("a", "b", "c")
    )
    logits, found = run(loaded, IDS, "layers_*/attention/weights")
    assert logits.shape == (2, 3)
    assert len(found) == 2


def test_both_sides_of_an_encoder_decoder_are_seen():
    loaded = tiny_loaded(architecture="encoder_decoder", max_seq_len=24)
    source, target = random_ids(2, 5), random_ids(2, 3, seed=3)
    logits, found = run(loaded, source, "**", target_ids=target)
    assert logits.shape == (2, 3, 19)
    assert found["encoder/layers_1/attention/weights"].shape == (2, 4, 5, 5)
    assert found["decoder/layers_1/cross_attention/weights"].shape == (2, 4, 3, 5)
    assert set(activation_shapes(loaded)) == set(found)
    steps = run_generation(
        loaded, target, "decoder/**", max_new_tokens=2, source_ids=source, temperature=0.0
    )
    for name in ("attention", "cross_attention"):
        path = f"decoder/layers_0/{name}/weights"
        np.testing.assert_allclose(steps[0].activations[path], found[path], atol=1e-5)
    longer = jnp.concatenate([target, steps[0].tokens[:, None]], axis=1)
    _, found = run(loaded, source, "**/weights", target_ids=longer)
    np.testing.assert_allclose(steps[1].activations[path][:, :, 0], found[path][:, :, 3], atol=1e-5)
    with pytest.raises(jaxlm.JaxlmError, match="source_ids"):
        run_generation(loaded, target)
