"""What summary.json says of a finished run."""

import math
from collections.abc import Mapping
from typing import Any

from jaxlm.training.history import History


def run_summary(history: History, steps: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a run of so many steps, and `known`: sizes, and what the task adds.

    Losses are in nats a token, null without a val split; seconds are those from the first step on,
    over all processes.
    """
    losses = [row["loss"] for row in history.rows if row["split"] == "val"]
    losses = [loss for loss in losses if loss is not None]
    tokens, seconds = history.tokens(steps), history.seconds
    summary = {
        "best_val_loss": min(losses, default=None),
        "final_val_loss": losses[-1] if losses else None,
        "steps": steps,
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        **known,
    }
    if "metric" in known and losses:
        score = -history.best if known["metric"] == "loss" else history.best
        summary["best_val_metric"] = score if math.isfinite(score) else None
    return summary
