"""The last checkpoint of a run, restored by several processes: a program.

`python -m tests.parallel.restored RUN` prints, in the first process, the hashes of the leaves.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

from jaxlm.checkpoint import PARAMS, STATE, restore_newest
from jaxlm.config import build_config, read_yaml
from jaxlm.models import make_model
from jaxlm.parallel import make_mesh, on_this_process
from jaxlm.processes import join
from jaxlm.training.programs import compile_and_start
from jaxlm.training.resolve import resolve
from jaxlm.training.state import to_items


def main() -> None:
    run = Path(sys.argv[1])
    config = build_config(read_yaml(run / "config.yaml"))
    join(config.parallel)
    config, task, given, _ = resolve(config, None, None, run)
    model, mesh = make_model(config.model), make_mesh(config.parallel)
    first = task.train_batch(0)
    state, _ = compile_and_start(config, model, task.objective, first, None, given, mesh)
    params, rest = to_items(state)
    items, _ = restore_newest(run / "checkpoints", lambda meta: {PARAMS: params, STATE: rest})
    leaves = map(np.asarray, jax.tree.leaves(on_this_process(items)))
    print(json.dumps(sorted(hashlib.sha256(leaf.tobytes()).hexdigest() for leaf in leaves)))


if __name__ == "__main__":
    main()
