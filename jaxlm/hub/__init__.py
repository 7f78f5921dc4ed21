"""The exchange of weights and configs with Hugging Face: one engine, one table a family."""

from jaxlm.hub.configs import config_from_reference
from jaxlm.hub.exchange import export_tensors, import_tensors

__all__ = ["config_from_reference", "export_tensors", "import_tensors"]
