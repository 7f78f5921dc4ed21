"""Rows of data sets of the Hugging Face Hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.data.contents import DataError


def read_hub(
    source: str, config: str | None, split: str, streaming: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of `hf:NAME`, each with where it stands; classes by their names."""
    name = source.removeprefix("hf:")
    if Path(name).exists():
        raise DataError(f"hf: names a data set of the Hugging Face Hub: write {name!r} without it")
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=streaming)
        names = class_names(getattr(rows, "features", None) or {})
        for i, row in enumerate(rows, 1):
            named = {column: name_classes(row[column], texts) for column, texts in names.items()}
            yield f"{source} row {i}", {**row, **named}
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source} cannot be loaded from the Hub: {reason}") from None


def class_names(features: Any) -> dict[str, list[str]]:
    """The class names of each column that stores classes, or lists of them, as numbers."""
    inner = {column: getattr(kind, "feature", kind) for column, kind in features.items()}
    return {column: kind.names for column, kind in inner.items() if hasattr(kind, "names")}


def name_classes(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [name_classes(item, names) for item in value]
    if not isinstance(value, int):
        return value
    # -1 is a missing label, as in test splits whose labels are hidden.
    return names[value] if 0 <= value < len(names) else None
