"""The proof of a conversion: what was carried over, and how far the reference's logits are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.hub.remote import download

ROWS, LENGTH = 2, 16  # of the ids that both sides are compared on
OUTPUTS = "logits", "last_hidden_state"  # their names of what our models return


class ProofError(JaxlmError):
    """A comparison that cannot be made."""


def local_copy(source: str, revision: str | None) -> Path:
    """The directory of a model: the source itself, or what the hub has under this id."""
    path = Path(source)
    return path if path.exists() else download(source, revision)


def prove(loaded: Loaded, reference: Path | None) -> dict[str, Any]:
    """Facts about a conversion, to be shown or kept.

    A checksum of the params and, with a `reference` directory, the largest difference from the
    logits that transformers computes there, in fp32.
    """
    leaves = jax.tree_util.tree_leaves_with_path(loaded.params)
    proof = {
        "model": type(loaded.model).__name__,
        "parameters": sum(leaf.size for _, leaf in leaves),
        "dtype": loaded.origin.get("dtype", "float32"),
    }
    if reference is not None:
        proof["largest logits difference"] = f"{logits_difference(loaded, reference):.1e}"
    digest = hashlib.sha256()
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).data)
    return proof | {"sha256 of the params": digest.hexdigest()[:16]}


def logits_difference(loaded: Loaded, reference: Path) -> float:
    """The largest difference of any output from the reference's, on the same random ids."""
    try:
        import torch
        import transformers
    except ImportError:
        raise ProofError(
            'comparing takes torch and transformers: pip install "jaxlm[parity]", or leave '
            "--verify out"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = loaded.config
    length = min(LENGTH, config.max_seq_len)
    names = json.loads((reference / "config.json").read_text(encoding="utf-8"))
    kind = getattr(transformers, (names.get("architectures") or ["AutoModel"])[0])
    theirs = kind.from_pretrained(reference, dtype=torch.float32).eval()
    # Their decoders find a row's last token by the padding id, ours by the mask.
    pad = theirs.config.pad_token_id = theirs.config.pad_token_id or 0
    ids = np.random.default_rng(0).integers(config.vocab_size, size=(ROWS, length))
    ids[ids == pad] = (pad + 1) % config.vocab_size
    mask = np.ones_like(ids)
    mask[1, length // 2 :] = 0
    ids[mask == 0] = pad
    with torch.no_grad():
        out = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    expected = [value.numpy() for name, value in out.items() if name.endswith(OUTPUTS)]
    apply: Any = jax.jit(loaded.model.apply)
    inputs = jnp.asarray(ids, jnp.int32)
    found = apply({"params": loaded.params}, inputs, attention_mask=jnp.asarray(mask))
    difference = 0.0
    for ours, their in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        apart = np.abs(np.asarray(ours) - their)
        # What is computed at padding is nobody's.
        real = mask.astype(bool) if apart.shape[:2] == mask.shape else slice(None)
        difference = max(difference, float(apart[real].max()))
    return difference
