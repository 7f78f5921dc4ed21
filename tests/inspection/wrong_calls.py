"""Calls of jaxlm.inspection that are mistakes; as a program it prints what each of them raises.

A program of its own, as the test session checks annotations, which a user's program does not.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import inspection
from jaxlm.generation.quantize import quantized
from tests.inspection.models import masked_bert, tiny_loaded
from tests.wrong_calls import tell


def names() -> dict[str, Any]:
    """What the calls of the table are made of."""
    m = tiny_loaded("rotary")
    labels: dict[str, Any] = {"head": "sequence_classification", "labels": ("a", "b", "c")}
    states = jnp.ones((3, 1, 4, 16))
    return {
        "m": m,
        "params": m.params,
        "learned": tiny_loaded("learned"),
        "dropping": tiny_loaded("rotary", dropout=0.1),
        "bert": tiny_loaded(architecture="encoder", num_token_types=2),
        "clf": tiny_loaded(architecture="encoder", **labels),
        "both": tiny_loaded("rotary", architecture="encoder_decoder", decoder_start_id=2),
        "words": masked_bert(),
        "small": quantized(m),
        "ids": [1, 2, 3, 4],
        "row": jnp.array([[1, 2, 3, 4]]),
        "logits": inspection.run(m, [1, 2, 3, 4])[0],
        "states": states,
        "maps": jnp.ones((2, 1, 4, 4, 4)) / 4,
        "target": inspection.token_target(3),
        "metric": inspection.logit_difference(3, 5),
        "jax": jax,
        "jnp": jnp,
        "np": np,
        **{name: getattr(inspection, name) for name in inspection.__all__},
    }


if __name__ == "__main__":
    tell(Path(__file__).with_suffix(".txt"), names())
