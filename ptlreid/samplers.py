"""Batch samplers: the images of each mini-batch of an epoch, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ptlreid.errors import DataError, OptionError


@dataclass(frozen=True)
class ShuffleSampler:
    """Batches of `batch_size` from all of `num_images`, shuffled in each epoch.

    The last incomplete batch is dropped: a latent state belongs to a full batch. The order depends only on `seed` and
    the epoch.
    """

    num_images: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise DataError(
                f"{self.num_images} training images do not fill one batch of {self.batch_size}. "
                "Lower --batch-size, or choose a larger dataset."
            )

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The rows of each batch of this epoch, (batch_size,) each."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
        return list(order[: len(self) * self.batch_size].reshape(len(self), -1))


@dataclass(frozen=True)
class IdentitySampler:
    """Batches of P identities with K images each (P×K), for losses that compare identities within a batch.

    Every identity occurs once per epoch, in random order; those that do not fill the last batch are left out of that
    epoch. `labels`: (N,) int64. For an identity with fewer than K images, K are sampled from K copies of each, as in
    the MGN code that the paper used.
    """

    labels: np.ndarray
    identities: int
    images_per_identity: int
    seed: int
    _rows: list[np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = np.argsort(self.labels, kind="stable")
        firsts = np.flatnonzero(np.diff(self.labels[order])) + 1
        object.__setattr__(self, "_rows", np.split(order, firsts))
        if len(self) == 0:
            raise DataError(
                f"{len(self._rows)} identities do not fill one batch of {self.identities}. "
                "Lower --batch-size, or choose a larger dataset."
            )

    @classmethod
    def from_batch_size(
        cls, labels: np.ndarray, batch_size: int, images_per_identity: int, seed: int
    ) -> IdentitySampler:
        """Batches of `batch_size` images; `OptionError` if that is not a multiple of `images_per_identity`."""
        if batch_size % images_per_identity:
            raise OptionError(
                f"batch_size = {batch_size}: expected a multiple of images_per_identity, {images_per_identity}. "
                f"Give --batch-size a multiple of {images_per_identity}."
            )
        return cls(labels, batch_size // images_per_identity, images_per_identity, seed)

    def __len__(self) -> int:
        return len(self._rows) // self.identities

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The rows of each batch of this epoch, (P * K,) each, the K of one identity next to each other."""
        rng = np.random.default_rng((self.seed, epoch))
        size = self.images_per_identity
        sampled = np.stack([_sample(self._rows[label], size, rng) for label in rng.permutation(len(self._rows))])
        return list(sampled[: len(self) * self.identities].reshape(len(self), -1))


def sample_groups(
    groups: Sequence[np.ndarray], count: int, groups_per_batch: int, images_per_group: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The rows of `count` P×K batches, (P * K,) each, from groups of rows such as clusters.

    Every group occurs once, in random order, then every one again, until the batches are full. Of a group with fewer
    than K images, K are sampled as in `IdentitySampler`.
    """
    needed = count * groups_per_batch
    order = [group for _ in range(-(-needed // len(groups))) for group in rng.permutation(len(groups))][:needed]
    sampled = np.array([_sample(groups[group], images_per_group, rng) for group in order], dtype=np.int64)
    return list(sampled.reshape(count, groups_per_batch * images_per_group))


def _sample(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    choice = rows if len(rows) >= size else np.repeat(rows, size)
    return rng.choice(choice, size, replace=False)
