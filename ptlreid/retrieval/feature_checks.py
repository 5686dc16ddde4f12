"""Features that can be ranked, but with which scores mean little: all zero, or all but equal."""

from __future__ import annotations

import numpy as np

from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.types import Retrieval

_ALL_BUT_EQUAL = 1e-5  # differences relative to the length of features; 6e-8 is the rounding of float32
_SAMPLED_ROWS = 256  # of each side


def describe_doubts(retrieval: Retrieval) -> list[str]:
    """Notes on what a reader of the scores should know about the features; most often none."""
    sides, notes = {"query": retrieval.query, "gallery": retrieval.gallery}, []
    for name, side in sides.items():
        zero = np.flatnonzero(~side.matrix.any(axis=1))
        if len(zero):
            notes.append(
                f"{len(zero)} of {len(side)} {name} features are all zero, the first of them row {zero[0]} "
                f"({side.paths[zero[0]]}): check that its image was extracted"
            )
    sample = np.concatenate([side.matrix[:: 1 + len(side) // _SAMPLED_ROWS] for side in sides.values()])
    rows = sample.astype(np.float64)
    length = float(np.sqrt(np.square(rows).sum(axis=1).mean()))
    spread = float(np.sqrt(np.square(rows - rows.mean(axis=0)).sum(axis=1).mean()))
    if length and spread <= _ALL_BUT_EQUAL * length:
        size = f"they differ by {spread / length:.0e} of their length" if spread else "all images have the same"
        notes.append(f"the features are all but equal ({size}): the network may have collapsed, and scores mean little")
    own = len(find_own_images(retrieval))
    if own:
        notes.append(
            f"{own} of {len(retrieval.query)} queries are in the gallery themselves: under the protocol "
            f"{retrieval.protocol.name}, each is left out of its own ranking"
        )
    return notes
