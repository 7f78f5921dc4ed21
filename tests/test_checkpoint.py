"""Which checkpoints are kept."""

import jax.numpy as jnp

from jaxlm.checkpoint import Checkpoints, saved_steps


def test_the_best_checkpoint_is_kept_across_processes(tmp_path):
    for merits in ({1: 5.0, 2: 1.0}, {3: 2.0, 4: None}, {5: 3.0}):
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        for step, merit in merits.items():
            array = {"a": jnp.zeros(3)}
            checkpoints.save(step, array, array, {"config": {}, "merit": merit})
        checkpoints.close()
        assert saved_steps(tmp_path / "checkpoints") == [1, max(merits)]
