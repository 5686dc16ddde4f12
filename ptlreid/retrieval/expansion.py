"""Query expansion: each query becomes a weighted mean of itself and its nearest gallery images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.records import JUNK
from ptlreid.retrieval.centring import to_double
from ptlreid.retrieval.distance import key_blocks
from ptlreid.retrieval.nearest import nearest
from ptlreid.retrieval.types import Retrieval


def expand_queries(retrieval: Retrieval, *, size: int, alpha: float, memory_budget: int | None) -> Retrieval:
    """The retrieval with new, L2-normalised query vectors, to be compared by cosine.

    Each is the mean of the query, with weight 1, and its `size` nearest gallery images by cosine, with weights
    max(cosine, 0)^alpha, all L2-normalised. `alpha` 0 is the average (Chum et al., ICCV 2007), 3 the weighted mean of
    Radenovic et al. (TPAMI 2018). Junk is left out; other labels are not read, so images from the query's own camera
    are included. Raises `DataError` for a gallery that has only junk.
    """
    if size < 1 or alpha < 0:
        raise OptionError(f"size {size} and alpha {alpha}: expected size >= 1 and alpha >= 0.")
    gallery = retrieval.gallery.matrix
    if (retrieval.gallery.pids == JUNK).any():
        gallery = gallery[retrieval.gallery.pids != JUNK]
    if not len(gallery):
        raise DataError("The gallery has only junk: expected at least one other image. Check the dataset's folders.")
    expanded = np.empty_like(retrieval.query.matrix)
    for block in key_blocks(retrieval.query.matrix, gallery, metric="cosine", memory_budget=memory_budget):
        for row in block.rows:
            keys = block.keys_of(row)
            columns = nearest(keys, size)
            weights = np.maximum(1 - keys[columns] * (block.unit / 2), 0) ** alpha  # cosines
            query = to_double(retrieval.query.matrix[row, None], "cosine")
            total = query + weights @ to_double(gallery[columns], "cosine")
            expanded[row] = total / (np.linalg.norm(total) or 1)
    return replace(retrieval, query=replace(retrieval.query, matrix=expanded))
