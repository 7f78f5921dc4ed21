"""What a process asks of JAX and of the C library; commands call it, the library does not."""

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax


def user_cache() -> Path:
    """Where tokens and compiled programs are kept between runs: $JAXLM_CACHE or ~/.cache/jaxlm."""
    return Path(os.environ.get("JAXLM_CACHE") or "~/.cache/jaxlm").expanduser()


def keep_compiled_programs() -> None:
    """Keep compiled programs in the user's cache, so that a second command starts at once."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def keep_freed_memory() -> None:
    """Tell glibc to keep what the process frees instead of giving it back to the system.

    XLA's CPU runtime allocates its workspace anew each step; faulting those pages in again took a
    sixth of a small model's training time.
    """
    arena_max, mmap_max, trim_threshold = -8, -4, -1  # names of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, 2**31 - 1)):
            mallopt(option, value)


@contextlib.contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C or SIGTERM came; a second one interrupts at once."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(number: int, _: object) -> None:
        came.set()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
