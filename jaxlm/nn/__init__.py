"""Flax modules with parameters: embeddings, norms, attention, feed-forward, Block; the KV cache."""
