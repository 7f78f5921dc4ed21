"""Train and decode encoder-decoders beside PyTorch, transformers and CTranslate2.

python scripts/bench_seq2seq.py [train] [decode] [--rounds N] [--steps N]   (the parity extra;
ctranslate2 where it is installed). Both sides take turns; the ratio is that of each turn's times.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import torch
import transformers

import jaxlm
from jaxlm.config import ModelConfig, OptimConfig
from jaxlm.generation import beam_search
from jaxlm.models import make_model
from jaxlm.runtime import keep_freed_memory
from jaxlm.tasks.teacher_forcing import TeacherForcing
from jaxlm.training.optimizers import make_optimizer
from jaxlm.training.programs import cpu_options
from jaxlm.training.state import init_state, train_step

BATCH, LENGTH, V, PAIRS = 32, 32, 4000, 64  # batches of pairs
TRAINED = ModelConfig(
    architecture="encoder_decoder",
    vocab_size=V,
    d_model=256,
    num_layers=3,
    num_heads=8,
    d_ff=1024,
    max_seq_len=LENGTH,
    positions="sinusoidal",
    norm_position="post",
    final_norm=True,  # as torch.nn.Transformer has it
    activation="relu",
    scale_embeddings=True,
    decoder_start_id=1,
)
# Marian's base: the shape of most published translation models.
MARIAN = {
    "vocab_size": 58101,
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "max_position_embeddings": 512,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 58100,
    "decoder_start_token_id": 58100,
    "bad_words_ids": [[58100]],
}
SOURCE, NEW, BEAMS = 24, 32, 4


class TorchModel(torch.nn.Module):
    """torch.nn.Transformer between embeddings and a head of the same table."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.d_model
        self.embed = torch.nn.Embedding(V, width)
        self.transformer = torch.nn.Transformer(
            width,
            config.num_heads,
            config.num_layers,
            config.num_layers,
            config.d_ff or 4 * width,
            dropout=0.0,
            batch_first=True,
        )
        angles = torch.arange(LENGTH)[:, None] * 1e4 ** (-torch.arange(0, width, 2) / width)
        self.positions = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        self.causal = torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        scale = self.embed.embedding_dim**0.5
        sides = (self.embed(ids) * scale + self.positions for ids in (source, target))
        hidden = self.transformer(*sides, tgt_mask=self.causal, tgt_is_causal=True)
        return hidden @ self.embed.weight.T


def training(steps: int) -> dict[str, Callable[[], None]]:
    """So many steps of AdamW by each side, on the same pairs; jaxlm's as `train.py` takes them."""
    random = np.random.default_rng(0)
    # Sources, what the decoder reads, and targets that follow from neither: once learned by heart,
    # gradients would be subnormal numbers, on which PyTorch takes up to five times as long.
    pairs = random.integers(2, V, (PAIRS, 3, BATCH, LENGTH))
    theirs = TorchModel(TRAINED)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), 1e-3)
    their_pairs = cycle(torch.tensor(pairs))

    def torch_steps() -> None:
        for source, read, target in islice(their_pairs, steps):
            their_optimizer.zero_grad()
            logits = theirs(source, read).flatten(0, 1)
            torch.nn.functional.cross_entropy(logits, target.flatten()).backward()
            their_optimizer.step()

    optim = OptimConfig(learning_rate=1e-3, schedule="constant", weight_decay=1e-2, clip_norm=None)
    optimizer, ids = make_optimizer(optim, 1000), pairs.astype(np.int32)
    ones, weights = np.ones_like(ids[0, 0]), np.ones(ids[0, 0].shape, np.float32)
    names = ("source_ids", "target_ids", "targets", "source_mask", "weights")
    batches = cycle([dict(zip(names, (*arrays, ones, weights), strict=True)) for arrays in ids])
    ours, objective = make_model(TRAINED), TeacherForcing()
    init = jax.jit(lambda key: init_state(ours, optimizer, objective, key))
    states = [init(jax.random.key(0))]
    update = jax.jit(train_step, donate_argnums=0, compiler_options=cpu_options())

    def jax_steps() -> None:
        for batch in islice(batches, steps):
            states[0], _ = update(states[0], batch)
        jax.block_until_ready(states)

    return {"torch.nn.Transformer": torch_steps, "jaxlm": jax_steps}


def decoding(folder: Path, layers: int, sentences: int) -> dict[str, Callable[[], None]]:
    """Beams of the same sentences by each side, all of the same length."""
    sizes: dict[str, Any] = {"encoder_layers": layers, "decoder_layers": layers}
    torch.manual_seed(0)
    model: Any = transformers.MarianMTModel(transformers.MarianConfig(**MARIAN | sizes)).eval()
    model.save_pretrained(folder)
    loaded: Any = jaxlm.load(folder)
    rows = np.random.default_rng(0).integers(1, 58000, (sentences, SOURCE))
    ids = torch.tensor(rows)

    def theirs() -> None:
        options = {"num_beams": BEAMS, "max_new_tokens": NEW, "min_new_tokens": NEW}
        model.generate(ids, **options, eos_token_id=None, forced_eos_token_id=None)

    def ours() -> None:
        beam_search(
            loaded.model, loaded.params, rows.tolist(), NEW, BEAMS, banned_tokens=[0, 58100]
        )

    found = {"transformers": theirs, "jaxlm": ours}
    try:
        import ctranslate2  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("ctranslate2 is not installed: left out")
        return found
    names = [f"t{i}" for i in range(MARIAN["vocab_size"])]
    names[0], names[-2], names[-1] = "</s>", "<unk>", "<pad>"
    converter = ctranslate2.converters.TransformersConverter(str(folder))
    ids_of_names = {name: i for i, name in enumerate(names)}
    tokenizer = SimpleNamespace(eos_token="</s>", unk_token="<unk>", get_vocab=lambda: ids_of_names)
    converter.load_tokenizer = lambda *_, **__: tokenizer
    converter.convert(str(folder / "ct2"), force=True)
    translator = ctranslate2.Translator(str(folder / "ct2"), compute_type="float32")
    batch = [[names[i] for i in row] for row in rows]

    def ct2() -> None:
        translator.translate_batch(
            batch, beam_size=BEAMS, min_decoding_length=NEW, max_decoding_length=NEW
        )

    return {"ctranslate2": ct2, **found}


def compare(title: str, sides: dict[str, Callable[[], None]], rounds: int) -> None:
    """The median seconds of each side, and of the others' times over those of jaxlm."""
    for run in sides.values():
        run()  # compiles
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    print(title)
    for name, taken in times.items():
        ratios = [other / own for other, own in zip(taken, times["jaxlm"], strict=True)]
        print(
            f"  {name:22} {statistics.median(taken):8.3f} s, {statistics.median(ratios):.2f} times "
            f"jaxlm's time ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="train, decode; default: both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="of training in a round")
    parser.add_argument("--layers", type=int, default=6, help="of the model that decodes")
    parser.add_argument("--sentences", type=int, nargs="+", default=[1, 8], help="decoded at once")
    args = parser.parse_args()
    keep_freed_memory()  # as `train.py` does; PyTorch, in the same process, gains from it too
    if not args.parts or "train" in args.parts:
        title = f"{args.steps} training steps, 256 wide, 3 + 3 layers, {BATCH} x {LENGTH} tokens"
        compare(title, training(args.steps), args.rounds)
    if not args.parts or "decode" in args.parts:
        for count in args.sentences:
            with tempfile.TemporaryDirectory() as folder:
                title = f"{NEW} tokens of {count} sentences with {BEAMS} beams, Marian's base"
                compare(title, decoding(Path(folder), args.layers, count), args.rounds)


if __name__ == "__main__":
    main()
