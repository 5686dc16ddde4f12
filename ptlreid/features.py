"""Features of images: a matrix that is filled row by row, by one process or by several together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ptlreid import distributed
from ptlreid.errors import DataError
from ptlreid.images import Batch, load_batches
from ptlreid.models.network import Network
from ptlreid.network_types import Readout
from ptlreid.progress import Progress, Silent
from ptlreid.records import Records
from ptlreid.retrieval.types import Features
from ptlreid.views import EvalView, standardize


def extract(
    network: Network,
    records: Records,
    view: EvalView,
    *,
    readout: Readout | None = None,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    progress: Progress | None = None,
    title: str = "extract features",
) -> Features:
    """The (N, D) float32 features of N images, row i that of record i; of joined processes, each gets all of them.

    See `stream` for what they depend on.
    """
    matrix = np.empty((len(records), network.feature_width), dtype=np.float32)
    parts = stream(
        network,
        records,
        view,
        readout=readout,
        device=device,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    done = 0
    with (progress or Silent()).task(title, len(records)) as advance:
        for part in parts:
            matrix[done : done + len(part)] = part
            done += len(part)
            advance(done)
    return Features(matrix, records.pids, records.camids, np.array([str(path) for path in records.paths], dtype=object))


def stream(
    network: Network,
    records: Records,
    view: EvalView,
    *,
    readout: Readout | None = None,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    start: int = 0,
    progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """The features of the records from row `start` on, in order: (B, D) float32, a step at a time.

    `readout`: how they are read; the network's own way by default. They depend on weights, readout, view and image
    alone: not on batch size, order or workers, nor on what was trained before; to float32 rounding, as a library may
    add in another order for another batch size. The network is given back in the mode it came in. Joined processes
    share each step, and all get the whole of it; where one meets an image that cannot be read, all raise its
    `DataError`.
    """
    rows, ranks, rank = np.arange(start, len(records)), distributed.world_size(), distributed.rank()
    if not distributed.active():
        ranks, rank = 1, 0
    steps = np.array_split(rows, range(batch_size * ranks, len(rows), batch_size * ranks)) if len(rows) else []
    mine = [np.array_split(step, ranks)[rank] for step in steps]
    batches = load_batches(records, view, [part for part in mine if len(part)], workers=workers, progress=progress)
    mode = network.training
    network.eval()
    try:
        for part in mine:
            found = _features(network, batches, readout, device) if len(part) else np.empty((0, network.feature_width))
            parts = distributed.all_gather(found)
            for other in parts:
                if isinstance(other, DataError):
                    raise other
            yield np.concatenate(parts).astype(np.float32, copy=False)
    finally:
        network.train(mode)


def _features(
    network: Network, batches: Iterator[Batch], readout: Readout | None, device: torch.device
) -> np.ndarray | DataError:
    """The features of the next of `batches`, or why it could not be read."""
    try:
        batch = next(batches)
    except DataError as error:
        return error
    with torch.inference_mode():
        images = standardize(batch.images.to(device, non_blocking=True))
        return np.asarray(network.features(images, readout).cpu().numpy())
