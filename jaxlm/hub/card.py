"""The README.md that travels with an exported model."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxlm.artifact import Loaded

CARD = """---
library_name: transformers
tags:
- jaxlm
---

# {name}

A {model_class} with {num_params:,} parameters, written by jaxlm.

| | |
|---|---|
{rows}

```python
from transformers import AutoTokenizer, {model_class}

tokenizer = AutoTokenizer.from_pretrained(".")
model = {model_class}.from_pretrained(".")
```
"""
SHOWN = ("d_model", "num_layers", "num_heads", "num_kv_heads", "d_ff", "vocab_size", "max_seq_len")


def model_card(loaded: Loaded, theirs: Mapping[str, Any]) -> str:
    """The card of a model: sizes, what it was trained on by its fingerprint, and how well."""
    origin, config = loaded.origin, loaded.config
    facts = {name: getattr(config, name) for name in SHOWN}
    facts |= {"dtype": theirs["dtype"]}
    known = {"source": "source", "step": "step", "val_loss": "val loss (nats per token)"}
    known |= {"data": "fingerprint of data and tokenizer"}
    facts |= {text: origin[name] for name, text in known.items() if origin.get(name) is not None}
    return CARD.format(
        name=origin.get("source", "A model of jaxlm"),
        model_class=theirs["architectures"][0],
        num_params=sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
        rows="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
    )
