"""Tiny models of transformers with every weight at work, and how PyTorch trains them."""

from typing import Any

import numpy as np
import torch
import transformers

Model = Any  # torch does not type the attributes of a module

LIMIT = 17  # positions
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
DISTILBERT = {
    "vocab_size": 43,
    "dim": 24,
    "hidden_dim": 36,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": LIMIT,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "qa_dropout": 0.0,
    "seq_classif_dropout": 0.0,
}
LABELS = {"id2label": {0: "bad", 1: "so-so", 2: "good"}}

# Encoders whose positions are counted from the row after the padding id.
COUNTING_FROM_PAD = ("roberta", "xlm-roberta", "camembert")

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
ENCODER_HEADS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "Model",
)
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
        *((f"XLMRoberta{head}", ROBERTA) for head in ENCODER_HEADS),
        *((f"Camembert{head}", ROBERTA) for head in ENCODER_HEADS),
        *((f"DistilBert{head}", DISTILBERT) for head in ENCODER_HEADS),
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


def mean_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    return (losses * weights.flatten()).sum() / weights.sum()


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


def config_facts(theirs: dict[str, Any], family: str) -> dict[str, Any]:
    """What a config.json means to transformers, by our names; of labels their names alone."""
    config: Any = transformers.CONFIG_MAPPING[family].from_dict(theirs)
    text = config.to_dict()
    d_model, num_heads = config.hidden_size, config.num_attention_heads
    inner = text.get("intermediate_size") or text.get("n_inner") or text.get("hidden_dim")
    offset = config.pad_token_id + 1 if family in COUNTING_FROM_PAD else 0
    facts = {
        "vocab_size": config.vocab_size,
        "d_model": d_model,
        "num_layers": config.num_hidden_layers,
        "num_heads": num_heads,
        "num_kv_heads": text.get("num_key_value_heads") or num_heads,
        "head_dim": text.get("head_dim") or d_model // num_heads,
        "d_ff": inner or 4 * d_model,
        "max_seq_len": config.max_position_embeddings - offset,
        "position_offset": offset,
        "num_token_types": text.get("type_vocab_size", 0),
        "tie_embeddings": config.tie_word_embeddings,
    }
    names = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
    facts["norm_eps"] = next((text[name] for name in names if name in text), 1e-12)
    if rope := text.get("rope_parameters"):
        facts |= {"rope_theta": rope["rope_theta"], "rope_factor": rope.get("factor", 1.0)}
        facts["rope_scaling"] = rope["rope_type"].replace("default", "none")
        if original := rope.get("original_max_position_embeddings"):
            facts["rope_original_len"] = original
    if "Classification" in str(theirs.get("architectures")):
        facts["labels"] = [str(config.id2label[i]) for i in range(config.num_labels)]
    return facts
