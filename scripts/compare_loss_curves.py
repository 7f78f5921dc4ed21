"""Train the same model in jaxlm and in transformers, and compare the two loss curves.

python -m scripts.compare_loss_curves          (needs the parity extra; minutes on 2 cores)

Same initial weights (theirs, through jaxlm.hub), same batches of tinyshakespeare, AdamW with
clipping, a constant learning rate, no dropout, fp32. Measured over 100 steps: at most 2.1e-6
apart for gpt2, 1.7e-6 for llama, 1.9e-6 for qwen2.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from jaxlm.config import DataConfig, OptimConfig
from jaxlm.data import prepare, train_batch
from jaxlm.hub import config_from_reference, import_tensors
from jaxlm.models import CausalLM
from jaxlm.training.objectives import causal_lm
from jaxlm.training.optimizers import make_optimizer
from jaxlm.training.state import TrainState, train_step
from scripts.make_parity_fixtures import Model, adamw, mean_loss, update, weights_of

BAR = 1e-3  # the largest difference of two losses that may be
LEARNING_RATE = 3e-4
DATA = DataConfig(source="sample:tinyshakespeare", tokenizer="char", seq_len=64)

SHAPES: dict[str, dict] = {
    "gpt2": {
        "n_embd": 128,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 64,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    "llama": {
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    "qwen2": {
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    },
}


def compare(family: str, steps: int = 100, batch_size: int = 12, **sizes: int) -> np.ndarray:
    """Losses (2, steps) of theirs and ours on the same batches from the same weights."""
    dataset = prepare(DATA)
    batches = [train_batch(dataset.train, 0, i, batch_size, DATA.seq_len) for i in range(steps)]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        family, **{**SHAPES[family], "vocab_size": dataset.tokenizer.vocab_size, **sizes}
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    state = our_state(model, steps)  # before theirs trains, in place
    return np.array([their_losses(model, batches), our_losses(state, batches)])


def our_state(model: Model, steps: int) -> TrainState:
    """The same model, weights and optimizer in jaxlm."""
    config = config_from_reference(model.config.to_dict())
    params = import_tensors(weights_of(model), config)
    optim = OptimConfig(learning_rate=LEARNING_RATE, schedule="constant", warmup_steps=0)
    optimizer = make_optimizer(optim, steps)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        key=jax.random.key_data(jax.random.key(0)),
        ema=None,
        model=CausalLM(dataclasses.replace(config, compute_dtype="float32")),
        optimizer=optimizer,
        objective=causal_lm,
    )


def their_losses(model: Model, batches: list) -> list[float]:
    optimizer, losses = adamw(model, LEARNING_RATE), []
    for batch in batches:
        ids, targets = (torch.from_numpy(batch[name]).long() for name in ("ids", "targets"))
        loss = mean_loss(model(ids).logits, targets, torch.ones(targets.shape))
        losses.append(loss.item())
        update(model, optimizer, loss)
    return losses


def our_losses(state: TrainState, batches: list) -> list[float]:
    step, losses = jax.jit(train_step), []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses


def main() -> None:
    for family in SHAPES:
        theirs, ours = compare(family)
        apart = np.abs(theirs - ours)
        print(
            f"{family:6} loss {ours[0]:.4f} -> {ours[-1]:.4f} (theirs {theirs[-1]:.4f}), "
            f"at most {apart.max():.1e} apart, at step {apart.argmax()}: "
            f"{'within' if apart.max() < BAR else 'OUTSIDE'} {BAR:.0e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
