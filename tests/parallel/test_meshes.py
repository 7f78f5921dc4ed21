"""Training on eight virtual devices gives what training on one gives."""

import json
import os
import subprocess
import sys

import pytest

from tests.parallel.meshes import CASES, MESHES

FLAGS = (
    "--xla_force_host_platform_device_count=8 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=600"  # cores may be busy
)
CLOSE = 1e-5


def results(program, *words):
    """The lines of JSON that a program of this folder prints."""
    environment = os.environ | {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", f"tests.parallel.{program}", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check(found, number):
    assert len(found) == number
    for row in found:
        assert row["loss"] < CLOSE, row
        assert row["params"] < CLOSE, row
        assert (row["divided"] == 0) == row["case"].endswith("/8,1,1"), row


def test_steps_on_a_mesh_equal_those_on_one_device():
    check(results("meshes", "llama/1,2,4"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_model_takes_the_same_steps_on_every_mesh(name):
    words = [f"{name}/{','.join(map(str, sizes))}" for sizes in MESHES]
    check(results("meshes", *words), len(MESHES))


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(tmp_path):
    unequal, pretraining, tuning = results("runs_on_meshes", str(tmp_path))
    assert unequal["unequal"] == []
    assert pretraining["pretraining"] < CLOSE
    assert tuning["tuning"] < CLOSE


@pytest.mark.slow
def test_the_kernel_of_attention_is_divided_by_rows_and_heads():
    found = results("kernels")
    assert [row["rows"] for row in found] == [1, 1, 3]
    assert max(row["apart"] for row in found) < CLOSE
