"""Which images make up each mini-batch of an epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError


@dataclass(frozen=True)
class Shuffled:
    """Batches of `batch_size` from all of `num_images`, in an order of its own for each epoch.

    The last incomplete batch is dropped: a latent state belongs to a full batch. An epoch's order depends on
    `seed` and the epoch alone.
    """

    num_images: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_images < self.batch_size:
            raise DataError(
                f"{self.num_images} training images do not fill one batch of {self.batch_size}. "
                "Lower --batch-size, or choose a larger data set."
            )

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The row numbers of each batch of this epoch, (batch_size,) each."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
        return np.split(order[: len(self) * self.batch_size], len(self))
