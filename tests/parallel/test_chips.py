"""The table of accelerators, and devices that are only described."""

from types import SimpleNamespace

import jax
import pytest

from jaxlm.parallel import DEVICES, TopologyError, chip_of, described_devices, peak_flops
from jaxlm.parallel.chips import slice_of


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("TPU v5", 459e12),
        ("TPU v5 lite", 197e12),
        ("cpu", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_the_peak_is_the_devices_own(monkeypatch, kind, peak):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind=kind)] * 2)
    assert peak_flops(2) == (None if peak is None else 2 * peak)


def test_every_device_to_plan_for_is_in_the_table():
    for name, kind in DEVICES.items():
        chip = chip_of(kind)
        assert chip is not None, name
        # What moves an array within a chip is faster than what moves it between two.
        assert chip.peak_flops > chip.bandwidth > chip.links > 0
        assert chip.memory > 1e10


@pytest.mark.parametrize(
    ("name", "number", "slice"),
    [
        ("v5e", 1, "2x2"),
        ("v5e", 8, "4x2"),
        ("v6e", 32, "8x4"),
        ("v5p", 4, "2x2x1"),
        ("v5p", 9, "4x2x2"),
    ],
)
def test_the_smallest_slice_that_holds_the_chips_is_taken(name, number, slice):
    assert slice_of(name, number) == f"{name}:{slice}"


@pytest.mark.parametrize("name", ["v5e", "h100"])
def test_a_plugin_that_is_missing_is_named(monkeypatch, name):
    monkeypatch.setattr("jaxlm.parallel.chips.find_spec", lambda name: None)
    with pytest.raises(TopologyError, match="is not installed"):
        described_devices(name, 1)
