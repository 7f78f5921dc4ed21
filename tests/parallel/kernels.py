"""The kernel that XLA cannot divide by itself, on a mesh of eight virtual devices: a program."""

import json
from typing import Any

import jax
import numpy as np

from jaxlm.config import ParallelConfig
from jaxlm.ops.attention import Segments, plain_attention
from jaxlm.ops.attention_kernels import splash_attention
from jaxlm.parallel import divided_activations, make_mesh, place_rows

LENGTH, ENDS = 128, np.array([[40], [64], [100], [128]])


def inputs(rows: int, kv_heads: int) -> dict[str, Any]:
    """Heads of packed rows."""
    random = np.random.default_rng(0)
    shapes = {"query": (rows, kv_heads, 2, LENGTH, 8), "key": (rows, kv_heads, LENGTH, 8)}
    shapes["value"] = shapes["key"]
    heads = {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    return heads | {"segments": (np.arange(LENGTH) // ENDS[:rows]).astype(np.int32)}


def main() -> None:
    mesh = make_mesh(ParallelConfig(data=2, fsdp=2, tensor=2))

    def ours(batch: Any) -> Any:
        with divided_activations(mesh):
            heads, ids = (batch[n] for n in ("query", "key", "value")), batch["segments"]
            return splash_attention(*heads, (ids, ids), causal=True, interpret=True)

    def theirs(batch: Any) -> Any:
        heads, ids = (batch[n] for n in ("query", "key", "value")), batch["segments"]
        return plain_attention(*heads, Segments(ids, ids), causal=True)

    # Two devices are along tensor, four along data and fsdp: three rows do not divide over them.
    for number, kv_heads in ((4, 2), (4, 1), (3, 2)):
        batch = inputs(number, kv_heads)
        out = jax.jit(ours)(place_rows(batch, mesh))
        apart = np.abs(np.asarray(out) - np.asarray(jax.jit(theirs)(batch))).max()
        rows = out.sharding.shard_shape(out.shape)[0]
        print(json.dumps({"apart": float(apart), "rows": rows}))


if __name__ == "__main__":
    main()
