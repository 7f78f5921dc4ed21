"""A model that learns to repeat has an induction head: the score finds it, and it does the work."""

import numpy as np
import pytest

from scripts.induction_head import find_induction_head


@pytest.mark.slow
def test_the_induction_head_is_found_and_does_the_work():
    found = find_induction_head()
    block, head = found.head
    assert block == 1
    assert found.scores.induction[block, head] > 0.8
    assert found.without[block, head] > 3 * found.loss
    others = np.delete(found.without[block], head)
    assert (others < 1.5 * found.loss).all()
