"""Record tiny reference models, their inputs and all they compute, for tests without torch.

python -m scripts.make_parity_fixtures [NAME ...]   (needs the parity extra; writes tests/fixtures/)
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.reference_models import (
    COUNTING_FROM_PAD,
    HEADS,
    LIMIT,
    MODELS,
    Model,
    adamw,
    mean_loss,
    reference_model,
    update,
    weights_of,
)

# Recorded in tests only: their tensors have the names and their models the parts of RoBERTa's.
LIVE_ONLY = {
    name for name in HEADS if name.startswith(("XLMRoberta", "Camembert")) and "Masked" not in name
}
FOLDER = Path(__file__).parent.parent / "tests" / "fixtures"
BATCH, LENGTH, STEPS = 5, 11, 5
BLOCK = 1  # the block whose parts are recorded apart


def make_inputs(config: Any) -> dict[str, torch.Tensor]:
    """Rows that are full, right-padded, left-padded, holed, and shifted up to the limit."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, config.vocab_size, (BATCH, LENGTH), generator=generator)
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    positions = torch.arange(LENGTH).repeat(BATCH, 1)
    mask[1, 7:] = 0
    mask[2, :4] = 0
    positions[2] = (positions[2] - 4).clamp(min=0)
    mask[3, 3:6] = 0
    positions[4] += LIMIT - LENGTH
    # A decoder's classifier finds a row's last token by the padding that follows it.
    ids[1, 7:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    if "type_vocab_size" in config.to_dict():
        kinds = torch.randint(config.type_vocab_size, (BATCH, LENGTH), generator=generator)
        inputs["token_type_ids"] = kinds
    return inputs


def run(model: Model, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What the model answers, in order: logits, or the hidden states of a bare one."""
    inputs = dict(inputs)
    kind = model.config.model_type
    if kind in COUNTING_FROM_PAD:
        inputs["position_ids"] = inputs["position_ids"] + model.config.pad_token_id + 1
    if kind.startswith(("gpt2", "llama", "mistral", "qwen")):
        inputs["use_cache"] = False  # pyright: ignore[reportArgumentType]
    out = model(**inputs)
    return [v for name, v in out.items() if name.endswith(("logits", "last_hidden_state"))]


def record(name: str) -> dict[str, np.ndarray]:
    """Weights, inputs and answers of one tiny model; of a language model also what lies between."""
    model = reference_model(name)
    config = np.array(json.dumps(model.config.to_dict()))
    found = {f"weights/{name}": array for name, array in weights_of(model).items()}
    inputs = make_inputs(model.config)
    seen: dict[str, torch.Tensor] = {}
    hooks = watch(model, seen) if name in MODELS else []
    outputs = run(model, inputs)
    for hook in hooks:
        hook.remove()
    tensors = {**inputs, **seen, **{f"outputs/{i}": out for i, out in enumerate(outputs)}}
    if name in MODELS:
        tensors |= gradients(model, inputs, outputs[0])
    if name in DECODERS:
        tensors |= packed(model, inputs["input_ids"])
        found |= training_steps(name)
    if "rope_parameters" in model.config.to_dict() and name in MODELS:
        tensors |= rotary(model, inputs["position_ids"])
    found |= {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    return found | {"config": config}


DECODERS = ("gpt2", "llama", "qwen2")  # one of each make, for what is the same for the rest


def gradients(model: Model, inputs: dict, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the mean loss of the next token where both are real; leaves not reached are left out."""
    mask = inputs["attention_mask"]
    weights = (mask[:, 1:] * mask[:, :-1]).float()
    loss = mean_loss(logits[:, :-1], inputs["input_ids"][:, 1:], weights)
    loss.backward()
    reached = {f"gradients/{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"loss_weights": weights, "loss": loss, **reached}


def watch(model: Model, seen: dict) -> list:
    """Hooks that keep the hidden states, and what goes in and out of one block's parts."""
    trunk = model.base_model
    encoder = hasattr(trunk, "encoder")
    gpt2 = model.config.model_type == "gpt2"
    blocks = trunk.encoder.layer if encoder else trunk.h if gpt2 else trunk.layers
    block = blocks[BLOCK]
    if encoder:
        parts = {
            "norm": (block.attention.output.LayerNorm,) * 2,
            "attention": (block.attention, block.attention.output.dense),
            "feed_forward": (block.intermediate, block.output.dense),
        }
    else:
        attention = block.attn if gpt2 else block.self_attn
        parts = {
            "norm": (block.ln_1 if gpt2 else block.input_layernorm,) * 2,
            "attention": (attention, attention),
            "feed_forward": (block.mlp, block.mlp),
        }

    def keep(name: str, value: object) -> None:
        seen[name] = value[0] if isinstance(value, tuple) else value

    def enters(module: Model, name: str) -> Any:
        def hook(module, args, kwargs):
            keep(name, args[0] if args else kwargs["hidden_states"])

        return module.register_forward_pre_hook(hook, with_kwargs=True)

    def leaves(module: Model, name: str) -> Any:
        return module.register_forward_hook(lambda module, args, output: keep(name, output))

    hooks = [enters(blocks[0], "hidden/embeddings")]
    hooks += [leaves(layer, f"hidden/layers_{i}/residual") for i, layer in enumerate(blocks)]
    if not encoder:
        hooks.append(leaves(trunk.ln_f if gpt2 else trunk.norm, "hidden/final"))
    for name, (first, last) in parts.items():
        hooks += [enters(first, f"{name}/input"), leaves(last, f"{name}/output")]
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


def main() -> None:
    torch.manual_seed(0)
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or (MODELS | HEADS).keys() - LIVE_ONLY:
        path = FOLDER / f"{name}.npz"
        np.savez_compressed(path, **record(name))  # pyright: ignore[reportArgumentType]
        print(f"{path} {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
