"""Which images make up each mini-batch of an epoch. Several processes share each batch out among them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ptlreid.errors import DataError, OptionError


@dataclass(frozen=True)
class ShuffleSampler:
    """Batches of `batch_size` from all of `num_images`, in an order of its own for each epoch.

    The last incomplete batch is dropped: a latent state belongs to a full batch. An epoch's order depends on
    `seed` and the epoch alone. With `ranks` processes, each has `batch_size` images of its own in every step.
    """

    num_images: int
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise DataError(
                f"{self.num_images} training images do not fill one batch of {self.batch_size * self.ranks}. "
                "Lower --batch-size, or choose a larger dataset."
            )

    def __len__(self) -> int:
        return self.num_images // (self.batch_size * self.ranks)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The row numbers of each batch of this epoch, (batch_size,) each."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
        shares = order[: len(self) * self.batch_size * self.ranks].reshape(len(self), self.ranks, self.batch_size)
        return list(shares[:, self.rank])


@dataclass(frozen=True)
class IdentitySampler:
    """Batches of P people with K images each (P×K), for losses that compare people within a batch.

    In an epoch every person comes once, in an order of its own; people that do not fill a last batch wait for another
    epoch. `labels`: (N,) int64. Of someone with fewer than K images, K are drawn from K copies of each, as in the MGN
    code that the paper used. With `ranks` processes, each has P people of its own in every step.
    """

    labels: np.ndarray
    people: int
    images: int
    seed: int
    rank: int = 0
    ranks: int = 1
    _rows: list[np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = np.argsort(self.labels, kind="stable")
        firsts = np.flatnonzero(np.diff(self.labels[order])) + 1
        object.__setattr__(self, "_rows", np.split(order, firsts))
        if len(self) == 0:
            raise DataError(
                f"{len(self._rows)} people do not fill one batch of {self.people * self.ranks} people. "
                "Lower --batch-size, or choose a larger dataset."
            )

    @classmethod
    def of_batch(cls, labels: np.ndarray, batch_size: int, images: int, seed: int) -> IdentitySampler:
        """Batches of `batch_size` with `images` of each person; `OptionError` when that leaves a rest."""
        if batch_size % images:
            raise OptionError(
                f"A batch of {batch_size} cannot hold {images} images of each person. "
                f"Give --batch-size a multiple of {images}."
            )
        return cls(labels, batch_size // images, images, seed)

    def __len__(self) -> int:
        return len(self._rows) // (self.people * self.ranks)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The row numbers of each batch of this epoch, (P * K,) each, the K of one person beside one another."""
        rng = np.random.default_rng((self.seed, epoch))
        drawn = np.stack([self._draw(self._rows[person], rng) for person in rng.permutation(len(self._rows))])
        shares = drawn[: len(self) * self.people * self.ranks].reshape(len(self), self.ranks, -1)
        return list(shares[:, self.rank])

    def _draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        choice = rows if len(rows) >= self.images else np.repeat(rows, self.images)
        return rng.choice(choice, self.images, replace=False)
