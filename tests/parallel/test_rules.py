"""Which axis of the mesh divides which dim of a parameter, and of what mirrors it."""

import jax
import optax
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, PartitionSpec

from jaxlm.config import ConfigError, ParallelConfig
from jaxlm.models import param_shapes, shapes_by_path
from jaxlm.parallel import make_mesh, partition_spec, tree_shardings
from jaxlm.parallel.mesh import AXES
from tests.fixtures.tiny import tiny_config

MESH = AbstractMesh((2, 2, 2), AXES)
QUERY = "backbone/layers_0/attention/query/kernel"
KEY = "backbone/layers_0/attention/key/kernel"


def specs(mesh=MESH, structure="learned", **overrides):
    config = tiny_config(structure, **overrides)
    shapes = shapes_by_path(config)
    return {path: partition_spec(path, x.shape, config, mesh) for path, x in shapes.items()}


def test_kernels_are_divided_over_both_axes_and_norms_over_none():
    found = specs()
    assert found[QUERY] == found[KEY] == PartitionSpec("fsdp", "tensor")
    assert found["backbone/layers_0/attention/output/kernel"] == PartitionSpec("tensor", "fsdp")
    assert found["backbone/layers_0/feed_forward/up/kernel"] == PartitionSpec("fsdp", "tensor")
    assert found["backbone/layers_0/feed_forward/up/bias"] == PartitionSpec("tensor")
    assert found["backbone/final_norm/scale"] == PartitionSpec(None)


def test_what_does_not_divide_is_whole_on_every_device():
    # 2 kv heads of 6 over 4 devices, though 12 divides; 19 tokens over any number.
    found = specs(AbstractMesh((1, 2, 4), AXES))
    assert found[QUERY] == PartitionSpec("fsdp", "tensor")
    assert found[KEY] == PartitionSpec("fsdp", None)
    assert found["backbone/embed/tokens"] == PartitionSpec(None, "fsdp")
    assert specs(vocab_size=20)["backbone/embed/tokens"] == PartitionSpec("tensor", "fsdp")


def test_the_state_of_an_optimizer_is_divided_like_its_parameters():
    config = tiny_config(vocab_size=20)
    params = param_shapes(config)
    state = jax.eval_shape(optax.adam(0.1).init, params)
    placed = tree_shardings({"opt_state": state, "recent": params}, params, config, MESH)
    for tree in (placed["opt_state"][0].mu, placed["opt_state"][0].nu, placed["recent"]):
        found = {path: place.spec for path, place in flatten_dict(tree, sep="/").items()}
        assert found == specs(vocab_size=20)
    assert placed["opt_state"][0].count.spec == PartitionSpec()


def test_a_ring_of_weights_is_divided_behind_its_first_dim():
    config = tiny_config()
    params = param_shapes(config)
    ring = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), params)
    placed = flatten_dict(tree_shardings({"recent": ring}, params, config, MESH)["recent"], sep="/")
    assert placed[QUERY].spec == PartitionSpec(None, "fsdp", "tensor")


def test_one_device_makes_no_mesh():
    assert make_mesh(ParallelConfig()) is None
    assert make_mesh(ParallelConfig(data=1, fsdp=-1)) is None


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"tensor": 3}, "asks for a multiple of 3 devices, but there are 8"),
        ({"data": 3, "fsdp": 3}, "asks for 9 devices, but there are 8"),
    ],
)
def test_a_mesh_that_the_devices_cannot_make_is_told_in_one_sentence(sizes, told):
    with pytest.raises(ConfigError, match=told):
        make_mesh(ParallelConfig(**sizes), list(range(8)))


@pytest.mark.parametrize("sizes", [{"fsdp": -1}, {"data": 0}, {"data": -2}])
def test_sizes_that_mean_nothing_are_refused(sizes):
    with pytest.raises(ConfigError, match="parallel"):
        ParallelConfig(**sizes)
