import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxlm.config import ConfigError, FinetuneConfig, ModelConfig
from jaxlm.models import make_model
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training.state import (
    evaluation_params,
    from_items,
    init_state,
    to_items,
    train_step,
)
from jaxlm.training.trainable import memory_report, scale_by_depth

CONFIG = ModelConfig(vocab_size=11, max_seq_len=6, d_model=8, num_layers=3, num_heads=2)
IDS = jnp.arange(12).reshape(2, 6) % 11
BATCH = {"ids": IDS, "targets": (IDS + 1) % 11}


def given():
    """Weights as a source would bring them: all of the model's."""
    return flatten_dict(make_model(CONFIG).init(jax.random.key(7), IDS)["params"], sep="/")


def start(**finetune):
    return init_state(
        make_model(CONFIG),
        optax.adam(1e-2),
        causal_lm,
        jax.random.key(0),
        given={path: jnp.copy(leaf) for path, leaf in given().items()},
        finetune=FinetuneConfig(init_from="there", **finetune),
    )


def paths(tree):
    return set(flatten_dict(tree, sep="/"))


def test_given_weights_take_the_place_of_random_ones():
    for path, leaf in flatten_dict(evaluation_params(start()), sep="/").items():
        np.testing.assert_array_equal(leaf, given()[path])


@pytest.mark.parametrize(
    "finetune",
    [
        {"freeze": ("embed", "layers_0/")},
        {"train_last_layers": 1},
        {"lora_rank": 2},
        {"lora_rank": 2, "lora_targets": ("feed_forward",), "freeze": ("layers_0",)},
    ],
)
def test_only_what_is_trained_has_optimizer_state_and_moves(finetune):
    state = start(**finetune)
    before = flatten_dict(evaluation_params(state), sep="/")
    trained = paths(state.params)
    assert paths(state.opt_state[0].mu) == trained
    assert not trained & paths(state.frozen)
    for _ in range(2):  # lora_b is zero at first, so lora_a moves from the second step on
        state, _ = train_step(state, BATCH)
    for path, leaf in flatten_dict(evaluation_params(state), sep="/").items():
        assert (path in trained) == bool((leaf != before[path]).any()), path


def test_the_last_layers_are_trained_with_what_comes_after_them():
    trained = paths(start(train_last_layers=1).params)
    assert {path.split("/")[1] for path in trained} == {"layers_2", "final_norm"}


def test_adapters_are_trained_in_place_of_what_was_given():
    assert {path.rpartition("/")[2] for path in paths(start(lora_rank=2).params)} == {
        "lora_a",
        "lora_b",
    }


@pytest.mark.parametrize(
    ("finetune", "message"),
    [
        ({"freeze": ("layer_0",)}, "'layer_0' is in no path of a parameter; one is backbone"),
        ({"freeze": (".",)}, "leaves no parameter to train"),
        ({"train_last_layers": 4}, "train_last_layers is 4, but the model has 3"),
        ({"lora_rank": 2, "lora_targets": ("attn",)}, "'attn' is in the path of no kernel"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(finetune, message):
    with pytest.raises(ConfigError, match=message):
        start(**finetune)


def test_each_block_learns_slower_than_the_one_above():
    updates = {
        "backbone": {
            "embed": {"tokens": jnp.ones(2)},
            "layers_0": {"x": jnp.ones(2)},
            "layers_2": {"x": jnp.ones(2)},
            "final_norm": {"scale": jnp.ones(2)},
        },
        "head": jnp.ones(2),
    }
    scaled, _ = scale_by_depth(0.5, 3).update(updates, optax.EmptyState())
    found = {path: float(leaf[0]) for path, leaf in flatten_dict(scaled, sep="/").items()}
    assert found == {
        "backbone/embed/tokens": 0.5**4,
        "backbone/layers_0/x": 0.5**3,
        "backbone/layers_2/x": 0.5,
        "backbone/final_norm/scale": 1,
        "head": 1,
    }


def test_a_state_in_two_parts_comes_back_from_its_checkpoint():
    state, _ = train_step(start(lora_rank=2), BATCH)
    again = from_items(start(lora_rank=2), *to_items(state))
    ours, theirs = (jax.tree.leaves((s.params, s.frozen, s.opt_state)) for s in (state, again))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_report_counts_what_is_held():
    full, part = (
        memory_report(s.params, s.frozen, s.opt_state) for s in (start(), start(lora_rank=2))
    )
    size = sum(leaf.size for leaf in given().values())
    assert full["num_trained"] == size
    assert full["gradients_bytes"] == full["weights_bytes"] == 4 * size
    assert full["optimizer_bytes"] == 8 * size + 4
    trained = 3 * 2 * (8 * 2 + 2 * 8)  # layers, targets, lora_a and lora_b
    assert part["num_trained"] == trained
    assert part["gradients_bytes"] == 4 * trained
    assert part["optimizer_bytes"] == 8 * trained + 4
