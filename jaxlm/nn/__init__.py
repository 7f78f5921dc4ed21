"""Flax modules with parameters: layers, attention, Block; the KV cache; matrices in int8."""
