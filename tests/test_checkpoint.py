"""Which checkpoints are kept, and what is told when one cannot be written."""

import asyncio
import gc
import warnings

import jax.numpy as jnp
import pytest

from jaxlm.checkpoint import Checkpoints, saved_steps
from jaxlm.files import WriteError


def test_the_best_checkpoint_is_kept_across_processes(tmp_path):
    for merits in ({1: 5.0, 2: 1.0}, {3: 2.0, 4: None}, {5: 3.0}):
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        for step, merit in merits.items():
            array = {"a": jnp.zeros(3)}
            checkpoints.save(step, array, array, {"config": {}, "merit": merit})
        checkpoints.close()
        assert saved_steps(tmp_path / "checkpoints") == [1, max(merits)]


class Handler:
    async def serialize(self):
        """As Orbax names what writes an array."""


async def of_the_user():
    pass


def leave_failed(loop, file):
    """A future whose error, raised in a file, nobody asks for."""
    future = loop.create_future()
    try:
        exec(compile("raise OSError(28, 'No space left on device')", file, "exec"))
    except OSError as error:
        future.set_exception(error)


def test_parts_of_a_failed_write_that_failed_too_are_not_told(tmp_path, caplog):
    checkpoints, loop = Checkpoints(tmp_path), asyncio.new_event_loop()
    leave_failed(loop, "site-packages/orbax/checkpoint/async_path.py")
    gc.collect()
    assert not caplog.records
    leave_failed(loop, "my_script.py")
    gc.collect()
    assert "never retrieved" in caplog.text
    loop.close()
    checkpoints.close()


def test_parts_of_a_failed_write_that_never_began_are_not_told(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        with pytest.raises(WriteError, match="No space left"), checkpoints._writing():
            raise OSError(28, "No space left on device")
        Handler().serialize()
        of_the_user()
        gc.collect()
    checkpoints.close()
    assert ["of_the_user" in str(warning.message) for warning in told] == [True]
