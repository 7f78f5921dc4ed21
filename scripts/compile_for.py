"""Compile the training step of a recipe for chips that this machine lacks, and say what it holds.

    pip install libtpu && python scripts/compile_for.py --config gpt2_124m --device v5e --devices 4
    pip install "jax[cuda13]" && python scripts/compile_for.py --config gpt2_124m --device h100

XLA compiles ahead of time for a device that is only described. It prints the memory that the step
takes on each device, the bytes that it moves (TPUs only), the collectives it has and whether the
attention kernel is in it; `jaxlm plan` says in words what follows. The batch is 8 rows on each
device, or what `--section.field value` words say, which change the recipe; `--text` writes the
compiled program. `--device cpu` needs no plugin.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NoReturn

from jaxlm.config import JaxlmError, load_config
from jaxlm.runtime import expect_described_devices, is_out_of_memory


def refuse(mistake: str) -> NoReturn:
    """Say a mistake in one sentence and exit with status 2."""
    print(f"error: {mistake}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="gpt2_124m")
    parser.add_argument("--device", default="v5e", help="v5e, v5p, v6e, h100, h200, a100 or cpu")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--text", type=Path, help="write the compiled program to this file")
    arguments, words = parser.parse_known_args()
    name, number = arguments.device, arguments.devices
    expect_described_devices(tpu=name.startswith("v"))

    import jax

    from jaxlm.parallel import described_devices
    from jaxlm.training.plan import compile_step, describe, resolve_or_stand_in

    usual = ["--model.compute_dtype", "bfloat16", "--train.accumulate_steps", "1"]
    usual += ["--train.batch_size", str(8 * number)]
    try:
        resolved, _ = resolve_or_stand_in(load_config(arguments.config, [*usual, *words]))
        devices = jax.devices()[:number] if name == "cpu" else described_devices(name, number)
        began = time.perf_counter()
        compiled = compile_step(resolved, resolved.task.train_batch(0), devices)
    except JaxlmError as error:
        refuse(str(error))
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        refuse(f"XLA finds no room for the step: {str(error).splitlines()[0]}")
    seconds = round(time.perf_counter() - began, 1)
    told = {"device": name, "devices": number, "seconds": seconds}
    print(json.dumps(told | describe(compiled), indent=1))
    if arguments.text is not None:
        arguments.text.write_text(compiled.as_text())


if __name__ == "__main__":
    main()
