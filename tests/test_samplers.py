"""Batches of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.errors import DataError
from ptlreid.samplers import Shuffled


@given(num_images=st.integers(2, 200), batch_size=st.integers(2, 40), epoch=st.integers(0, 5))
def test_full_batches_of_distinct_images_and_only_the_rest_is_dropped(num_images, batch_size, epoch):
    if num_images < batch_size:
        return
    batches = Shuffled(num_images, batch_size, seed=1).epoch(epoch)
    rows = np.concatenate(batches)
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(np.unique(rows)) == len(rows) == num_images - num_images % batch_size
    assert rows.min() >= 0
    assert rows.max() < num_images


def test_the_order_is_the_seeds_and_the_epochs():
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(Shuffled(40, 8, seed).epoch(epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_less_than_one_batch_is_refused():
    with pytest.raises(DataError, match="3 training images do not fill one batch of 4"):
        Shuffled(3, 4, 0)
