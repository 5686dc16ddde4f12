"""Scores between cameras: what a query of one camera finds where the images of one other are all that is searched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ptlreid.retrieval.distance import Block, check_coverage
from ptlreid.retrieval.metrics import AveragePrecision, average_precisions, match_ranks
from ptlreid.retrieval.parallel import map_rows
from ptlreid.retrieval.protocols import Judge, Protocol
from ptlreid.retrieval.types import Features


@dataclass(frozen=True)
class CameraScores:
    """P query cameras by C gallery cameras, both ascending: (P,) and (C,) numbers, (P, C) the rest.

    A cell is the evaluation of the queries of its row on those images of the gallery that the camera of its column
    took, by the same protocol: junk and hidden images leave, distractors of that camera stay. `valid` counts the
    queries with a true match there, the only ones in `mean_ap` and `cmc1`; where it is 0, these are NaN. So they are
    for a camera with itself, by protocols that hide a person's images in the query's own camera. The CMC is that of
    all the camera's images, also for a single-shot protocol.
    """

    query_cameras: np.ndarray
    gallery_cameras: np.ndarray
    queries: np.ndarray
    valid: np.ndarray
    mean_ap: np.ndarray
    cmc1: np.ndarray

    def cells(self) -> list[dict[str, object]]:
        """The cells, row by row, as they are written as JSON; None stands where no query is valid."""
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


def camera_scores(
    source: Iterable[Block], query: Features, gallery: Features, protocol: Protocol, *, ap: AveragePrecision = "step"
) -> CameraScores:
    """The scores of each pair of cameras, from distances of any making, a block at a time.

    Equal distances keep the order of the gallery.
    """
    judge = Judge(protocol, gallery.pids, gallery.camids)
    order = np.argsort(gallery.camids, kind="stable")  # camera after camera, each in the gallery's own order
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    cameras, firsts = np.unique(gallery.camids[order], return_index=True)
    ends = np.append(firsts[1:], len(order))
    precision = np.full((len(query), len(cameras)), np.nan)
    first = np.full((len(query), len(cameras)), np.nan)

    def rank(block: Block, rows: slice) -> None:
        for row in range(block.start + rows.start, block.start + rows.stop):
            verdict = judge.verdict(int(query.pids[row]), int(query.camids[row]))
            if not len(verdict.matches):
                continue
            keys = block.keys_of(row - block.start)
            judge.hide(keys, verdict)
            keys = keys[order]
            columns = place[verdict.matches]
            of_camera = firsts.searchsorted(columns, side="right") - 1
            for camera in np.unique(of_camera):
                start = firsts[camera]
                ranks = match_ranks(keys[start : ends[camera]], columns[of_camera == camera] - start)
                ranks.sort()
                precision[row, camera] = average_precisions(ranks, np.array([0, len(ranks)]), ap)[0]
                first[row, camera] = ranks[0] == 1

    for block in check_coverage(source, len(query), len(gallery)):
        map_rows(partial(rank, block), *block.shape)
    return _by_camera(query.camids, cameras, precision, first)


def _by_camera(camids: np.ndarray, cameras: np.ndarray, precision: np.ndarray, first: np.ndarray) -> CameraScores:
    """The means over the queries of each camera; `precision` and `first` are NaN where a query has no match."""
    present, row = np.unique(camids, return_inverse=True)
    shape = (len(present), len(cameras))
    valid, sums, firsts = (np.zeros(shape) for _ in range(3))
    found = ~np.isnan(precision)
    np.add.at(valid, row, found)
    np.add.at(sums, row, np.where(found, precision, 0))
    np.add.at(firsts, row, np.where(found, first, 0))
    with np.errstate(invalid="ignore"):  # 0 / 0 where no query is valid
        return CameraScores(present, cameras, np.bincount(row), valid.astype(np.int64), sums / valid, firsts / valid)
