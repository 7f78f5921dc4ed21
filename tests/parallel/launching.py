"""Several processes of the training command on this machine, as a launcher starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.training.runs import sections_of

TRAIN = Path(__file__).parents[2] / "train.py"
PATIENCE = 240  # seconds that processes may take


def write_settings(folder: Path, **sections: Mapping) -> Path:
    """The settings of `runs` with fields replaced, without a schedule or dropout, in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = sections_of(folder)
    whole["model"] |= {"dropout": 0.0}
    whole["optim"] = {"schedule": "constant", "warmup_steps": 0, "eps": 1e-4}
    for name, fields in sections.items():
        whole[name] = whole.get(name, {}) | dict(fields)
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(whole, allow_unicode=True), encoding="utf-8")
    return file


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def named(number: int) -> list[dict[str, str]]:
    """The environment of each of so many processes, by JAX's own variables."""
    address = f"127.0.0.1:{free_port()}"
    return [
        {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(number),
            "JAX_PROCESS_ID": str(i),
        }
        for i in range(number)
    ]


def start(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    temporary: Path,
    folder: Path | None = None,
) -> list[subprocess.Popen]:
    """A process for each environment; what they write aside goes to the folder `temporary`.

    They run in `folder`, where it is given.
    """
    temporary.mkdir(exist_ok=True)
    inherited = os.environ | {"JAX_PLATFORMS": "cpu", "TMPDIR": str(temporary)}
    pipe = subprocess.PIPE
    return [
        subprocess.Popen(
            command,
            env=inherited | environment,
            cwd=folder,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for environment in environments
    ]


def wait_all(processes: Sequence[subprocess.Popen]) -> list[subprocess.CompletedProcess]:
    """What each process said. When one has failed the others are killed soon, as launchers do."""
    until = time.monotonic() + PATIENCE
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        if any(process.poll() not in (None, 0) for process in processes):
            until = min(until, time.monotonic() + 15)
        time.sleep(0.02)
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    said = [process.communicate() for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(processes, said, strict=True)
    ]


def train(settings: Path, number: int, *words: str) -> list[subprocess.CompletedProcess]:
    """Run the training command in so many processes, to the end."""
    command = [sys.executable, str(TRAIN), "--config", str(settings), *words]
    environments = named(number) if number > 1 else [{}]
    return wait_all(start(command, environments, settings.parent / "temporary"))


def finish(settings: Path, number: int, *words: str) -> Path:
    """As `train`, where all must succeed; the run."""
    for done in train(settings, number, *words):
        assert done.returncode == 0, done.stderr[-3000:]
    return settings.parent / "run"
