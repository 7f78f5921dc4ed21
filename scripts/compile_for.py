"""Compile the training step of a recipe for chips that this machine lacks, and say what it holds.

    pip install libtpu && python scripts/compile_for.py --config gpt2_124m --device v5e --devices 4
    pip install "jax[cuda13]" && python scripts/compile_for.py --config gpt2_124m --device h100

XLA compiles ahead of time for a device that is only described: `v5e` by libtpu, `h100` by the CUDA
plugin of JAX and a description of the GPU (`--target FILE`, a GpuTargetConfigProto as text). It
prints the memory that the step takes on each device, the bytes that it moves (TPUs only), the
collectives it has and whether the attention kernel is in it. More `--section.field value` words
change the recipe; `--packed` feeds documents that do not see one another.
"""

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

# Read by JAX and libtpu when they start: this machine itself computes on its CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxlm.config import Config, load_config
from jaxlm.models import make_model
from jaxlm.parallel import divided_shapes, make_mesh, row_shapes
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training.optimizers import make_optimizer, make_schedule
from jaxlm.training.state import init_state, train_step

COLLECTIVES = r"\b(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
KERNELS = r'custom_call_target="((?:__cudnn|tpu_custom_call)[^"]*)"'


def devices_of(kind: str, number: int, target: Path | None) -> list[Any]:
    """Descriptions of so many devices of a kind."""
    if kind == "h100":
        if target is None:
            sys.exit("h100 needs --target: a GpuTargetConfigProto of it, as text")
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=target.read_text(),
            topology=f"1x{number}x1",
        )
        return list(topology.devices)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:2x2")
    return list(topology.devices)[:number]


def step_shapes(
    config: Config, packed: bool, mesh: Mesh | None
) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """State and batch of a training step, as shapes alone."""
    train, optim = config.train, config.optim
    schedule = make_schedule(optim, train.steps, optim.learning_rate)
    optimizer, model = make_optimizer(optim, train.steps), make_model(config.model)

    def init(key: jax.Array) -> Any:
        return init_state(
            model,
            optimizer,
            causal_lm,
            key,
            accumulate_steps=train.accumulate_steps,
            schedule=schedule,
            mesh=mesh,
        )

    shape = (train.batch_size, config.data.seq_len)
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ("ids", "targets")}
    if packed:
        batch |= {n: jax.ShapeDtypeStruct(shape, jnp.int32) for n in ("segment_ids", "positions")}
        batch["weights"] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(init, jax.random.key(0)), batch


def compile_step(config: Config, devices: list[Any], packed: bool) -> Any:
    """The compiled step on the mesh that the section parallel makes of the devices."""
    mesh = make_mesh(config.parallel, devices)
    state, batch = step_shapes(config, packed, mesh)
    if mesh is None:
        place = SingleDeviceSharding(devices[0])
        state, batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), (state, batch)
        )
        return jax.jit(train_step, donate_argnums=0).lower(state, batch).compile()
    state = divided_shapes(state, state.params, config.model, mesh)
    places = jax.tree.map(lambda x: x.sharding, state), NamedSharding(mesh, PartitionSpec())
    step = jax.jit(train_step, donate_argnums=0, out_shardings=places)
    return step.lower(state, row_shapes(batch, mesh)).compile()


def describe(compiled: Any) -> dict[str, Any]:
    """What a compiled program holds and moves, a device."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    cost = compiled.cost_analysis() or {}
    return {
        "arguments_gb": memory.argument_size_in_bytes / 1e9,
        "temporaries_gb": memory.temp_size_in_bytes / 1e9,
        "moved_gb": cost["bytes accessed"] / 1e9 if "bytes accessed" in cost else None,
        "teraflops": cost["flops"] / 1e12 if "flops" in cost else None,
        "collectives": dict(Counter(re.findall(COLLECTIVES, text))),
        "kernels": dict(Counter(re.findall(KERNELS, text))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="gpt2_124m")
    parser.add_argument("--device", default="v5e", choices=("v5e", "v5p", "v6e", "h100", "cpu"))
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--target", type=Path, help="what h100 is, as a text of XLA's proto")
    parser.add_argument("--packed", action="store_true", help="batches with segment ids")
    parser.add_argument("--text", type=Path, help="write the compiled program to this file")
    arguments, words = parser.parse_known_args()
    number = arguments.devices
    if arguments.device == "cpu":
        devices = jax.devices()[:number]
    else:
        devices = devices_of(arguments.device, number, arguments.target)
    config = load_config(arguments.config, ["--model.compute_dtype", "bfloat16", *words])
    if config.model.vocab_size is None:
        config = config.replace({"model": {"vocab_size": 50257}})
    began = time.perf_counter()
    compiled = compile_step(config.resolved(), devices, arguments.packed)
    seconds = round(time.perf_counter() - began, 1)
    found = {"device": arguments.device, "devices": number, "seconds": seconds}
    print(json.dumps(found | describe(compiled), indent=1))
    if arguments.text is not None:
        arguments.text.write_text(compiled.as_text())


if __name__ == "__main__":
    main()
