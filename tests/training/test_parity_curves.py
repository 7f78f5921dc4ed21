"""Live: training from the same weights on the same batches takes the reference's course."""

import numpy as np
import pytest

SIZES = {
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 3},
    "llama": {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
    },
}
SIZES["bert"] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}
SIZES["qwen2"] = SIZES["llama"] | {"num_key_value_heads": 3}


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("family", SIZES)
def test_loss_curves_of_100_steps_are_within_1e_3(family):
    from scripts.compare_loss_curves import BAR, compare

    theirs, ours = compare(family, steps=100, batch_size=4, **SIZES[family])
    assert np.abs(theirs - ours).max() < BAR
    assert ours[-10:].mean() < ours[:10].mean() - 0.3
