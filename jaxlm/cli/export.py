"""`jaxlm export`: write a run as a Hugging Face directory, or its adapters, and verify it."""

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.output import Verb, check_output, declare_overwrite, show
from jaxlm.config import JaxlmError


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory or a checkpoint")
    add("target", metavar="DEST", help="the Hugging Face directory to write")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the source's")
    trained = (
        "write only the parameters that the run trained, such as adapters, to DEST.safetensors"
    )
    add("--adapters", action="store_true", help=trained)
    peft = "write the adapters in PEFT's layout, to the directory DEST"
    add("--peft", action="store_true", help=peft)
    base = "the model that a run with frozen weights started from; default: where it was"
    add("--base", metavar="PATH", help=base)
    add("--step", type=int, metavar="N", help="checkpoint to export; default: the best")
    declare_overwrite(parser, "--adapters")
    declare_proof(parser)


def run(args: argparse.Namespace) -> None:
    from jaxlm.loading import export, load

    if args.adapters or args.peft:
        export_own_weights(args)
        return
    loaded, written = load(args.source, args.step, base=args.base), Path(args.target)
    export(loaded, written, args.dtype)
    read = load(written)  # what is shown includes rounding to a smaller type
    show_proof(args, read, written, read if args.dtype else loaded)


def export_own_weights(args: argparse.Namespace) -> None:
    from jaxlm.own_weights import export_adapters, write_trained

    wrong = {"--base": args.base, "--dtype": args.dtype, "--verify": args.verify}
    for option in (name for name, given in wrong.items() if given):
        raise JaxlmError(f"{option} is for a model that is written whole: leave it out")
    if args.adapters and args.peft:
        raise JaxlmError("--adapters writes one file and --peft a directory: give one of them")
    if args.peft:
        export_adapters(args.source, args.target, args.step)
        print(f"{args.target}: adapters in PEFT's layout; jaxlm.load and PEFT open them")
        return
    file = Path(args.target)
    if file.suffix != ".safetensors":
        file = file.with_name(f"{file.name}.safetensors")
    check_output(file, args.overwrite)
    write_trained(args.source, file, args.step)
    print(f"{file}: {file.stat().st_size:,} bytes; jaxlm.load(BASE, trained=...) puts it on")


EXPORT = Verb("a run as a directory that transformers loads", declare, run)


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


def show_proof(
    args: argparse.Namespace, loaded: "Loaded", reference: Path, proven: "Loaded | None" = None
) -> None:
    """Print size and checksum of a converted model, a sample of its text and, with `--verify`, how
    far its logits, or those of `proven`, are from those of the Hugging Face directory `reference`.

    Raises: ProofError where they are not the same.
    """
    import jax
    import numpy as np

    leaves = jax.tree_util.tree_leaves_with_path(loaded.params)
    proof = {
        "model": type(loaded.model).__name__,
        "parameters": sum(leaf.size for _, leaf in leaves),
        "dtype": loaded.origin.get("dtype", "float32"),
    }
    if args.verify:
        apart, largest = compare_logits(proven or loaded, reference)
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
    show(args, f"{args.source} -> {args.target}", proof | greedy_sample(loaded))


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


def logits_difference(loaded: "Loaded", reference: Path) -> float:
    """The largest difference of any output from that of transformers, in fp32 on random ids."""
    return compare_logits(loaded, reference)[0]


def compare_logits(loaded: "Loaded", reference: Path) -> tuple[float, float]:
    """The largest difference of any output from that of transformers, and the largest of theirs.

    Both compute in fp32, on random ids.

    Raises: ProofError where torch or transformers is missing.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxlm.models import make_model
    from jaxlm.models.heads import SequenceClassifier

    try:
        import torch
        import transformers
    except ImportError:
        raise ProofError(
            '--verify needs torch and transformers: pip install "jaxlm[parity]", or leave '
            "--verify out"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = loaded.config
    length = min(LENGTH, config.max_seq_len)
    names = json.loads((reference / "config.json").read_text(encoding="utf-8"))
    kind = getattr(transformers, (names.get("architectures") or ["AutoModel"])[0])
    theirs = kind.from_pretrained(reference, dtype=torch.float32).eval()
    # transformers finds the last token of a row by the padding id, jaxlm by the mask. Without a
    # padding id, transformers classifies one row at a time.
    pad = theirs.config.pad_token_id
    classifies = config.architecture == "decoder" and isinstance(loaded.model, SequenceClassifier)
    rows = 1 if pad is None and classifies else ROWS
    pad = pad or 0
    ids = np.random.default_rng(0).integers(config.vocab_size, size=(rows, length))
    ids[ids == pad] = (pad + 1) % config.vocab_size
    mask = np.ones_like(ids)
    mask[1:, length // 2 :] = 0
    ids[mask == 0] = pad
    with torch.no_grad():
        out = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    expected = [value.numpy() for name, value in out.items() if name.endswith(OUTPUTS)]
    model = make_model(dataclasses.replace(config, compute_dtype="float32"))
    apply: Any = jax.jit(model.apply)
    inputs = jnp.asarray(ids, jnp.int32)
    with jax.default_matmul_precision("highest"):
        found = apply({"params": loaded.params}, inputs, attention_mask=jnp.asarray(mask))
    difference = largest = 0.0
    for ours, their in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        apart = np.abs(np.asarray(ours) - their)
        # Outputs at padding are undefined; outputs with one vector a row have no padding.
        real = mask.astype(bool) if apart.shape[:2] == mask.shape else slice(None)
        difference = float(np.maximum(difference, apart[real].max()))  # NaN stays
        largest = max(largest, float(np.abs(their[real]).max()))
    return difference, largest
