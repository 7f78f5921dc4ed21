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
GPT2 = {
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
}
LLAMA = {
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
}
QWEN = {
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
}
SLOWED = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 13,
}
BERT = {
    "vocab_size": 47,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LIMIT,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ROBERTA = BERT | {"max_position_embeddings": LIMIT + 2, "type_vocab_size": 1, "pad_token_id": 1}
LABELS = {"id2label": {0: "bad", 1: "so-so", 2: "good"}}

# Language models: recorded with their gradients and parts, and those of decoders while training.
MODELS: dict[str, tuple[str, dict]] = {
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama_slowed": ("LlamaForCausalLM", LLAMA | {"rope_parameters": SLOWED}),
    "mistral": ("MistralForCausalLM", LLAMA | {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", QWEN),
    "qwen3": ("Qwen3ForCausalLM", QWEN),
    "bert": ("BertForPreTraining", BERT),
    "roberta": ("RobertaForMaskedLM", ROBERTA),
}
# Other heads: recorded with what they answer.
HEADS: dict[str, tuple[str, dict]] = {
    name: (name, {"pad_token_id": 0} | config | (LABELS if "Class" in name else {}))
    for name, config in (
        ("GPT2ForSequenceClassification", GPT2),
        ("GPT2ForTokenClassification", GPT2),
        ("GPT2ForQuestionAnswering", GPT2),
        ("LlamaForSequenceClassification", LLAMA),
        ("LlamaForTokenClassification", LLAMA),
        ("LlamaModel", LLAMA),
        ("BertForMaskedLM", BERT),
        ("BertForSequenceClassification", BERT),
        ("BertForTokenClassification", BERT),
        ("BertForQuestionAnswering", BERT),
        ("BertModel", BERT),
        ("RobertaForSequenceClassification", ROBERTA),
        ("RobertaForTokenClassification", ROBERTA),
        ("RobertaForQuestionAnswering", ROBERTA),
        ("RobertaModel", ROBERTA),
    )
}


def reference_model(name: str, seed: int = 0, **overrides: object) -> Model:
    """A tiny model whose every weight matters, biases and norm scales too."""
    kind, settings = (MODELS | HEADS)[name]
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**(settings | overrides), architectures=[kind])
    config._attn_implementation = "eager"
    model = model_class(config).eval()
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
    if model.config.model_type == "roberta":
        inputs["position_ids"] = inputs["position_ids"] + 2  # theirs count past the padding id
    if not model.config.model_type.endswith("bert") and model.config.model_type != "roberta":
        inputs["use_cache"] = False  # pyright: ignore[reportArgumentType]
    out = model(**inputs)
    return [v for name, v in out.items() if name.endswith(("logits", "last_hidden_state"))]


def mean_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    return (losses * weights.flatten()).sum() / weights.sum()


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
    for name in MODELS | HEADS:
        path = FOLDER / f"{name}.npz"
        np.savez_compressed(path, **record(name))  # pyright: ignore[reportArgumentType]
        print(f"{path} {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
