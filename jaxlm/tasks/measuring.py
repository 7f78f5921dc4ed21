"""A model's answers to items, and how good they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxlm.tasks.examples import Example, Item, in_batches
from jaxlm.tasks.task import Outputs, Sums, Task

ROWS = 32  # of one batch at most

Answers = list[dict[str, Any]]


@jax.jit(static_argnums=(0, 1, 4))
def step(
    task: Task, model: nn.Module, params: Any, batch: Mapping[str, Any], labelled: bool
) -> tuple[Sums, Outputs]:
    """Sums of the losses, if there are labels, and the outputs, if something is read off them."""
    outputs = task.forward(model, params, batch, None)
    sums = task.losses(outputs, batch) if labelled else {}
    return sums, outputs if task.metrics else None


def measure(
    task: Task, model: nn.Module, params: Any, items: Sequence[Item], examples: Sequence[Example]
) -> tuple[dict[str, float], Answers]:
    """The mean loss (nats) and the task's scores over labelled items, and the answers to them."""
    totals, answers = run(task, model, params, items, examples, labelled=True)
    count = max(totals.pop("count"), 1e-9)
    means = {name: total / count for name, total in totals.items()}
    return means | task.score(items, answers), answers


def answers_to(task: Task, model: nn.Module, params: Any, items: Sequence[Item]) -> Answers:
    """What the model says of items without labels."""
    return run(task, model, params, items, task.encode(items, labelled=False), labelled=False)[1]


def run(
    task: Task,
    model: nn.Module,
    params: Any,
    items: Sequence[Item],
    examples: Sequence[Example],
    labelled: bool,
) -> tuple[dict[str, float], Answers]:
    totals: dict[str, float] = {}
    outputs: list[tuple[Example, Outputs]] = []
    pad = task.tokenizer.pad_id or 0
    size = min(ROWS, 1 << (len(examples) - 1).bit_length())  # a power of two compiles seldom
    pending = [
        (step(task, model, params, batch, labelled), chosen)
        for batch, chosen in in_batches(examples, size, task.limit, pad)
    ]
    for (sums, found), chosen in pending:
        for name, value in jax.device_get(sums).items():
            totals[name] = totals.get(name, 0.0) + float(value)
        if found is not None:
            rows = jax.tree.map(np.asarray, found)
            outputs += [(e, jax.tree.map(lambda x, i=i: x[i], rows)) for i, e in enumerate(chosen)]
    return totals, task.answer(items, outputs)
