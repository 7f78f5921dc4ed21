"""What the test session checks annotations with, and where; conftest.py applies it."""

from collections.abc import Callable
from pathlib import Path

from beartype import BeartypeConf, beartype

PACKAGE = Path(__file__).parents[1] / "jaxlm"

# An int is good where a float is asked for, as type checkers have it.
beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked[F: Callable](function: F) -> F:
    """The function with its annotations checked at each call.

    Not a dataclass's constructor: JAX rebuilds a pytree around shapes, shardings and None. Nor a
    function in a function, whose check would be compiled each time that the outer one is called.
    """
    nested = "<locals>" in function.__qualname__
    return function if nested or function.__name__ == "__init__" else beartyped(function)


def modules_with_shapes() -> list[str]:
    """The modules of jaxlm whose annotations have shapes; pyright sees all there is in others."""
    files = [file for file in PACKAGE.rglob("*.py") if "jaxtyping" in file.read_text("utf-8")]
    names = [file.relative_to(PACKAGE.parent).with_suffix("").parts for file in sorted(files)]
    return [".".join(parts) for parts in names]
