"""Masked-LM training tokens/s of jaxlm beside transformers' BERT, alternated in one run.

    pip install -e ".[parity]" && python -m scripts.bench_bert [--rounds 8] [--json]

The same shape (6 layers, d_model 384, vocabulary 30,522), batch (16 x 128 tokens, 15 % of them
hidden) and AdamW with clipping, in fp32, without dropout. PyTorch is BertForMaskedLM, eager, whose
head looks at every position; jaxlm makes logits at the hidden ones only, and for comparison at all.
Ratios are medians of the rounds'.
"""

import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from jaxtyping import Array

from jaxlm.config import OptimConfig
from jaxlm.data.batches import Batch
from jaxlm.models import make_model, preset
from jaxlm.ops.reductions import target_sums
from jaxlm.tasks import Objective
from jaxlm.tasks.masked_lm import masked_lm
from jaxlm.training.optimizers import make_optimizer
from jaxlm.training.programs import cpu_options
from jaxlm.training.state import init_state, train_step
from scripts.bench_train import alternate, start
from scripts.reference_models import adamw, update

B, T, V, D, LAYERS, HEADS = 16, 128, 30_522, 384, 6, 6
LEARNING_RATE = 3e-4


def make_batch() -> Batch:
    random = np.random.default_rng(0)
    ids = random.integers(5, V, size=(B, T)).astype(np.int32)
    hidden = round(0.15 * T)
    places = np.sort(random.permuted(np.tile(np.arange(T), (B, 1)), axis=1)[:, :hidden])
    targets = np.take_along_axis(ids, places, axis=1)
    np.put_along_axis(ids, places, 4, axis=1)
    weights = np.ones(places.shape, np.float32)
    return {"ids": ids, "places": places.astype(np.int32), "targets": targets, "weights": weights}


def dense_head(
    model: nn.Module, params: Any, batch: Mapping[str, Any], key: Array | None = None
) -> dict[str, Array]:
    """The masked language model's loss out of logits at every position."""
    logits: Any = model.apply({"params": params}, jnp.asarray(batch["ids"]))
    chosen = jnp.take_along_axis(logits, jnp.asarray(batch["places"])[:, :, None], axis=1)
    return target_sums(chosen, jnp.asarray(batch["targets"]), jnp.asarray(batch["weights"]))


def jaxlm_step(objective: Objective, batch: Batch) -> Callable[[], float]:
    config = preset(
        "bert_base", vocab_size=V, d_model=D, num_layers=LAYERS, num_heads=HEADS, d_ff=4 * D,
        max_seq_len=T, dropout=0.0,
    )  # fmt: skip
    optim = OptimConfig(learning_rate=LEARNING_RATE, schedule="constant", warmup_steps=0)
    optimizer = make_optimizer(optim, 1000)
    init = jax.jit(lambda key: init_state(make_model(config), optimizer, objective, key))
    states = [init(jax.random.key(0))]
    step = jax.jit(train_step, donate_argnums=0, compiler_options=cpu_options())

    def run() -> float:
        states[0], metrics = step(states[0], batch)
        return float(metrics["loss"])

    return run


def torch_step(batch: Batch) -> Callable[[], float]:
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * D, max_position_embeddings=T, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = transformers.BertForMaskedLM(config).train()
    optimizer = adamw(model, LEARNING_RATE)
    labels = np.full((B, T), -100, np.int64)
    np.put_along_axis(labels, batch["places"], batch["targets"], axis=1)
    ids, wanted = torch.from_numpy(batch["ids"]).long(), torch.from_numpy(labels)

    def run() -> float:
        loss = model(input_ids=ids, labels=wanted).loss
        update(model, optimizer, loss)
        return loss.item()

    return run


def main() -> None:
    arguments = start(__doc__, rounds=8)
    batch = make_batch()
    steps = {
        "jaxlm": jaxlm_step(masked_lm, batch),
        "jaxlm, dense head": jaxlm_step(dense_head, batch),
        "PyTorch": torch_step(batch),
    }
    seconds = alternate(steps, arguments.rounds)
    result: dict[str, float] = {}
    for name, times in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds["PyTorch"], times, strict=True)]
        result[name] = B * T / statistics.median(times)
        result[f"{name} / PyTorch"] = statistics.median(ratios)
    if arguments.json:
        print(json.dumps(result))
        return
    for name in steps:
        ratio = result[f"{name} / PyTorch"]
        print(f"{name}: {result[name]:,.0f} tokens/s, {ratio:.2f} times PyTorch")


if __name__ == "__main__":
    main()
