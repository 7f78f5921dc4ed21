"""Random adapters, and a new head, on the small models of the fixtures."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxlm
from jaxlm.artifact import Loaded
from jaxlm.base_model import base_hashes
from jaxlm.hub.adapters import write_adapters
from jaxlm.models.parameters import add_lora, is_adapter, merge_lora

TARGETS = ["attention/(query|value)/", "feed_forward/down"]


def adapt(base: Loaded, folder, place, targets=TARGETS, rank=2, alpha=3.0):
    """Write random adapters, and a random classifier where there is one, for a model at `place`.

    Returns the params that they give.
    """
    params = add_lora(base.params, rank, alpha, targets, jax.random.key(0))
    random = np.random.default_rng(0)
    leaves = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        own = is_head(path) or path.endswith("lora_b")
        noise = random.normal(size=leaf.shape).astype(np.float32) / 4
        leaves[path] = np.asarray(leaf) + noise if own else np.asarray(leaf)
    own = {k: v for k, v in leaves.items() if is_adapter(k) or is_head(k)}
    theirs = {k: v for k, v in leaves.items() if k not in own}
    write_adapters(base, own, str(place), base_hashes(theirs), folder)
    return merge_lora(unflatten_dict(leaves, sep="/"))


def is_head(path: str) -> bool:
    """Whether a weight is of a head that PEFT saves whole."""
    return path.startswith(("classifier/", "pooler/")) and not is_adapter(path)


def same(left, right):
    ours, theirs = flatten_dict(left, sep="/"), flatten_dict(right, sep="/")
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)


def reference(record, folder) -> Loaded:
    """The model of a fixture, written as a Hugging Face directory and read again."""
    from jaxlm.tokenizer import AbsentTokenizer

    jaxlm.export(
        Loaded(record.model, record.params, AbsentTokenizer("none"), record.config,
               {"model_type": record.theirs["model_type"]}), folder,
    )  # fmt: skip
    return jaxlm.load(folder)
