"""Queries that are in the gallery themselves, where a protocol must not let a query find its own image."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from ptlreid.retrieval.types import Retrieval


def find_own_images(retrieval: Retrieval) -> dict[int, np.ndarray]:
    """By query row, the ascending gallery columns that are the query itself; empty if the protocol does not ask.

    That is an image with the query's path, or one with its identity and equal features.
    """
    if not retrieval.protocol.leave_one_out:
        return {}
    query, gallery = retrieval.query, retrieval.gallery
    columns: dict[object, set[int]] = {}
    pids = set(query.pids[query.pids >= 0].tolist())
    for column, (path, pid) in enumerate(zip(gallery.paths.tolist(), gallery.pids.tolist(), strict=True)):
        columns.setdefault(path, set()).add(column)
        if pid in pids:
            columns.setdefault((pid, _digest(gallery.matrix[column])), set()).add(column)
    found = {}
    for row, (path, pid) in enumerate(zip(query.paths.tolist(), query.pids.tolist(), strict=True)):
        own = columns.get(path, set()) | columns.get((pid, _digest(query.matrix[row])), set())
        if own:
            found[row] = np.array(sorted(own))
    return found


def _digest(vector: np.ndarray) -> bytes:
    return blake2b((vector + np.float32(0)).data, digest_size=16).digest()  # + 0 turns -0 into 0
