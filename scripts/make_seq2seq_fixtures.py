"""Record what tiny encoder-decoders compute and generate, for tests without torch.

python -m scripts.make_seq2seq_fixtures [NAME ...]   (parity extra; writes tests/fixtures/)
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

FOLDER = Path(__file__).parent.parent / "tests" / "fixtures"
V, S, T, NEW = 37, 7, 5, 14
LENGTHS = (7, 4, 6)  # of the sources
CLEAR = 1e-3  # the two best logits differ by more, or another order of summation may swap them
VARIETY = 6  # different tokens in the targets
MARIAN = {
    "vocab_size": V,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 36,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 40,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": V - 1,
    "decoder_start_token_id": V - 1,
    "eos_token_id": 0,
    "bos_token_id": None,
    "dropout": 0.0,
}
APART = {"share_encoder_decoder_embeddings": False, "vocab_size": 41, "decoder_vocab_size": V}
BART = {
    **{name: MARIAN[name] for name in MARIAN if not name.endswith("_token_id")},
    "activation_function": "gelu",
    "scale_embedding": False,
}
T5 = {
    "vocab_size": V,
    "d_model": 24,
    "d_kv": 10,
    "d_ff": 36,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
# By the name of the fixture.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "marian": ("MarianMTModel", MARIAN),
    "marian_apart": ("MarianMTModel", MARIAN | APART),
    "marian_untied": ("MarianMTModel", MARIAN | APART | {"tie_word_embeddings": False}),
    "bart": ("BartForConditionalGeneration", BART),
    "t5": ("T5ForConditionalGeneration", T5),
    "t5_gated": (
        "T5ForConditionalGeneration",
        T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
}
# Where the search for a clear one begins, not to look at the same hundreds each time.
SEEDS = {"marian": 230, "marian_apart": 8, "marian_untied": 0, "bart": 50, "t5": 5, "t5_gated": 0}
# torch.nn.Transformer: norm_first and activation.
TRANSFORMERS = {
    f"transformer_{place}_{activation}": {"norm_first": place == "pre", "activation": activation}
    for place in ("post", "pre")
    for activation in ("relu", "gelu")
}


def seq2seq_model(name: str, seed: int = 0) -> Any:
    """A tiny model of transformers whose every weight matters."""
    kind, settings = MODELS[name]
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**settings, architectures=[kind])
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    # A tied head tends to repeat the token that was read, unless the blocks say more.
    gain = 3.0 if settings.get("tie_word_embeddings", True) else 1.5
    generator = torch.Generator().manual_seed(seed)
    for path, weight in model.named_parameters():
        if path.endswith("embed_positions.weight") and name.startswith("marian"):
            continue  # sinusoids
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim < 2:
            value = 0.1 * noise + (not path.endswith("bias"))
        else:
            tokens = "shared" in path or "embed_tokens" in path
            value = noise * (0.15 if tokens else gain * weight.shape[-1] ** -0.5)
        weight.data = value.half().float()  # half precision halves the file
    if hasattr(model, "final_logits_bias"):
        bias = 0.2 * torch.randn(1, V, generator=generator)
        model.final_logits_bias.copy_(bias.half().float())
    return model


def record_model(name: str) -> dict[str, np.ndarray]:
    """Logits, greedy targets and those of 4 beams of ragged sources, of the first clear seed."""
    for seed in range(SEEDS[name], 1000):
        model = seq2seq_model(name, seed)
        generator = torch.Generator().manual_seed(seed)
        sources = torch.randint(3, V - 2, (len(LENGTHS), S), generator=generator)
        targets = torch.randint(3, V - 2, (len(LENGTHS), T), generator=generator)
        targets[:, 0] = model.generation_config.decoder_start_token_id
        mask = (torch.arange(S) < torch.tensor(LENGTHS)[:, None]).long()
        options = {
            "input_ids": sources,
            "attention_mask": mask,
            "max_new_tokens": NEW,
            "do_sample": False,
            "return_dict_in_generate": True,
        }
        greedy = model.generate(**options, output_logits=True)
        best = torch.stack(greedy.logits).topk(2).values
        varied = len(set(greedy.sequences.flatten().tolist())) >= VARIETY
        if varied and float((best[..., 0] - best[..., 1]).min()) > CLEAR:
            break
    else:
        raise SystemExit(f"no seed makes a clear {name}")
    beams = model.generate(**options, num_beams=4, num_return_sequences=4, output_scores=True)
    with torch.no_grad():
        logits = model(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
    print(name, "seed", seed, greedy.sequences[0].tolist())
    generation = model.generation_config.to_diff_dict()
    arrays: dict[str, Any] = {
        "config": json.dumps(model.config.to_dict()),
        "generation_config": json.dumps(generation),
        "sources": sources,
        "lengths": np.array(LENGTHS),
        "targets": targets,
        "logits": logits,
        "greedy": greedy.sequences[:, 1:],
        "beams": beams.sequences[:, 1:].reshape(len(LENGTHS), 4, -1),
        "scores": beams.sequences_scores.reshape(len(LENGTHS), 4),
    }
    arrays |= {f"weights/{path}": x.detach() for path, x in model.state_dict().items()}
    return {path: np.asarray(x) for path, x in arrays.items()}


def record_transformer(name: str) -> dict[str, np.ndarray]:
    """Output and gradients of torch.nn.Transformer under ragged masks of source and target."""
    model = torch.nn.Transformer(
        d_model=24,
        nhead=4,
        num_encoder_layers=3,
        num_decoder_layers=2,
        dim_feedforward=36,
        dropout=0.0,
        layer_norm_eps=1e-3,
        batch_first=True,
        **TRANSFORMERS[name],
    )
    generator = torch.Generator().manual_seed(0)
    for path, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 2:
            weight.data = noise * weight.shape[-1] ** -0.5
        else:
            weight.data = 0.3 * noise + (0.0 if path.endswith("bias") else 1.0)
    source = torch.randn(3, S, 24, generator=generator, requires_grad=True)
    target = torch.randn(3, T, 24, generator=generator, requires_grad=True)
    source_mask = torch.arange(S) < torch.tensor(LENGTHS)[:, None]
    target_mask = torch.arange(T) < torch.tensor([5, 3, 4])[:, None]
    output = model(
        source,
        target,
        tgt_mask=torch.triu(torch.ones(T, T, dtype=torch.bool), 1),
        src_key_padding_mask=~source_mask,
        tgt_key_padding_mask=~target_mask,
        memory_key_padding_mask=~source_mask,
    )
    weights = torch.randn(output.shape, generator=generator) * target_mask[:, :, None]
    (output * weights).sum().backward()
    arrays: dict[str, Any] = {
        "source": source,
        "target": target,
        "source_mask": source_mask,
        "target_mask": target_mask,
        "output": output,
        "loss_weights": weights,
        "gradients/source": source.grad,
        "gradients/target": target.grad,
    }
    for path, weight in model.named_parameters():
        arrays |= {f"weights/{path}": weight, f"gradients/{path}": weight.grad}
    return {path: x.detach().numpy() for path, x in arrays.items()}


def record(name: str) -> dict[str, np.ndarray]:
    return record_transformer(name) if name in TRANSFORMERS else record_model(name)


def main() -> None:
    torch.set_num_threads(1)  # several would wait for one another at these sizes
    for name in sys.argv[1:] or [*MODELS, *TRANSFORMERS]:
        arrays = record(name)
        if name in MODELS:
            arrays = {
                path: x.astype(np.float16) if path.startswith("weights/") else x
                for path, x in arrays.items()
            }
        path = FOLDER / f"seq2seq_{name}.npz"
        np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
        print(f"{path} {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
