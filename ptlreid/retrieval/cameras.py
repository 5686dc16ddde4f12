"""Scores by camera pair: queries from one camera, searched among the images from another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptlreid.retrieval.distance import Blocks, check_coverage, map_rows
from ptlreid.retrieval.metrics import AveragePrecision, average_precisions, match_ranks
from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.protocols import Judge
from ptlreid.retrieval.ranking_keys import ExactDistances
from ptlreid.retrieval.types import Retrieval


@dataclass(frozen=True)
class CameraScores:
    """P query cameras by C gallery cameras, both ascending.

    `query_cameras`, `gallery_cameras`: (P,) and (C,) camera numbers. `queries`: (P,). The rest: (P, C).

    A cell is the evaluation of its row's queries on the gallery images from its column's camera, under the same
    protocol: junk and hidden images are left out, distractors from that camera stay. `valid` counts the queries with a
    true match there, the only ones in `mean_ap` and `cmc1`, which are NaN where it is 0. That is the case for a camera
    with itself under protocols that hide the identity's images from the query's own camera. The CMC uses all images of
    the gallery camera, even under a single-shot protocol.
    """

    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    queries: np.ndarray
    valid: np.ndarray
    mean_ap: np.ndarray
    cmc1: np.ndarray

    def cells(self) -> list[dict[str, object]]:
        """The cells for JSON, row by row; scores are None where no query is valid."""
        return [
            {
                "query": int(query),
                "gallery": int(gallery),
                "queries": {"total": int(self.queries[row]), "valid": int(self.valid[row, column])},
                "mAP": float(self.mean_ap[row, column]) if self.valid[row, column] else None,
                "cmc": {"1": float(self.cmc1[row, column]) if self.valid[row, column] else None},
            }
            for row, query in enumerate(self.query_cameras)
            for column, gallery in enumerate(self.gallery_cameras)
        ]


def camera_scores(retrieval: Retrieval, blocks: Blocks, *, ap: AveragePrecision) -> CameraScores:
    """The scores of each pair of cameras by the distances in `blocks`, re-ranked or not.

    Equal distances keep gallery order.
    """
    query, gallery = retrieval.query, retrieval.gallery
    judge = Judge(retrieval.protocol, query, gallery)
    own = find_own_images(retrieval)
    order = np.argsort(gallery.camids, kind="stable")  # camera by camera, each in gallery order
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    cameras, firsts = np.unique(gallery.camids[order], return_index=True)
    ends = np.append(firsts[1:], len(order))
    precision = np.full((len(query), len(cameras)), np.nan)
    first = np.full((len(query), len(cameras)), np.nan)

    def rank(rows: range) -> None:
        for row in rows:
            verdict = judge.verdict(row, own.get(row))
            if not len(verdict.matches):
                continue
            keys = block.keys_of(row)
            judge.hide(keys, verdict)
            keys = keys[order]
            columns = position[verdict.matches]
            of_camera = firsts.searchsorted(columns, side="right") - 1
            exact = block.exact_of(row) if block.exact_of else None
            for camera in np.unique(of_camera):
                of_all = order[firsts[camera] : ends[camera]]  # its images, in gallery order
                images = columns[of_camera == camera] - firsts[camera]
                ranks = match_ranks(keys[firsts[camera] : ends[camera]], images, _select(exact, of_all))
                ranks.sort()
                precision[row, camera] = average_precisions(ranks, np.array([0, len(ranks)]), ap)[0]
                first[row, camera] = ranks[0] == 1

    for block in check_coverage(blocks, len(query), len(gallery)):
        map_rows(rank, block.rows, block.num_gallery)
    return _mean_by_camera(query.camids, cameras, precision, first)


def _select(exact: ExactDistances | None, columns: np.ndarray) -> ExactDistances | None:
    """The distances of the images at `columns`, which are numbered from 0."""
    if exact is None:
        return None
    return replace(exact, distances_of=lambda chosen: exact.distances_of(columns[chosen]))


def _mean_by_camera(camids: np.ndarray, cameras: np.ndarray, precision: np.ndarray, first: np.ndarray) -> CameraScores:
    """The means over the queries of each camera; `precision` and `first` are NaN where a query has no match."""
    present, row = np.unique(camids, return_inverse=True)
    shape = (len(present), len(cameras))
    valid, sums, firsts = (np.zeros(shape) for _ in range(3))
    has_match = ~np.isnan(precision)
    np.add.at(valid, row, has_match)
    np.add.at(sums, row, np.where(has_match, precision, 0))
    np.add.at(firsts, row, np.where(has_match, first, 0))
    with np.errstate(invalid="ignore"):  # 0 / 0 where no query is valid
        return CameraScores(present, cameras, np.bincount(row), valid.astype(np.int64), sums / valid, firsts / valid)
