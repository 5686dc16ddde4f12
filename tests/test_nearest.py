"""The few nearest of a row, against a stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.retrieval.nearest import nearest


@pytest.mark.parametrize("levels", [1, 2, 5, 50, 10**6])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 1000, 5003])
def test_equal_to_a_stable_sort_with_ties_and_absent_images(levels: int, length: int):
    rng = np.random.default_rng(length)
    for size in (1, 2, 7, 20, 200):
        keys = rng.integers(0, levels, length).astype(np.float32)
        keys[rng.random(length) < 0.2] = np.inf
        assert nearest(keys, size).tolist() == np.argsort(keys, kind="stable")[:size].tolist()
