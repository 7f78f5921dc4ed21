"""Matrices in int8: near the matrix, exact beside it, and never a copy in fp32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.models import make_model
from jaxlm.models.parameters import output_dim, path_name
from jaxlm.nn.int8 import Int8Matrix, matmul, matmul_transposed
from tests.fixtures.tiny import params_of, random_ids, tiny_config


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def whole(matrix: Int8Matrix) -> np.ndarray:
    return np.asarray(matrix.values, np.float32) * np.asarray(matrix.scales)[:, None]


def test_no_weight_is_off_by_more_than_half_a_step_of_its_row():
    matrix = random(5, 70) * [[1], [100], [1e-3], [1], [0]]
    held = Int8Matrix.of(jnp.asarray(matrix))
    assert held.values.dtype == jnp.int8
    steps = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert (np.abs(whole(held) - matrix) <= 0.5001 * steps).all()
    np.testing.assert_allclose(held[jnp.array([[2], [1]])], whole(held)[[[2], [1]]], rtol=1e-6)


def test_a_product_is_that_of_the_rounded_matrix_to_two_digits_of_the_activations():
    held = Int8Matrix.of(jnp.asarray(random(9, 300)))
    x = random(2, 3, 300, seed=1)
    x[0, 1] *= 1e3
    x[1, 2] = 0
    expected = x @ whole(held).T
    sizes = np.abs(x).max(axis=2, keepdims=True)
    error = np.abs(held.product(jnp.asarray(x)) - expected)
    assert (error <= 2e-3 * sizes).all()  # one digit alone is off by 0.1


def test_a_row_has_the_product_that_it_has_alone():
    held = Int8Matrix.of(jnp.asarray(random(40, 64)))
    x = random(8, 64, seed=1)
    together = held.product(jnp.asarray(x))
    for i in range(8):
        alone = held.product(jnp.asarray(x[i : i + 1]))[0]
        np.testing.assert_allclose(alone, together[i], atol=1e-5)


def test_a_product_makes_no_larger_copy_of_the_matrix():
    held = Int8Matrix.of(jnp.asarray(random(1024, 512)))
    for batch_size in (1, 8):
        x = jnp.asarray(random(batch_size, 512))
        compiled = jax.jit(lambda held, x: held.product(x)).lower(held, x).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < held.values.nbytes / 2


@pytest.mark.parametrize("head", ["lm", "pretraining", "sequence_classification"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_of_a_model_that_multiplies_may_be_in_int8(head, tied):
    encoder = "encoder" if head == "pretraining" else "decoder"
    config = tiny_config(
        architecture=encoder, head=head, labels=("yes", "no", "both"), tie_embeddings=tied
    )
    model, ids = make_model(config), random_ids(2, 7)
    params = params_of(model, ids)

    def held(path, leaf):
        dim = output_dim(path_name(path))
        return leaf if dim is None else Int8Matrix.of(leaf if dim == 0 else leaf.T)

    rounded = jax.tree_util.tree_map_with_path(held, params)
    apply = jax.jit(lambda params: jax.tree.leaves(model.apply({"params": params}, ids)))
    for exact, near in zip(apply(params), apply(rounded), strict=True):
        difference = np.linalg.norm(near - exact)
        assert 0 < difference < 0.03 * np.linalg.norm(exact)


@pytest.mark.parametrize("product", [matmul, matmul_transposed])
def test_gradients_of_fp32_logits_are_products_of_bfloat16(product):
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (16, 7) if product is matmul else (7, 16)
    x, matrix = jax.random.normal(keys[0], (3, 5, 16)), jax.random.normal(keys[1], shape)
    gradient = jax.random.normal(keys[2], (3, 5, 7))

    def back(x, matrix):
        logits, pull = jax.vjp(lambda x, matrix: product(x, matrix, jnp.float32), x, matrix)
        assert logits.dtype == jnp.float32
        return pull(gradient)

    exact = back(x, matrix)
    x = x.astype(jnp.bfloat16)
    found = back(x, matrix)
    assert [array.dtype for array in found] == [jnp.bfloat16, jnp.float32]
    for ours, theirs in zip(found, exact, strict=True):
        apart = np.linalg.norm(np.asarray(ours, np.float32) - theirs)
        assert 0 < apart < 5e-3 * np.linalg.norm(theirs)
    program = jax.jit(back).lower(x, matrix).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    factors = [line.split(" : (")[1].split(")")[0] for line in products]
    assert len(factors) == 2
    assert not any("xf32" in pair for pair in factors)
