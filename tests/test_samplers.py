"""Batches of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.errors import DataError, OptionError
from ptlreid.samplers import IdentitySampler, ShuffleSampler


@given(num_images=st.integers(2, 200), batch_size=st.integers(2, 40), epoch=st.integers(0, 5))
def test_full_batches_of_distinct_images_and_only_the_rest_is_dropped(num_images, batch_size, epoch):
    if num_images < batch_size:
        return
    batches = ShuffleSampler(num_images, batch_size, seed=1).epoch(epoch)
    rows = np.concatenate(batches)
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(np.unique(rows)) == len(rows) == num_images - num_images % batch_size
    assert rows.min() >= 0
    assert rows.max() < num_images


def test_the_order_depends_on_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(ShuffleSampler(40, 8, seed).epoch(epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


LABELS = np.array([2, 0, 2, 1, 2, 1, 2, 3])  # four identities with 1, 2, 4 and 1 images


@given(epoch=st.integers(0, 20), images=st.integers(1, 4))
def test_identity_batches_hold_p_identities_with_k_images_each(epoch, images):
    batches = IdentitySampler(LABELS, identities=2, images_per_identity=images, seed=0).epoch(epoch)
    identities = np.concatenate([LABELS[batch].reshape(2, images) for batch in batches])
    assert len(batches) == 2
    assert (identities == identities[:, :1]).all()
    assert sorted(identities[:, 0]) == [0, 1, 2, 3]  # each once an epoch
    for batch in batches:
        for rows in batch.reshape(2, images):
            enough = (LABELS[rows[0]] == LABELS).sum() >= images
            assert len(set(rows)) == images or not enough  # repeats only where there are too few


def test_over_epochs_every_image_of_an_identity_is_sampled():
    sampler = IdentitySampler(LABELS, identities=4, images_per_identity=2, seed=0)
    seen = {int(row) for epoch in range(20) for batch in sampler.epoch(epoch) for row in batch}
    assert seen == set(range(8))


def test_a_batch_size_that_does_not_divide_and_too_few_identities_are_refused():
    with pytest.raises(OptionError, match="batch_size = 7: expected a multiple of images_per_identity, 2"):
        IdentitySampler.from_batch_size(LABELS, 7, 2, 0)
    with pytest.raises(DataError, match="4 identities do not fill one batch of 5"):
        IdentitySampler(LABELS, 5, 2, 0)


def test_less_than_one_batch_is_refused():
    with pytest.raises(DataError, match="3 training images do not fill one batch of 4"):
        ShuffleSampler(3, 4, 0)
