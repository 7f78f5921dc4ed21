"""Record tiny reference models, their inputs and all they compute, for tests without torch.

python -m scripts.make_parity_fixtures        (needs the parity extra; writes tests/fixtures/)
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

Model = Any  # torch does not type the attributes of a module

FOLDER = Path(__file__).parent.parent / "tests" / "fixtures"
BATCH, LENGTH, LIMIT, STEPS = 5, 11, 17, 5
BLOCK = 1  # the block whose parts are recorded apart

# Every size differs from the others, so that no two dims can be confused.
CONFIGS: dict[str, dict] = {
    "gpt2": {
        "vocab_size": 61,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": 40,
        "n_positions": LIMIT,
        "layer_norm_epsilon": 1e-3,
        "bos_token_id": None,
        "eos_token_id": None,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    "llama": {
        "vocab_size": 53,
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": LIMIT,
        "rms_norm_eps": 1e-3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        "bos_token_id": None,
        "eos_token_id": None,
    },
    "qwen2": {
        "vocab_size": 59,
        "hidden_size": 20,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": LIMIT,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": True,
    },
}


def reference_model(family: str, seed: int = 0, **overrides: object) -> Model:
    """A tiny model of the family whose every weight matters, biases and norm scales too."""
    config = transformers.AutoConfig.for_model(family, **(CONFIGS[family] | overrides))
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 2:
            weight.data = noise * weight.shape[-1] ** -0.5
        else:
            weight.data = 0.3 * noise + (0.0 if name.endswith("bias") else 1.0)
    return model


def weights_of(model: Model) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def make_inputs(vocab_size: int) -> dict[str, torch.Tensor]:
    """Rows that are full, right-padded, left-padded, holed, and shifted up to the limit."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(vocab_size, (BATCH, LENGTH), generator=generator)
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    positions = torch.arange(LENGTH).repeat(BATCH, 1)
    mask[1, 7:] = 0
    mask[2, :4] = 0
    positions[2] = (positions[2] - 4).clamp(min=0)
    mask[3, 3:6] = 0
    positions[4] += LIMIT - LENGTH
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def mean_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    return (losses * weights.flatten()).sum() / weights.sum()


def record(family: str) -> dict[str, np.ndarray]:
    """Weights, inputs, activations, gradients and a few training steps of one tiny model."""
    model = reference_model(family)
    config = json.dumps(model.config.to_dict())
    found = {f"weights/{name}": array for name, array in weights_of(model).items()}
    inputs = make_inputs(model.config.vocab_size)
    seen: dict[str, torch.Tensor] = {}
    hooks = watch(model, seen)
    logits = model(**inputs, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    mask = inputs["attention_mask"]
    weights = (mask[:, 1:] * mask[:, :-1]).float()
    loss = mean_loss(logits[:, :-1], inputs["input_ids"][:, 1:], weights)
    loss.backward()
    gradients = {f"gradients/{n}": p.grad for n, p in model.named_parameters()}
    tensors = {**inputs, **seen, **gradients, "loss_weights": weights, "logits": logits}
    tensors |= {"loss": loss, **packed(model, inputs["input_ids"])}
    if family != "gpt2":
        tensors |= rotary(model, inputs["position_ids"])
    found |= {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    return found | training_steps(family) | {"config": np.array(config)}


def watch(model: Model, seen: dict) -> list:
    """Hooks that keep the hidden states, and what goes in and out of one block's parts."""
    trunk = model.base_model
    gpt2 = model.config.model_type == "gpt2"
    blocks, final = (trunk.h, trunk.ln_f) if gpt2 else (trunk.layers, trunk.norm)
    block = blocks[BLOCK]
    parts = {
        "norm": block.ln_1 if gpt2 else block.input_layernorm,
        "attention": block.attn if gpt2 else block.self_attn,
        "feed_forward": block.mlp,
    }

    def keep(name: str, value: object) -> None:
        seen[name] = value[0] if isinstance(value, tuple) else value

    def watch_one(module: Model, entering: str | None, leaving: str) -> Any:
        def hook(module, args, kwargs, output):
            if entering:
                keep(entering, args[0] if args else kwargs["hidden_states"])
            keep(leaving, output)

        return module.register_forward_hook(hook, with_kwargs=True)

    hooks = [watch_one(final, None, "hidden/final")]
    for i, layer in enumerate(blocks):
        entering = None if i else "hidden/embeddings"
        hooks.append(watch_one(layer, entering, f"hidden/layers_{i}/residual"))
    for name, part in parts.items():
        hooks.append(watch_one(part, f"{name}/input", f"{name}/output"))
    return hooks


def packed(model: Model, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two documents a row, which the reference tells apart where positions start anew."""
    positions = torch.cat([torch.arange(4), torch.arange(LENGTH - 4)]).repeat(BATCH, 1)
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return {"packed/position_ids": positions, "packed/logits": logits}


def rotary(model: Model, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    heads = torch.randn(BATCH, 2, LENGTH, model.config.head_dim)
    cos, sin = model.base_model.rotary_emb(heads, positions)
    return {"rotary/input": heads, "rotary/output": apply_rotary_pos_emb(heads, heads, cos, sin)[0]}


def training_steps(family: str) -> dict[str, np.ndarray]:
    """Losses and gradient norms of AdamW steps with clipping, decay and ragged weights."""
    model = reference_model(family)
    generator = torch.Generator().manual_seed(2)
    shape = (STEPS, BATCH, LENGTH + 1)
    tokens = torch.randint(model.config.vocab_size, shape, generator=generator)
    weights = (torch.rand(STEPS, BATCH, LENGTH, generator=generator) < 0.7).float()
    optimizer = adamw(model, learning_rate=1e-2)
    losses, norms = [], []
    for row, weight in zip(tokens, weights, strict=True):
        loss = mean_loss(model(row[:, :-1]).logits, row[:, 1:], weight)
        losses.append(loss.item())
        norms.append(update(model, optimizer, loss))
    return {
        "steps/tokens": tokens.numpy(),
        "steps/weights": weights.numpy(),
        "steps/losses": np.array(losses, np.float32),
        "steps/grad_norms": np.array(norms, np.float32),
    }


def adamw(model: Model, learning_rate: float) -> torch.optim.AdamW:
    """The optimizer that both sides train with: decay on matrices and embeddings only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.95),
        eps=1e-8,
    )


def update(model: Model, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    """One step with gradients clipped to a norm of 1; the norm before."""
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return norm.item()


def main() -> None:
    torch.manual_seed(0)
    FOLDER.mkdir(exist_ok=True)
    for family in CONFIGS:
        path = FOLDER / f"{family}.npz"
        np.savez_compressed(path, **record(family))  # pyright: ignore[reportArgumentType]
        print(f"{path} {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
