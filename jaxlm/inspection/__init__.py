"""Inspection: what happens inside a model, read, edited and explained.

Public names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.inspection.activations import activation_shapes, forward, run, run_generation
    from jaxlm.inspection.naming import InspectionError

_HOMES = {
    "InspectionError": "naming",
    "activation_shapes": "activations",
    "forward": "activations",
    "run": "activations",
    "run_generation": "activations",
}

__all__ = [
    "InspectionError",
    "activation_shapes",
    "forward",
    "run",
    "run_generation",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"jaxlm.inspection.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jaxlm.inspection' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
