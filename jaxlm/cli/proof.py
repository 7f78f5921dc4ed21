"""The proof that a model written in another format is the same: `--verify` of import and export."""

import argparse
import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.output import show
from jaxlm.config import JaxlmError

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded

ROWS, LENGTH = 2, 16  # of the ids on which the logits are compared
MOST_APART = 1e-3  # of the largest of transformers' outputs, for another order of the same sums
OUTPUTS = "logits", "last_hidden_state"  # transformers' names of what our models return
SAMPLE_TOKENS = 16


class ProofError(JaxlmError):
    """A comparison that cannot be made."""


def declare_proof(parser: argparse.ArgumentParser) -> None:
    verify = "compare the logits with those of transformers, which must be installed"
    parser.add_argument("--verify", action="store_true", help=verify)
    parser.add_argument("--json", action="store_true", help="the proof as one JSON object")


def check_provable(args: argparse.Namespace) -> None:
    """Raise ProofError, before anything is written, where what `--verify` needs is missing."""
    if args.verify and not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        raise ProofError(
            '--verify needs torch and transformers: pip install "jaxlm[parity]", or leave '
            "--verify out"
        )


def show_proof(
    args: argparse.Namespace, converted: "Loaded", reference: Path, proven: "Loaded"
) -> None:
    """Print size and checksum of a converted model, a sample of its text and, with `--verify`, how
    far the logits of `proven` are from those of the Hugging Face directory `reference`.

    Raises: ProofError where they are not the same.
    """
    import jax
    import numpy as np

    leaves = jax.tree_util.tree_leaves_with_path(converted.params)
    proof = {
        "model": type(converted.model).__name__,
        "parameters": sum(leaf.size for _, leaf in leaves),
        "dtype": converted.origin.get("dtype", "float32"),
    }
    if args.verify:
        apart, largest = compare_logits(proven, reference)
        if not apart <= MOST_APART * max(1.0, largest):
            raise ProofError(
                f"{args.target} is not the model in {args.source}: on {ROWS} rows of random ids "
                f"the outputs of jaxlm and of transformers, which reach {largest:.3g}, are up to "
                f"{apart:.1e} apart"
            )
        proof["largest logits difference"] = f"{apart:.1e}"
    digest = hashlib.sha256()
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).data)
    proof["sha256 of the params"] = digest.hexdigest()[:16]
    show(args, f"{args.source} -> {args.target}", proof | greedy_sample(converted))


def greedy_sample(loaded: "Loaded") -> dict[str, str]:
    """A few greedy tokens of a language model, which show errors such as a wrong head count."""
    from jaxlm.generation import GenerationError, generate
    from jaxlm.models import CausalLM
    from jaxlm.tokenizer import AbsentTokenizer

    tokenizer = loaded.tokenizer
    if isinstance(tokenizer, AbsentTokenizer) or not isinstance(loaded.model, CausalLM):
        return {}
    try:
        text = generate(loaded, [""], max_new_tokens=SAMPLE_TOKENS, temperature=0)[0]
    except GenerationError:  # no token in the vocabulary starts a text
        first = tokenizer.decode([0])
        text = first + generate(loaded, [first], max_new_tokens=SAMPLE_TOKENS, temperature=0)[0]
    return {"greedy": json.dumps(text, ensure_ascii=False)}


def compare_logits(loaded: "Loaded", reference: Path) -> tuple[float, float]:
    """The largest difference of any output from that of transformers, and the largest of theirs.

    Both compute in fp32, on random ids.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    import transformers

    from jaxlm.models import make_model
    from jaxlm.models.heads import SequenceClassifier

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = loaded.config
    names = json.loads((reference / "config.json").read_text(encoding="utf-8"))
    kind = getattr(transformers, (names.get("architectures") or ["AutoModel"])[0])
    theirs = kind.from_pretrained(reference, dtype=torch.float32).eval()
    # transformers finds the last token of a row by the padding id, jaxlm by the mask. Without a
    # padding id, transformers classifies one row at a time.
    pad = theirs.config.pad_token_id
    classifies = config.architecture == "decoder" and isinstance(loaded.model, SequenceClassifier)
    rows = 1 if pad is None and classifies else ROWS
    pad, random = pad or 0, np.random.default_rng(0)
    shape = rows, min(LENGTH, config.max_seq_len)
    ids = random.integers(config.source_vocab_size or config.vocab_size, size=shape)
    ids[ids == pad] = (pad + 1) % config.vocab_size
    mask = np.ones(shape, bool)
    mask[1:, shape[1] // 2 :] = False
    ids[~mask] = pad
    asked = {"input_ids": ids, "attention_mask": mask.astype(int)}
    inputs, masks, real = [ids], {"attention_mask": mask}, mask
    if config.architecture == "encoder_decoder":
        asked["decoder_input_ids"] = random.integers(config.vocab_size, size=shape)
        inputs.append(asked["decoder_input_ids"])
        masks, real = {"source_mask": mask}, np.ones(shape, bool)
    with torch.no_grad():
        out = theirs(**{name: torch.tensor(value) for name, value in asked.items()})
    out = {name: value for name, value in out.items() if not name.startswith("encoder_")}
    expected = [value.numpy() for name, value in out.items() if name.endswith(OUTPUTS)]
    model = make_model(dataclasses.replace(config, compute_dtype="float32"))
    apply: Any = jax.jit(model.apply)
    with jax.default_matmul_precision("highest"):
        found = apply({"params": loaded.params}, *map(jnp.asarray, inputs), **masks)
    difference = largest = 0.0
    for ours, their in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        apart = np.abs(np.asarray(ours) - their)
        # Outputs at padding are undefined; outputs with one vector a row have no padding.
        where = real if apart.shape[:2] == real.shape else slice(None)
        difference = float(np.maximum(difference, apart[where].max()))  # NaN stays
        largest = max(largest, float(np.abs(their[where]).max()))
    return difference, largest
