"""What commands ask of the process: determinism, peak FLOP/s, signals."""

import os
import signal
import subprocess
import sys
import threading

import jax
import pytest

from jaxlm import runtime
from jaxlm.config import JaxlmError
from jaxlm.runtime import DETERMINISTIC, NO_TRITON, interruption, refuse_late_determinism


def test_determinism_is_set_before_jax_starts_and_only_once():
    program = (
        "import os; from jaxlm.runtime import set_up; set_up(deterministic=True);"
        "set_up(deterministic=True); import jax; jax.devices(); set_up(deterministic=True);"
        "print(os.environ['XLA_FLAGS'])"
    )
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["--xla_force_host_platform_device_count=1", DETERMINISTIC]


@pytest.mark.parametrize(
    ("given", "kept"), [("", NO_TRITON), ("--xla_gpu_enable_triton_gemm=true",) * 2]
)
def test_where_a_gpu_is_products_are_those_of_cublas_unless_asked_otherwise(given, kept):
    program = (
        "import os, pathlib; from jaxlm import runtime; runtime.NVIDIA = pathlib.Path('.');"
        "runtime.set_up(); print(os.environ['XLA_FLAGS'])"
    )
    env = os.environ | {"XLA_FLAGS": given}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [kept]


def test_a_compiled_program_that_was_cut_is_compiled_and_kept_anew(tmp_path):
    program = (
        "from jaxlm.runtime import keep_compiled_programs; keep_compiled_programs(); import jax;"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
        "double = jax.jit(lambda x: 2 * x); print(double(3))"
    )
    env = os.environ | {"JAXLM_CACHE": str(tmp_path)}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)

    def compiled():
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("6\n", "")
        (kept,) = (tmp_path / "compiled").glob("jit__lambda*-cache")
        return kept, kept.read_bytes()

    kept, whole = compiled()
    kept.write_bytes(whole[: len(whole) // 2])
    compiled()
    assert len(kept.read_bytes()) > len(whole) // 2
    kept.write_bytes(b"")
    assert len(compiled()[1]) > len(whole) // 2


@pytest.mark.parametrize(
    ("backend", "flags", "refused"),
    [("gpu", "", True), ("gpu", DETERMINISTIC, False), ("cpu", "", False)],
)
def test_late_determinism_is_refused_where_it_matters(monkeypatch, backend, flags, refused):
    jax.devices()
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setenv("XLA_FLAGS", flags)
    for check in (refuse_late_determinism, lambda: runtime.set_up(deterministic=True)):
        if not refused:
            check()
            continue
        with pytest.raises(JaxlmError, match="comes too late"):
            check()
    assert os.environ["XLA_FLAGS"] == flags


def test_an_interruption_is_noted_and_the_second_one_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with interruption() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_takes_no_signals():
    told = []

    def work():
        with interruption() as interrupted:
            told.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]
