"""The values of an evaluation: `Features`, `Retrieval`, `Scores`. Each is validated on creation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptlreid.errors import DataError
from ptlreid.records import DISTRACTOR
from ptlreid.retrieval.protocols import Protocol

PRINTED_RANKS = (1, 5, 10, 20)
_CHECKED_ROWS = 4096  # rows per check: a mask of the whole matrix could take a gigabyte


@dataclass(frozen=True)
class Features:
    """N feature vectors with the identity and the camera of each image.

    `matrix`: (N, D) float32, finite, D >= 1. `pids`, `camids`: (N,) int64; identities are 0 or more, pid -1 is
    junk, -2 a distractor. `paths`: (N,) object array of str. `clothes`: (N,) int64, numbers of the clothes of an
    identity, or None if they are not labelled. N may be 0. Raises `DataError` naming the first bad row.
    """

    matrix: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    paths: np.ndarray
    clothes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.matrix.dtype != np.float32:
            raise DataError(f"features are {self.matrix.dtype}, expected float32. Convert them before saving.")
        if self.matrix.ndim != 2 or self.matrix.shape[1] == 0:
            raise DataError(f"features have shape {self.matrix.shape}, expected (images, width).")
        self._check_columns()
        check_finite(self.matrix, self.paths)

    def _check_columns(self) -> None:
        types = {"pids": np.int64, "camids": np.int64, "paths": object, "clothes": np.int64}
        for name, dtype in types.items():
            column = getattr(self, name)
            if name == "clothes" and column is None:
                continue
            if column.shape != (len(self.matrix),):
                raise DataError(
                    f"{len(self.matrix)} rows of features, but {name} of shape {column.shape}: expected one value per "
                    "row."
                )
            if column.dtype != dtype:
                raise DataError(f"{name} are {column.dtype}, expected {np.dtype(dtype)}. Convert them before saving.")
        bad = np.flatnonzero(self.pids < DISTRACTOR)
        if len(bad):
            raise DataError(
                f"row {bad[0]} ({self.paths[bad[0]]}): pid {self.pids[bad[0]]}, expected an identity of 0 or "
                "more, -1 for junk, or -2 for a distractor. Correct it."
            )

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def width(self) -> int:
        return int(self.matrix.shape[1])

    def select(self, rows: np.ndarray) -> Features:
        """The features at `rows`: indices in the order given, or a boolean mask."""
        clothes = None if self.clothes is None else self.clothes[rows]
        return Features(self.matrix[rows], self.pids[rows], self.camids[rows], self.paths[rows], clothes)


def check_finite(matrix: np.ndarray, paths: np.ndarray) -> None:
    """Raises `DataError` that names the first row with NaN or infinity, and its path."""
    for start in range(0, len(matrix), _CHECKED_ROWS):
        finite = np.isfinite(matrix[start : start + _CHECKED_ROWS])
        if not finite.all():
            row = start + int(np.argmin(finite.all(axis=1)))
            raise DataError(
                f"row {row} ({paths[row]}): a feature is NaN, infinite or too large for float32. "
                "Check the weights that produced it, then extract again."
            )


@dataclass(frozen=True)
class Retrieval:
    """Queries, the gallery they are searched in, and the evaluation protocol.

    Raises `DataError` for an empty side, and for features of different widths.
    """

    query: Features
    gallery: Features
    protocol: Protocol

    def __post_init__(self) -> None:
        for name, side in (("query", self.query), ("gallery", self.gallery)):
            if not len(side.matrix):
                raise DataError(f"The {name} is empty: expected at least one image. Check the dataset's folders.")
        widths = self.query.matrix.shape[1], self.gallery.matrix.shape[1]
        if widths[0] != widths[1]:
            raise DataError(
                f"Query features have width {widths[0]}, gallery features width {widths[1]}: expected the same width. "
                "Extract both with the same weights."
            )


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation, query by query, from which tables and intervals are computed.

    V valid queries (those with a true match) with T true matches in total; ranks are 1-based in the gallery that the
    protocol leaves to the query. `rows`: (V,) their query rows, ascending. `average_precision`, `inp`: (V,) in (0, 1].
    `cmc_by_query`: (V, R), at [v, r - 1] the probability of a match within the first r: 0 or 1, or an expectation for a
    single-shot protocol. `match_ranks`: (T,), ascending within a query; `match_columns`: (T,) the gallery rows at these
    ranks; query v owns `match_starts[v]` to `match_starts[v + 1]` of both, `match_starts`: (V + 1,). `num_*` count
    images before any are ignored.
    """

    protocol: str
    num_queries: int
    num_gallery: int
    num_junk: int
    rows: np.ndarray
    average_precision: np.ndarray
    inp: np.ndarray
    cmc_by_query: np.ndarray
    match_ranks: np.ndarray
    match_columns: np.ndarray
    match_starts: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(self.rows), len(self.average_precision), len(self.inp), len(self.cmc_by_query)}
        if lengths != {len(self.match_starts) - 1} or len(self.match_ranks) != len(self.match_columns):
            raise ValueError(f"per-query arrays differ in length: {sorted(lengths)}")

    @property
    def num_valid(self) -> int:
        return len(self.rows)

    @property
    def mean_ap(self) -> float:
        return float(self.average_precision.mean())

    @property
    def mean_inp(self) -> float:
        """Mean over queries of matches / rank of the last match (Ye et al., 2021, "Deep learning for person ReID")."""
        return float(self.inp.mean())

    @property
    def cmc(self) -> np.ndarray:
        """(R,) fraction of valid queries with a match within the first 1 .. R, non-decreasing."""
        return np.asarray(self.cmc_by_query.mean(axis=0))

    @property
    def first_match_rank(self) -> np.ndarray:
        """(V,) int64, the rank of each query's nearest true match in the gallery left to it."""
        return np.asarray(self.match_ranks[self.match_starts[:-1]])

    def summary(self) -> dict[str, Any]:
        """The scores as printed and written to JSON, as fractions from 0 to 1.

        A printed rank beyond the CMC curve takes the curve's last value.
        """
        cmc = self.cmc
        return {
            "protocol": self.protocol,
            "mAP": self.mean_ap,
            "mINP": self.mean_inp,
            "cmc": {str(rank): float(cmc[min(rank, len(cmc)) - 1]) for rank in PRINTED_RANKS},
            "queries": {"total": self.num_queries, "valid": self.num_valid},
            "gallery": {"total": self.num_gallery, "junk": self.num_junk},
        }
