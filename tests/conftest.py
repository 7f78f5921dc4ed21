"""Where every test runs: JAX on the CPU, shapes in annotations checked, the user's files untouched.

A run of folders takes a process for each core and gives each whole files, so that fixtures of a
file are made once. Files and single tests run in this process, where they start at once and
`--pdb` and `-s` work.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.checking import checked, modules_with_shapes

# Set before JAX is imported, and inherited by the commands that tests start. Compiled programs
# stay in the user's cache, so that the next session compiles little.
USER_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(USER_CACHE / "jaxlm" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

MOST_WORKERS = 4  # each takes up to 2 GB
LONGEST = ("training", "generation", "cli")  # folders by the time that their files take

# What JAX traces is many small objects that stay: looking through them as often as Python does by
# default took a tenth of the time of the tests of models and generation.
gc.set_threshold(100_000, 20, 20)

install_import_hook(modules_with_shapes(), f"{checked.__module__}.{checked.__name__}")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """How many processes `-n auto` takes; 0 runs the tests in this one."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    folders = any(Path(arg.split("::")[0]).is_dir() for arg in config.args)
    return min(cores or 1, MOST_WORKERS) if folders and cores != 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one when the others are done."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (*LONGEST, item.path.parent.name).index(item.path.parent.name))


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
