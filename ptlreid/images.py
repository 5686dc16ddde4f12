"""Records as batches of images: read by rows, in this process or in several."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ptlreid import packs
from ptlreid.errors import DataError
from ptlreid.packs import Packed
from ptlreid.progress import Progress
from ptlreid.views import EvalView, TrainView, decode, resize

View = EvalView | TrainView


@dataclass(frozen=True)
class Batch:
    """B images: `images` (B, H, W, 3) uint8, `rows` (B,) int64, their places in the records."""

    images: Tensor
    rows: Tensor

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory: torch's loader calls this where a GPU is."""
        return Batch(self.images.pin_memory(), self.rows.pin_memory())


class Sampler(Protocol):
    """The batches of an epoch, as rows."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int) -> list[np.ndarray]: ...


def load_batches(
    paths: Sequence[Path] | np.ndarray,
    view: View,
    rows: Iterable[np.ndarray],
    *,
    seed: tuple[int, ...] = (),
    workers: int = 0,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """The images at each of `rows`, batch by batch, in that order whatever the number of `workers`.

    Where the dataset has a pack in the view's size, images are taken from there, the same to the last bit;
    `progress` is told where one cannot be used. Each image has a generator of its own, from `seed` and its row:
    augmentation depends neither on batch mates nor on which process reads it. Raises `DataError` for a file that
    cannot be decoded.
    """
    packed = packs.find(paths, view.height, view.width, progress)
    loader = DataLoader(
        _Images(paths, view, packed, seed),
        sampler=list(rows),  # a whole batch a time: one fetch, one array
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the global generator
        worker_init_fn=_leave_signals,
    )
    with catch_dead_loaders():
        for item in loader:
            if isinstance(item, DataError):
                raise item
            yield item


@contextmanager
def catch_dead_loaders() -> Iterator[None]:
    """A `DataError` for the error that torch raises, wherever its caller is, when a loader process is no more."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"A process that loads images ended ({str(error).splitlines()[0]}). Memory may have run out: try again "
            "with fewer --workers."
        ) from None


def _leave_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach a whole group of processes: the one that trains decides, its loaders end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Images(Dataset[Batch | DataError]):
    """Batches by their rows."""

    def __init__(self, paths: Sequence[Path] | np.ndarray, view: View, packed: Packed, seed: tuple[int, ...]) -> None:
        self.paths, self.view, self.packed = paths, view, packed
        self._key = np.random.SeedSequence(seed).generate_state(2, np.uint64)

    def __getitem__(self, rows: np.ndarray) -> Batch | DataError:
        try:
            pixels = [self._pixels(row) for row in rows.tolist()]
        except DataError as error:
            return error  # raised by a worker, it would reach the user wrapped in that worker's traceback
        images = resize(pixels, self.view.height, self.view.width)
        for image, rng in zip(images, self._generators(rows.tolist()), strict=True):
            self.view.augment(image, rng)
        return Batch(torch.from_numpy(images), torch.from_numpy(np.array(rows, dtype=np.int64)))

    def _pixels(self, row: int) -> np.ndarray:
        packed = self.packed.get(row)
        return decode(self.paths[row]) if packed is None else packed

    def _generators(self, rows: list[int]) -> Iterator[np.random.Generator]:
        """A generator for each row, to be used before the next is asked for: one that is set to its place.

        Philox draws by counting, and the row is the highest word of the count: no two rows meet. A new generator for
        each would take eight times as long.
        """
        draws = np.random.Philox(key=self._key)
        start, rng = draws.state, np.random.Generator(draws)
        for row in rows:
            start["state"]["counter"][3] = row
            draws.state = start
            yield rng
