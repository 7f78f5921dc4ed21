"""Models read from and written to Hugging Face directories, by one table a family."""

from jaxlm.hub.configs import config_from_reference, config_to_reference
from jaxlm.hub.directory import (
    is_reference,
    read_directory,
    suggested_options,
    write_directory,
)
from jaxlm.hub.exchange import export_tensors, import_tensors

__all__ = [
    "config_from_reference",
    "config_to_reference",
    "export_tensors",
    "import_tensors",
    "is_reference",
    "read_directory",
    "suggested_options",
    "write_directory",
]
