"""Generation tokens/s of jaxlm beside transformers and CTranslate2, alternated in one run.

    pip install -e ".[parity]" ctranslate2   (the last is left out where it is not installed)
    python -m scripts.bench_decode [--shape gpt2] [--rounds 5] [--batch 1 8] [--json]

All three continue the same 32-token prompts by 64 greedy tokens with the same random weights of
GPT-2 124M, or of SmolLM2 135M's shape (`--shape smollm2`), in fp32; beside them jaxlm with its
weights in int8. Each round times each once, so that a change in the machine's speed meets all;
figures are medians of the rounds. The share of the memory bandwidth is that of reading all weights
once a step, beside the speed at which the same program sums as large an array. Compiling is what
the first call of jaxlm takes more than the later ones, with nothing cached.

Then, for GPT-2, prompt lookup, on and off: on a text that is an edit of its prompt (the model's
head maps each token to a successor; the prompt has every twelfth token wrong), and on three that
repeat nothing: a greedy one, a sampled one, and one of a small model that samples from 64 tokens,
each of which has occurred before.
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import torch
import transformers

from jaxlm.artifact import Loaded
from jaxlm.config import ModelConfig
from jaxlm.generation import Lookup, generate_tokens, quantized
from jaxlm.hub import config_from_reference, import_tensors
from jaxlm.hub.configs import FAMILIES
from jaxlm.models import CausalLM, make_model
from jaxlm.tokenizer import AbsentTokenizer

PROMPT, NEW = 32, 64
Run = Callable[[], Any]

# Of SmolLM2 135M, as its config.json has it.
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def reference(shape: str) -> Any:
    """A model of transformers with random weights, none of whose tokens ends a text."""
    torch.manual_seed(0)
    endless: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    if shape == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**endless)).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMOLLM2, **endless)).eval()


def ours(model: Any) -> tuple[CausalLM, Any]:
    config = config_from_reference(model.config.to_dict())
    tensors = {name: x.detach().numpy() for name, x in model.state_dict().items()}
    return make_model(config), import_tensors(tensors, config, FAMILIES[model.config.model_type])


def converted(model: Any, folder: str) -> Any:
    """The model in CTranslate2, whose converter wants a tokenizer beside it."""
    import ctranslate2  # pyright: ignore[reportMissingImports]

    size = model.config.vocab_size
    words = tokenizers.models.WordLevel({f"t{i}": i for i in range(size)}, unk_token="t0")
    backend = tokenizers.Tokenizer(words)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="t0", eos_token="t0", unk_token="t0"
    )
    model.save_pretrained(f"{folder}/theirs")
    fast.save_pretrained(f"{folder}/theirs")
    converter = ctranslate2.converters.TransformersConverter(f"{folder}/theirs")
    converter.convert(f"{folder}/converted")
    threads = torch.get_num_threads()
    return ctranslate2.Generator(f"{folder}/converted", intra_threads=threads)


def peers(batch_size: int, model: Any, generator: Any) -> dict[str, Run]:
    ids = np.random.default_rng(0).integers(model.config.vocab_size, size=(batch_size, PROMPT))
    model_of_ours, params = ours(model)
    words = [[f"t{i}" for i in row] for row in ids]

    loaded = Loaded(model_of_ours, params, AbsentTokenizer("random"), model_of_ours.config)
    small = quantized(loaded).params

    def jaxlm(weights: Any = params) -> Any:
        return generate_tokens(model_of_ours, weights, ids, max_new_tokens=NEW, temperature=0.0)

    def pytorch() -> Any:
        rows = torch.from_numpy(ids)
        with torch.inference_mode():
            out = model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
            )
        return out[:, PROMPT:].numpy()

    def ctranslate2() -> Any:
        results = generator.generate_batch(
            words,
            max_length=NEW,
            min_length=NEW,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
        )
        return np.array([r.sequences_ids[0] for r in results])

    runs = {"jaxlm": jaxlm, "transformers": pytorch, "jaxlm int8": lambda: jaxlm(small)}
    return runs if generator is None else runs | {"ctranslate2": ctranslate2}


def alternate(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one that is not timed."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(seconds_of(run))
    return seconds


def seconds_of(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def ratio(seconds: dict[str, list[float]], slower: str, faster: str) -> float:
    """The median over the rounds of how many times as long one takes as the other."""
    return statistics.median(a / b for a, b in zip(seconds[slower], seconds[faster], strict=True))


def bandwidth(num_bytes: int) -> float:
    """Bytes a second at which an array of this size is read."""
    x = jnp.ones(num_bytes // 4)
    total = jax.jit(jnp.sum)
    seconds = alternate({"sum": lambda: float(total(x))}, 7)["sum"]
    return num_bytes / min(seconds)


def compare_peers(batch_size: int, rounds: int, model: Any, generator: Any) -> dict[str, Any]:
    runs = peers(batch_size, model, generator)
    fp32 = [name for name in runs if "int8" not in name]
    first = seconds_of(runs["jaxlm"])
    same = [np.array_equal(runs["jaxlm"](), runs[name]()) for name in fp32]
    seconds = alternate(runs, rounds)
    speed = {name: batch_size * NEW / statistics.median(s) for name, s in seconds.items()}
    num_bytes = 4 * sum(x.numel() for x in model.parameters())
    share = speed["jaxlm"] / batch_size * num_bytes / bandwidth(num_bytes)
    return {
        "batch": batch_size,
        **{f"{name} tokens/s": round(x, 1) for name, x in speed.items()},
        **{f"times {name}": round(ratio(seconds, name, "jaxlm"), 2) for name in fp32[1:]},
        "int8 times transformers": round(ratio(seconds, "transformers", "jaxlm int8"), 2),
        "share of bandwidth": round(share, 2),
        "compiling s": round(first - statistics.median(seconds["jaxlm"]), 1),
        "same tokens": all(same),
    }


def compare_lookup(rounds: int, model: Any) -> dict[str, Any]:
    """Prompt lookup beside plain decoding, on an edit of the prompt and on text without repeats."""
    model_of_ours, params = ours(model)
    V, period = model.config.vocab_size, 240
    generator = np.random.default_rng(0)
    text = generator.permutation(V)[:period]
    # Token vectors that outweigh what the blocks add, and a head that names each one's successor.
    backbone = params["backbone"]
    table = 30 * np.asarray(backbone["embed"]["tokens"])
    embed = backbone["embed"] | {"tokens": jnp.asarray(table)}
    successor = np.zeros_like(table)
    successor[np.roll(text, -1)] = table[text]
    untied = CausalLM(dataclasses.replace(model_of_ours.config, tie_embeddings=False))
    copying = {"backbone": backbone | {"embed": embed}, "head": jnp.asarray(successor.T.copy())}
    edited = text.copy()
    edited[::12] = generator.integers(V, size=len(edited[::12]))
    edited = np.concatenate([edited, text[:1]])[None]
    other = np.concatenate([generator.integers(V, size=PROMPT), text[:1]])[None]
    small, weights = small_model()
    cases: dict[str, tuple] = {
        "edit": (untied, copying, edited, 0.0),
        "greedy": (untied, copying, other, 0.0),
        "sampled": (model_of_ours, params, other, 1.0),
        "of 64 tokens": (small, weights, generator.integers(64, size=(1, PROMPT)), 1.0),
    }
    result = {}
    for name, (used, weights, ids, temperature) in cases.items():
        options = {"max_new_tokens": NEW * 2, "temperature": temperature}

        def run(speculation: Any, used=used, weights=weights, ids=ids, options=options) -> Any:
            return generate_tokens(used, weights, ids, speculation=speculation, **options)

        if name in ("edit", "greedy"):
            assert run(None)[0].tolist() == text[1 : 1 + NEW * 2].tolist()
        assert np.array_equal(run(None), run(Lookup()))
        seconds = alternate({"plain": lambda: run(None), "lookup": lambda: run(Lookup())}, rounds)
        result[f"lookup, {name}"] = round(ratio(seconds, "plain", "lookup"), 2)
    return result


def small_model() -> tuple[CausalLM, Any]:
    """Four layers of 256 with random weights, whose 64 tokens are about as likely as each other."""
    config = ModelConfig(
        vocab_size=64, d_model=256, num_layers=4, num_heads=4, num_kv_heads=4, max_seq_len=512
    )
    model = CausalLM(config)
    return model, model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=("gpt2", "smollm2"), default="gpt2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    model = reference(arguments.shape)
    with tempfile.TemporaryDirectory() as folder:
        can_convert = arguments.batch and importlib.util.find_spec("ctranslate2")
        generator = converted(model, folder) if can_convert else None
        for size in arguments.batch:
            show(compare_peers(size, arguments.rounds, model, generator), arguments.json)
    if arguments.shape == "gpt2":
        show(compare_lookup(arguments.rounds, model), arguments.json)


def show(row: dict[str, Any], as_json: bool) -> None:
    line = json.dumps(row) if as_json else ", ".join(f"{k}: {v}" for k, v in row.items())
    print(line, flush=True)


if __name__ == "__main__":
    main()
