"""What a process asks of JAX, of the C library and of the system.

Commands call these functions; the library changes neither the environment nor signal handlers.
JAX is imported where it is needed, so that a command can be interrupted while it is.
"""

import ctypes
import glob
import os
import platform
import re
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxlm.config import JaxlmError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# On an H200 trying out Triton's matrix products took more than half of the time of compiling, and
# the step that came of it was no faster than with those of cuBLAS.
NO_TRITON = "--xla_gpu_enable_triton_gemm=false"
NVIDIA = Path("/dev/nvidiactl")  # is there where a driver of NVIDIA's is
# JAX's warning of a compiled program that it could not keep or read again, with the program's name.
UNREADABLE = r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'"
INTERRUPTED = 130  # the exit status that shells give a command ended by Ctrl-C


def user_cache() -> Path:
    """Where tokens and compiled programs are kept between runs: $JAXLM_CACHE or ~/.cache/jaxlm."""
    return Path(os.environ.get("JAXLM_CACHE") or "~/.cache/jaxlm").expanduser()


def set_up(deterministic: bool = False) -> None:
    """Prepare the process for JAX; a command calls it before its first array.

    Memory is kept, compiled programs are cached, and with `deterministic` GPU programs give the
    same bits in every run.

    Raises: JaxlmError where `deterministic` comes too late.
    """
    keep_freed_memory()
    keep_compiled_programs()
    from jax._src.xla_bridge import backends_are_initialized

    if not backends_are_initialized():
        own = NO_TRITON.partition("=")[0] in os.environ.get("XLA_FLAGS", "")
        if NVIDIA.exists() and not own:
            ask_xla(NO_TRITON)
        if deterministic:
            ask_xla(DETERMINISTIC)
    elif deterministic:
        refuse_late_determinism()


def ask_xla(flag: str) -> None:
    """Add a flag to those of XLA."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if flag not in flags:
        os.environ["XLA_FLAGS"] = " ".join([*flags, flag])


def expect_described_devices(tpu: bool) -> None:
    """Let this process compile for devices that are only described; before JAX starts.

    It computes on its CPU then, but for described GPUs where GPUs are. libtpu would look for TPUs
    in the network of a cloud.
    """
    if tpu:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    if tpu or not NVIDIA.exists():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def refuse_late_determinism() -> None:
    """Check that `train.deterministic` holds in this process; on CPU and TPU it always does.

    Raises: JaxlmError on a GPU whose XLA flags lack it, as JAX reads them once.
    """
    import jax

    lacks = DETERMINISTIC not in os.environ.get("XLA_FLAGS", "").split()
    if lacks and jax.default_backend() == "gpu":
        raise JaxlmError(
            "train.deterministic comes too late, as JAX has started already; set the environment "
            f"variable XLA_FLAGS={DETERMINISTIC} before it does"
        )


def keep_compiled_programs() -> None:
    """Keep compiled programs in the user's cache, so that a second command starts at once."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        folder = user_cache() / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        warnings.showwarning = replacing_damaged(folder, warnings.showwarning)


def replacing_damaged(folder: Path, show: Callable[..., None]) -> Callable[..., None]:
    """`warnings.showwarning` that takes compiled programs that JAX cannot read out of its cache.

    A process that is killed, or whose disk is full, while JAX writes one leaves a part of it. JAX
    would warn of it at each start and never write it anew.
    """

    def shown(message: Any, *details: Any, **more: Any) -> None:
        found = re.match(UNREADABLE, str(message))
        if found is None:
            show(message, *details, **more)
            return
        with suppress(OSError):
            for entry in folder.glob(f"{glob.escape(found[1])}-*-cache"):
                entry.unlink(missing_ok=True)

    return shown


def keep_freed_memory() -> None:
    """Tell glibc to keep what the process frees instead of returning it to the system.

    XLA's CPU runtime allocates its workspace anew each step; faulting those pages in again took a
    sixth of a small model's training time.
    """
    arena_max, mmap_max, trim_threshold = -8, -4, -1  # names of mallopt(3)
    with suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, 2**31 - 1)):
            mallopt(option, value)


def return_freed_memory() -> None:
    """Return freed memory to the system once, as after weights were replaced by smaller ones."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that the host or a device has too little memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)  # as JAX says it


def memory_limit() -> int:
    """Bytes of memory that the first device has; on a CPU, that the machine has."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def environment(version: str) -> dict[str, Any]:
    """Versions, devices and the source's commit: what a number in a run may depend on.

    `version` is that of jaxlm.
    """
    import jax

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "jaxlm": version,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        **source_version(Path(__file__).parent),
    }


def source_version(package: Path) -> dict[str, Any]:
    """The commit of a package's checkout, and whether its tree differs; null without a checkout."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *words], capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Two calls, as each takes time of every run: the package's files, tracked (H) and new (?), and
    # the commit with what differs from it anywhere in the checkout.
    files = git("ls-files", "-t", "--cached", "--others", "--exclude-standard") or ""
    status = git("status", "--porcelain=v2", "--branch", "--untracked-files=no") or ""
    commit = re.search(r"^# branch\.oid ([0-9a-f]+)$", status, re.MULTILINE)
    # A package may also be installed inside the checkout of something else.
    if "H __init__.py" not in files.splitlines() or commit is None:
        return {"commit": None, "changed": None}
    lines = [*files.splitlines(), *status.splitlines()]
    return {"commit": commit[1], "changed": any(line[:2] not in ("H ", "# ") for line in lines)}


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """End the process at once on Ctrl-C, with status 130.

    For what has nothing to save: a KeyboardInterrupt gets lost where an import meets it in C.
    """
    with handling({signal.SIGINT: lambda *_: os._exit(INTERRUPTED)}):
        yield


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C or SIGTERM came; a second one interrupts at once.

    Signals arrive in the main thread only; in another one the function is always False.
    """
    came = threading.Event()

    def note(number: int, _: object) -> None:
        came.set()
        signal.signal(number, signal.default_int_handler)

    with handling({signal.SIGINT: note, signal.SIGTERM: note}):
        yield came.is_set


@contextmanager
def handling(handlers: dict[signal.Signals, Callable[[int, object], object]]) -> Iterator[None]:
    """Signal handlers for the time of the block, where the thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
