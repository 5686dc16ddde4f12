"""Features of images: a matrix that is filled row by row."""

from __future__ import annotations

import numpy as np
import torch

from ptlreid.images import load_batches
from ptlreid.models.network import Network
from ptlreid.outputs import Readout
from ptlreid.progress import Progress, Silent
from ptlreid.records import Records
from ptlreid.retrieval.values import Features
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
    """The (N, D) float32 features of N images, row i that of record i.

    `readout`: how they are read; the network's own way by default. They depend on weights, readout, view and image
    alone: not on batch size, order or workers, nor on what was trained before; to float32 rounding, as a library may
    add in another order for another batch size. The network is given back in the mode it came in.
    """
    rows = np.array_split(np.arange(len(records)), range(batch_size, len(records), batch_size))
    matrix = np.empty((len(records), network.feature_width), dtype=np.float32)
    mode = network.training
    network.eval()
    try:
        with torch.inference_mode(), (progress or Silent()).task(title, len(records)) as advance:
            for batch in load_batches(records, view, rows, workers=workers):
                images = standardize(batch.images.to(device, non_blocking=True))
                matrix[batch.rows.numpy()] = network.features(images, readout).cpu().numpy()
                advance(int(batch.rows[-1]) + 1)
    finally:
        network.train(mode)
    return Features(matrix, records.pids, records.camids, np.array([str(path) for path in records.paths], dtype=object))
