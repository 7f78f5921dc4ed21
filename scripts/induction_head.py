"""Train a two-layer attention-only model on repeated sequences, and find its induction head.

python -m scripts.induction_head    (under a minute on two cores)

Each row repeats a random sequence whose length differs from row to row, so that no fixed distance
leads to the right token: a head of the first block has to look at the token before, and one of the
second at what followed the last copy of its own (Olsson et al. 2022).
"""

import argparse
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.config import ModelConfig
from jaxlm.inspection import HeadScores, ablated, forward, head_scores
from jaxlm.models import make_model
from jaxlm.ops.reductions import cross_entropy
from jaxlm.tokenizer import train_tokenizer

LETTERS = "".join(chr(0x4E00 + i) for i in range(40))
LENGTH, SHORTEST, LONGEST = 40, 6, 20  # tokens of a row, and of what it repeats
PENALTY = 0.01  # on work that heads share
CONFIG = ModelConfig(
    vocab_size=len(LETTERS),
    d_model=64,
    num_layers=2,
    num_heads=4,
    d_ff=4,
    max_seq_len=LENGTH,
    positions="rotary",
    bias=False,
)


class Found(NamedTuple):
    """An induction head, and the loss of repeated tokens with all heads and without each."""

    loaded: Loaded
    scores: HeadScores
    head: tuple[int, int]  # block and head of the highest induction score
    loss: float
    without: Float[np.ndarray, "L N"]


def batch(key: Array, rows: int) -> tuple[Array, Array]:
    """Rows of tokens, and where a token repeats one of its row."""
    first, second = jax.random.split(key)
    periods = jax.random.randint(first, (rows, 1), SHORTEST, LONGEST + 1)
    tokens = jax.random.randint(second, (rows, LONGEST), 0, len(LETTERS))
    place = jnp.arange(LENGTH)[None]
    # What follows the first period could be anything: nothing tells where it ends.
    return jnp.take_along_axis(tokens, place % periods, axis=1), place > periods


def without_feed_forward(params: Any) -> Any:
    """The params with a feed-forward that adds nothing."""
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    for path in leaves:
        if "feed_forward/down" in path:
            leaves[path] = jnp.zeros_like(leaves[path])
    return unflatten_dict(leaves, sep="/")


def repeated_loss(model: Any, params: Any, key: Array, rows: int, edit: Any = None) -> Array:
    """The mean loss in nats of the tokens that repeat."""
    ids, repeats = batch(key, rows)
    logits, _ = forward(model, params, ids, (), edit)
    losses = cross_entropy(logits[:, :-1], ids[:, 1:]) * repeats[:, 1:]
    return losses.sum() / repeats[:, 1:].sum()


def shared_work(params: Any) -> Array:
    """The squared weights of values and outputs of every head but the first, the n-th n times.

    As a penalty it keeps heads from sharing the work of one, which makes each of them dispensable.
    """
    total, N = jnp.zeros(()), CONFIG.num_heads
    for layer in range(CONFIG.num_layers):
        part = params["backbone"][f"layers_{layer}"]["attention"]
        outputs = part["output"]["kernel"].reshape(N, -1)
        values = part["value"]["kernel"].reshape(CONFIG.d_model, N, -1).swapaxes(0, 1)
        sizes = (outputs**2).sum(1) + (values**2).sum((1, 2))
        total += (jnp.arange(N) * sizes).sum()
    return total


def trained(steps: int, seed: int) -> Loaded:
    model: Any = make_model(CONFIG)
    params = model.init(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))["params"]
    params = without_feed_forward(params)
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 5e-3, 100, steps))
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, key: Array) -> tuple[Any, Any]:
        def loss(params: Any) -> Array:
            return repeated_loss(model, params, key, 32) + PENALTY * shared_work(params)

        gradients = jax.grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return without_feed_forward(optax.apply_updates(params, updates)), state

    for key in jax.random.split(jax.random.key(seed + 1), steps):
        params, state = step(params, state, key)
    return Loaded(model, params, train_tokenizer("char", [LETTERS]), model.config)


def find_induction_head(steps: int = 1200, seed: int = 0) -> Found:
    """Train, score every head, and switch each off in turn."""
    loaded = trained(steps, seed)
    key = jax.random.key(99)

    def loss(edit: Any = None) -> float:
        return float(repeated_loss(loaded.model, loaded.params, key, 64, edit))

    scores = head_scores(loaded)
    best = np.unravel_index(np.argmax(scores.induction), scores.induction.shape)
    shape = scores.induction.shape
    without = [[loss(ablated(loaded, "heads", i, [n])) for n in range(shape[1])] for i in range(2)]
    head = int(best[0]), int(best[1])
    return Found(loaded, scores, head, loss(), np.array(without))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    found = find_induction_head(args.steps, args.seed)
    print(f"trained and read in {time.perf_counter() - start:.0f} s")
    print(f"loss of repeated tokens {found.loss:.3f} nats; chance {np.log(len(LETTERS)):.3f}")
    print("block.head  previous  induction  loss without it")
    for i, n in np.ndindex(found.without.shape):
        scores = found.scores.previous_token[i, n], found.scores.induction[i, n]
        print(f"{i}.{n}        {scores[0]:8.2f}  {scores[1]:9.2f}  {found.without[i, n]:8.3f}")
    print("induction head:", ".".join(map(str, found.head)))


if __name__ == "__main__":
    main()
