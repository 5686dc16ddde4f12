"""Several datasets as one training set, such as `market+duke`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptlreid.records import Records, Splits


def combine(name: str, parts: Sequence[Splits]) -> Splits:
    """The training images of all `parts`, one after another; there is no test set.

    Two images share an identity if source and pid are equal: identities are renumbered from 1, in order of source, then
    of the old number. Cameras keep their numbers, by which their statistics are found (see `CameraStatistics`): two
    images share one if source and camid are equal. If one of `parts` is unlabelled, so is the result.
    """
    trains = [part.train for part in parts]
    sources = np.concatenate([train.sources for train in trains])
    train = Records(
        paths=np.concatenate([train.paths for train in trains]),
        pids=_renumber(sources, np.concatenate([train.pids for train in trains])),
        camids=np.concatenate([train.camids for train in trains]),
        sources=sources,
    )
    empty = Records.make([], [], [], source=name)
    union = Splits(name=name, train=train, query=empty, gallery=empty, protocol=parts[0].protocol)
    return union.without_identities() if any(part.unlabelled for part in parts) else union


def _renumber(sources: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(N,) int64, 1, 2, ... for each pair of source and number, in their order."""
    ranks = np.unique(sources.astype(str), return_inverse=True)[1]
    pairs = np.stack([ranks.reshape(-1), numbers], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64) + 1
