"""The objective of encoder-decoders: each token of a target from the right ones before it."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jaxlm.ops.reductions import target_sums
from jaxlm.tasks.task import Arrays, Outputs, Params, RowObjective, Sums


def target_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """Cross-entropy of each token of the target, from the source and the tokens before it."""
    return target_sums(outputs, batch["targets"], batch["weights"])


@dataclass(frozen=True)
class TeacherForcing(RowObjective):
    """The loss of targets, each token predicted from the right ones before it.

    Labels are smoothed in training alone: losses of evaluation are nats a token without it.
    """

    losses: Any = target_losses
    of_head: bool = True
    label_smoothing: float = 0.0

    def options(self, key: Array | None) -> dict[str, Any]:
        return {} if key is None else {"accuracy": False, "smoothing": self.label_smoothing}

    def forward(
        self,
        model: nn.Module,
        params: Params,
        batch: Arrays,
        key: Array | None,
        method: str | None = None,
    ) -> Outputs:
        # Padding stands behind a target's tokens, where none of them looks: no mask is needed.
        return model.apply(
            {"params": params},
            batch["source_ids"],
            batch["target_ids"],
            source_mask=batch["source_mask"],
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
            method=method,
        )
