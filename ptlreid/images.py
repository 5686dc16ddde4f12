"""Batches of images, loaded in this process or by several loader processes."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ptlreid import packs, signals
from ptlreid.errors import DataError
from ptlreid.packs import PackedImages
from ptlreid.progress import Progress
from ptlreid.views import View, decode, resize

_AUGMENTATIONS, _CUTS = 0, 1  # uses of random numbers: those of one do not depend on whether there is another


@dataclass(frozen=True)
class Batch:
    """B images. `images`: (B, H, W, 3) uint8. `rows`: (B,) int64, their rows in the records."""

    images: Tensor
    rows: Tensor

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which it is copied to a GPU without waiting."""
        return Batch(self.images.pin_memory(), self.rows.pin_memory())


class Sampler(Protocol):
    """A batch sampler: the batches of an epoch, as rows of the records."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int) -> list[np.ndarray]: ...


def load_batches(
    paths: Sequence[Path] | np.ndarray,
    view: View,
    rows: Iterable[np.ndarray],
    *,
    augmentation_seed: tuple[int, ...] = (),
    workers: int,
    pin_for: torch.device | None = None,
    progress: Progress | None = None,
) -> Generator[Batch]:
    """The images of each batch of `rows`, augmented with one seed: see `load_seeded`."""
    seeded = ((augmentation_seed, batch) for batch in rows)
    return load_seeded(paths, view, seeded, workers=workers, pin_for=pin_for, progress=progress)


def load_seeded(
    paths: Sequence[Path] | np.ndarray,
    view: View,
    seeded_rows: Iterable[tuple[tuple[int, ...], np.ndarray]],
    *,
    workers: int,
    pin_for: torch.device | None = None,
    progress: Progress | None = None,
) -> Generator[Batch]:
    """The images of each batch of rows, in that order for any number of `workers`, which live until the end or `close`.

    `seeded_rows`: augmentation seed and rows of each batch; taken a few batches ahead. If the dataset has a pack of the
    view's size and interpolation, identical pixels are read from it; `progress` gets a note if it cannot be used. Each
    image has its own random generator, from the seed and its row: augmentation depends neither on the other images of
    the batch nor on the process that loads it. `pin_for`: the device of the network; for a GPU, batches are in
    page-locked memory. Raises `DataError` for a file that cannot be decoded.
    """
    gpu = pin_for if pin_for is not None and pin_for.type == "cuda" else None
    loader = DataLoader(
        _Images(paths, view, _find_packed(paths, view, progress)),
        sampler=seeded_rows,  # a batch at a time: one fetch, one array
        batch_size=None,
        num_workers=workers,
        pin_memory=gpu is not None,
        generator=torch.Generator(),  # for the workers' seed: leaves the global generator alone
        worker_init_fn=_ignore_signals,
    )
    with catch_dead_workers():
        for item in _start(loader, gpu):  # no name keeps its processes: they end with the loop, by an error too
            if isinstance(item, DataError):
                raise item
            yield item


def _find_packed(paths: Sequence[Path] | np.ndarray, view: View, progress: Progress | None) -> PackedImages:
    """The images that are read from packs: none of a view that cuts from the original image, with a note on it."""
    if not view.crop:
        return packs.find_packed(paths, view, progress)
    if progress and len(packs.find_packed(paths, view)):
        progress.note("packs are not used for training: crops (--crop) are cut from the original images")
    return PackedImages({})


def _start(loader: DataLoader[Batch | DataError], gpu: torch.device | None) -> Iterator[Batch | DataError]:
    """Starts the processes, and the thread that pins: on the current GPU, which has to be the one that computes."""
    with nullcontext() if gpu is None else torch.cuda.device(gpu):
        return iter(loader)


@contextmanager
def catch_dead_workers() -> Iterator[None]:
    """Turns the error that torch raises in the block when a loader process dies into a `DataError`."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"A DataLoader worker died ({str(error).splitlines()[0]}). The machine may have run out of "
            "memory: try again with fewer --workers or a smaller --batch-size."
        ) from None


def _ignore_signals(worker: int) -> None:
    """Such signals reach the whole process group: the training process handles them and ends its loaders."""
    for number in signals.STOPPING:
        signal.signal(number, signal.SIG_IGN)


class _Images(Dataset[Batch | DataError]):
    """The records as a torch `Dataset`, indexed by an augmentation seed and a batch of rows."""

    def __init__(self, paths: Sequence[Path] | np.ndarray, view: View, packed: PackedImages) -> None:
        self.paths, self.view, self.packed = paths, view, packed

    def __getitem__(self, seeded: tuple[tuple[int, ...], np.ndarray]) -> Batch | DataError:
        seed, rows = seeded
        try:
            pixels = []
            for row in rows.tolist():
                packed = self.packed.get(row)
                pixels.append(decode(self.paths[row]) if packed is None else packed)
        except DataError as error:
            return error  # raised in a worker, it would carry that worker's traceback
        if self.view.crop:
            cuts = _make_generators(seed, rows.tolist(), _CUTS)
            pixels = [self.view.cut(image, rng) for image, rng in zip(pixels, cuts, strict=True)]
        images = resize(pixels, self.view)
        for image, rng in zip(images, _make_generators(seed, rows.tolist(), _AUGMENTATIONS), strict=True):
            self.view.augment(image, rng)
        return Batch(torch.from_numpy(images), torch.from_numpy(np.array(rows, dtype=np.int64)))


def _make_generators(seed: tuple[int, ...], rows: list[int], use: int) -> Iterator[np.random.Generator]:
    """A generator for each row, valid until the next is requested: one generator, set to each row in turn.

    Philox is counter-based, and the row and the `use` of the numbers are the highest words of the counter: no two rows
    or uses share numbers. A new generator for each would take eight times as long.
    """
    philox = np.random.Philox(key=np.random.SeedSequence(seed).generate_state(2, np.uint64))
    start, rng = philox.state, np.random.Generator(philox)
    for row in rows:
        start["state"]["counter"][2:] = use, row
        philox.state = start
        yield rng
