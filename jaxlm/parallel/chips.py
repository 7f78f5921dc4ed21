"""What accelerators can do, from their vendors' data sheets, and such that are only described.

XLA compiles for a described device as for one that is here, where its plugin is installed.
"""

import math
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax

from jaxlm.config import JaxlmError

GPUS_A_HOST = 8
NETWORK = 50e9  # bytes/s that a GPU sends to other hosts, over its own 400 Gb/s card


@dataclass(frozen=True)
class Chip:
    """One device: dense bf16 FLOP/s, bytes of memory, and bytes/s of its memory and links.

    `links` is what it sends to the devices of its host (a GPU) or its slice (a TPU), over all of
    its links, in one direction.
    """

    peak_flops: float
    memory: float
    bandwidth: float
    links: float
    is_gpu: bool = True


PCIE4, PCIE5 = 32e9, 64e9  # 16 lanes, one direction

# By JAX's whole name of it.
CHIPS = {
    r"NVIDIA B200": Chip(2250e12, 180e9, 7.7e12, 900e9),
    r"NVIDIA H200": Chip(989e12, 141e9, 4.8e12, 450e9),
    r"NVIDIA GH200.*": Chip(989e12, 96e9, 4.0e12, 450e9),
    r"NVIDIA H100( 80GB HBM3)?": Chip(989e12, 80e9, 3.35e12, 450e9),
    r"NVIDIA H100 NVL": Chip(835e12, 94e9, 3.9e12, 300e9),
    r"NVIDIA H100 PCIe": Chip(756e12, 80e9, 2.0e12, PCIE5),
    r"(NVIDIA )?A100.*80GB": Chip(312e12, 80e9, 2.04e12, 300e9),
    r"(NVIDIA )?A100.*": Chip(312e12, 40e9, 1.56e12, 300e9),
    r"(NVIDIA )?A10": Chip(125e12, 24e9, 600e9, PCIE4),
    r"(NVIDIA )?A10G": Chip(70e12, 24e9, 600e9, PCIE4),
    r"NVIDIA L40S": Chip(362e12, 48e9, 864e9, PCIE4),
    r"NVIDIA L40": Chip(181e12, 48e9, 864e9, PCIE4),
    r"NVIDIA L4": Chip(121e12, 24e9, 300e9, PCIE4),
    r"(NVIDIA )?GeForce RTX 4090": Chip(165e12, 24e9, 1008e9, PCIE4),
    r"TPU v4": Chip(275e12, 32e9, 1228e9, 300e9, is_gpu=False),
    r"TPU v5( lite|e)": Chip(197e12, 16e9, 819e9, 200e9, is_gpu=False),
    r"TPU v5p?": Chip(459e12, 95e9, 2765e9, 600e9, is_gpu=False),
    r"TPU v6( lite|e)": Chip(918e12, 32e9, 1638e9, 400e9, is_gpu=False),
}

# The short names of devices to plan for, and JAX's names of them.
DEVICES = {
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
    "a100": "NVIDIA A100-SXM4-80GB",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5p",
    "v6e": "TPU v6 lite",
}


class TopologyError(JaxlmError):
    """A device that cannot be described to XLA here."""


def chip_of(device_kind: str) -> Chip | None:
    """The chip of a device by JAX's name of it; None for one that the table lacks, as a CPU."""
    return next((chip for name, chip in CHIPS.items() if re.fullmatch(name, device_kind)), None)


def device_chip(name: str) -> Chip:
    """The chip of a short name. Raises: TopologyError for one that is not in the table."""
    chip = chip_of(DEVICES.get(name, ""))
    if chip is None:
        raise TopologyError(f"there is no device {name!r}; it is one of {', '.join(DEVICES)}")
    return chip


def peak_flops(num_devices: int = 1) -> float | None:
    """Peak FLOP/s of so many of this machine's devices in bf16; None where it is unknown."""
    chip = chip_of(jax.devices()[0].device_kind)
    return None if chip is None else chip.peak_flops * num_devices


def described_devices(name: str, number: int) -> list[Any]:
    """So many devices of a short name, described to XLA.

    Raises: TopologyError where the plugin that compiles for them is missing, or XLA knows no such
    topology.
    """
    from jax.experimental import topologies

    plugin = "jax_cuda13_plugin" if name in GPU_FACTS else "libtpu"
    if find_spec(plugin) is None:
        extra = "jax[cuda13]" if name in GPU_FACTS else "libtpu"
        raise TopologyError(f"{extra} is not installed")
    options: dict[str, Any] = {"platform": "tpu", "topology_name": slice_of(name, number)}
    if name in GPU_FACTS:
        hosts = -(-number // GPUS_A_HOST)
        grid = f"{hosts}x{min(number, GPUS_A_HOST)}x1"
        options = {"platform": "cuda", "topology_name": "", "topology": grid}
        options["target_config"] = target_text(name)
    try:
        return list(topologies.get_topology_desc(**options).devices)[:number]
    except Exception as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise TopologyError(f"XLA knows no {number} devices {name}: {told}") from None


def slice_of(name: str, number: int) -> str:
    """The smallest slice of TPUs with so many chips; a host has four or more of them."""
    sides = [2, 2, 1] if name == "v5p" else [2, 2]
    while number > math.prod(sides):
        sides[sides.index(min(sides))] *= 2
    return f"{name}:{'x'.join(map(str, sides))}"


# What XLA asks of a GPU: compute capability, multiprocessors, products a clock in each, GHz, and
# bytes of shared memory of each, of a block, and of the second cache.
GPU_FACTS = {
    "h100": (9, 132, 128, 1.98, 233472, 232448, 50 << 20),
    "h200": (9, 132, 128, 1.98, 233472, 232448, 50 << 20),
    "a100": (8, 108, 64, 1.41, 167936, 166912, 40 << 20),
}


def target_text(name: str) -> str:
    """A GPU as XLA's GpuTargetConfigProto in text."""
    major, cores, units, clock, shared, block, cache = GPU_FACTS[name]
    chip = device_chip(name)
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(chip.bandwidth)}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {int(chip.memory)}
  shared_memory_per_block_optin: {block}
  cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{DEVICES[name]}"
"""
