"""Several processes that train one run together, on one host or on many.

They share the folder of the run. The first one decides, prints, and writes what is no checkpoint.
"""

import itertools
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax._src import distributed  # its key-value store has no public name
from jax.experimental import multihost_utils

from jaxlm.config import ConfigError, JaxlmError, ParallelConfig
from jaxlm.runtime import handling, interruption

DAY = 24 * 60 * 60 * 1000  # in milliseconds: preparing data may take long
_numbers = itertools.count()  # of the decisions, which all processes take in the same order


class SharedError(JaxlmError):
    """What went wrong in the first process, raised in all of them."""


def join(config: ParallelConfig) -> None:
    """Join the other processes of the run, before JAX starts; nothing where there are none.

    They are those that the config names, else JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, else those that JAX finds out from SLURM, Open MPI, Kubernetes or a TPU pod.
    All but the first print nothing from here on.

    Raises: ConfigError where they are named by halves, or cannot be reached.
    """
    named = named_processes(config)
    if named is None and not has_others():
        return
    if named is not None and named["num_processes"] == 1:
        return
    try:
        jax.distributed.initialize(**(named or {}))
    except (RuntimeError, ValueError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"the processes of the run do not come together: {told}") from None
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end of the process)


def named_processes(config: ParallelConfig) -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize` in config or environment; None: not there."""
    given = {
        "coordinator_address": config.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "num_processes": whole_number(config.num_processes, "JAX_NUM_PROCESSES"),
        "process_id": whole_number(config.process_id, "JAX_PROCESS_ID"),
    }
    lacking = [name for name, value in given.items() if value is None]
    if len(lacking) == len(given):
        return None
    if lacking and not has_others():
        raise ConfigError(
            "several processes need parallel.coordinator, parallel.num_processes and "
            "parallel.process_id, or the environment variables JAX_COORDINATOR_ADDRESS, "
            f"JAX_NUM_PROCESSES and JAX_PROCESS_ID; {', '.join(lacking)} is not given"
        )
    number, own = given["num_processes"], given["process_id"]
    if number is not None and own is not None and not own < number:
        raise ConfigError(f"process {own} is none of {number}, which are counted from 0")
    if (address := given["coordinator_address"]) and not address.rpartition(":")[2].isdigit():
        raise ConfigError(f"the coordinator {address} has no port; give it as host:1234")
    return given


def whole_number(given: int | None, variable: str) -> int | None:
    """The value of a setting, else of an environment variable. Raises: ConfigError."""
    text = os.environ.get(variable)
    if given is not None or text is None:
        return given
    if not text.isdecimal():
        raise ConfigError(f"{variable} must be a whole number, got {text!r}")
    return int(text)


def has_others() -> bool:
    """Whether a cluster that JAX knows started this process beside others."""
    from jax._src.clusters import ClusterEnv

    for cluster in ClusterEnv._cluster_types:
        # Outside of a cluster, or with too few rights in it, looking may fail in any way.
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not cluster.opt_in_only_method and cluster.is_env_present():
                return cluster.get_process_count() > 1
    return False


def is_first() -> bool:
    """Whether this is the process that decides, writes and prints."""
    return jax.process_index() == 0


def agreed[Result](decide: Callable[[], Result]) -> Result:
    """What the first process makes of a function without arguments, as JSON; others wait for it.

    All processes take the same decisions in the same order.

    Raises: SharedError, where there are several, for a JaxlmError of the function.
    """
    if jax.process_count() == 1:
        return decide()
    client, name = distributed.global_state.client, f"jaxlm/{next(_numbers)}"
    assert client is not None
    if is_first():
        told: dict[str, Any] = {"error": "the first process has failed"}
        try:
            result = decide()
            told = {"result": result}
        except JaxlmError as error:
            told = {"error": str(error)}
            raise SharedError(str(error)) from error
        finally:
            client.key_value_set(name, json.dumps(told))
        return result
    told = json.loads(client.blocking_key_value_get(name, DAY))
    if "error" in told:
        raise SharedError(told["error"])
    return told["result"]


def of_all(value: str) -> list[str]:
    """What each of the processes gives, in their order."""
    if jax.process_count() == 1:
        return [value]
    client, name = distributed.global_state.client, f"jaxlm/{next(_numbers)}"
    assert client is not None
    client.key_value_set(f"{name}/{jax.process_index()}", value)
    numbers = range(jax.process_count())
    return [client.blocking_key_value_get(f"{name}/{i}", DAY) for i in numbers]


def first_alone[Result](make: Callable[[], Result]) -> Result:
    """What every process makes of a function, the first before the others.

    So that what the first leaves in a cache is there for them.
    """
    made: list[Result] = []
    agreed(lambda: made.append(make()))
    return made[0] if made else make()


@contextmanager
def failing_alone() -> Iterator[None]:
    """End one of several processes at once where it alone fails in the block.

    The others notice it; at a usual exit JAX would wait for them, who wait for this one.
    """
    try:
        yield
    except SharedError:
        if is_first():
            raise
        sys.exit(2)
    except Exception as error:
        if jax.process_count() == 1:
            raise
        of_user = isinstance(error, JaxlmError | OSError | MemoryError)
        told = f"error: {error}" if of_user else traceback.format_exc()
        print(told, file=sys.stderr, flush=True)
        os._exit(2 if of_user else 1)


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """A function that tells whether to stop after a step: a signal to any process asks for it.

    All processes are told so after the same step; each calls it after every step. In one process
    it is `runtime.interruption`.
    """
    if jax.process_count() == 1:
        with interruption() as came:
            yield lambda step: came()
        return

    def ask(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGTERM)  # which JAX listens to, and passes on to all

    with handling({signal.SIGINT: ask}):
        yield multihost_utils.reached_preemption_sync_point
