import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.models import make_model
from jaxlm.models.parameters import add_lora, is_adapter, merge_lora

CONFIG = ModelConfig(
    vocab_size=17, max_seq_len=8, d_model=12, num_layers=2, num_heads=3, d_ff=20, head_dim=5
)
IDS = jnp.arange(16).reshape(2, 8)


@pytest.fixture(scope="module")
def params():
    return make_model(CONFIG).init(jax.random.key(0), IDS)["params"]


def logits(params):
    return make_model(CONFIG).apply({"params": params}, IDS)


def trained(params):
    """Adapters as they are after some training: no part of them is zero."""
    adapted = add_lora(
        params, 3, 6.0, ["attention/(query|value)/", "feed_forward"], jax.random.key(1)
    )
    leaves, tree = jax.tree.flatten(adapted)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def test_new_adapters_change_nothing(params):
    adapted = add_lora(params, 3, 6.0, ["attention"], jax.random.key(1))
    assert sum(map(is_adapter, flatten_dict(adapted, sep="/"))) == 2 * 4 * 3
    np.testing.assert_allclose(logits(adapted), logits(params), atol=1e-6)


def test_merged_adapters_give_the_same_logits(params):
    adapted = trained(params)
    merged = merge_lora(adapted)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    assert np.abs(logits(adapted) - logits(params)).max() > 1e-2
    np.testing.assert_allclose(logits(merged), logits(adapted), atol=1e-5)


def test_params_without_adapters_merge_to_themselves(params):
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, merge_lora(params), dict(params)))


def test_a_target_that_finds_no_kernel_is_refused(params):
    with pytest.raises(ConfigError, match="'attn' is in the path of no kernel; one is backbone/"):
        add_lora(params, 3, 6.0, ["attention", "attn"], jax.random.key(1))
