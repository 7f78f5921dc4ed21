"""What the test session checks annotations with; conftest.py applies it to all of jaxlm."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

# An int is good where a float is asked for, as type checkers have it.
beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked[F: Callable](function: F) -> F:
    """The function with its annotations checked at each call.

    Not a dataclass's constructor: JAX rebuilds a pytree around shapes, shardings and None.
    """
    return function if function.__name__ == "__init__" else beartyped(function)
