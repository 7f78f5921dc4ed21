"""Where every test runs: JAX on the CPU, annotations checked, the user's files untouched."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.checking import checked

# Set before JAX is imported, and inherited by the commands that tests start. Compiled programs
# stay in the user's cache, so that the next session compiles little.
USER_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(USER_CACHE / "jaxlm" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

install_import_hook("jaxlm", f"{checked.__module__}.{checked.__name__}")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A token cache that starts empty and leaves the user's alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLM_CACHE", str(tmp_path_factory.mktemp("jaxlm_cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Programs of a file are let go before the next: each takes memory maps, which are limited."""
    yield
    import jax

    jax.clear_caches()
