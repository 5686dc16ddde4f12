"""Query expansion: each query becomes a weighted mean of itself and the gallery images nearest to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptlreid.errors import OptionError
from ptlreid.records import JUNK
from ptlreid.retrieval.distance import blocks
from ptlreid.retrieval.nearest import nearest
from ptlreid.retrieval.ranking_keys import normalize_rows
from ptlreid.retrieval.types import Features


def expand(
    query: Features,
    gallery: Features,
    *,
    size: int = 5,
    alpha: float = 0.0,
    memory_budget: int | None = None,
    device: str = "cpu",
) -> Features:
    """The queries with new vectors of length 1, to be compared with the gallery by cosine.

    Each is the mean of the query, with weight 1, and its `size` nearest gallery images by cosine, with weights
    max(cosine, 0)^alpha, all of length 1. `alpha` 0 is the average (Chum et al., ICCV 2007), 3 the weighted mean of
    Radenovic et al. (TPAMI 2018). Junk is not used; no other label is looked at, so a query's own camera takes part.
    """
    if size < 1 or alpha < 0:
        raise OptionError(f"size {size} and alpha {alpha} were asked for, expected size >= 1 and alpha >= 0.")
    gallery = gallery.select(gallery.pids != JUNK) if (gallery.pids == JUNK).any() else gallery
    matrix = normalize_rows(query.matrix)
    source = blocks(replace(query, matrix=matrix), gallery, metric="cosine", memory_budget=memory_budget, device=device)
    expanded = matrix.copy()
    for block in source:
        for row in range(block.shape[0]):
            keys = block.keys_of(row)
            columns = nearest(keys, size)
            weights = np.maximum(-keys[columns], 0) ** np.float32(alpha)
            expanded[block.start + row] += weights @ normalize_rows(gallery.matrix[columns])
    return replace(query, matrix=normalize_rows(expanded))
