"""Open-set identification: a query whose person may not be in the gallery, as in watch-list evaluation.

The nearest gallery image of a query is an answer if its distance is below a threshold; otherwise the answer is nobody.
DIR, the detection and identification rate at rank 1, is the share of queries with their identity in the gallery that
get a true match; FAR, the false alarm rate, is the share of queries without it that get any answer (Phillips, Grother
and Micheals, "Evaluation methods in face recognition", Handbook of Face Recognition, 2011; in the terms of NIST's FRVT,
Grother and Ngan, FNIR = 1 - DIR and FPIR = FAR).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError
from ptlreid.retrieval.bootstrap import Interval, bootstrap_intervals
from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.pairs import Pairs
from ptlreid.retrieval.protocols import Judge
from ptlreid.retrieval.thresholds import count_allowed
from ptlreid.retrieval.types import Retrieval


@dataclass(frozen=True)
class Answers:
    """The nearest gallery image of each of N queries of one kind: (N,) each.

    `distances`: infinite if the protocol leaves no image. `correct`: whether it is a true match, before any threshold.
    """

    pids: np.ndarray
    distances: np.ndarray
    correct: np.ndarray

    def __len__(self) -> int:
        return len(self.pids)


@dataclass(frozen=True)
class OpenSetPoint:
    """DIR and FAR at a threshold, from 0 to 1, with 95% confidence intervals over identities; None for one identity."""

    threshold: float
    far: float
    far_interval: Interval | None
    dir: float
    dir_interval: Interval | None


@dataclass(frozen=True)
class OpenSet:
    """The answers to queries whose identity is in the gallery (`enrolled`), and to those whose is not (`absent`)."""

    enrolled: Answers
    absent: Answers

    def find_threshold(self, rate: float) -> float | None:
        """The threshold with the highest DIR whose FAR is at most `rate`, halfway to the next answer.

        None if `rate` amounts to less than one query.
        """
        allowed = count_allowed(rate, len(self.absent))
        first_refused = np.sort(self.absent.distances)[allowed] if 0 < allowed < len(self.absent) else np.inf
        if not np.isfinite(first_refused):
            return None
        distances = np.concatenate([self.enrolled.distances, self.absent.distances])
        return float(distances[distances < first_refused].max(initial=0) + first_refused) / 2

    def at(self, threshold: float, *, resamples: int, seed: int) -> OpenSetPoint:
        """DIR and FAR at a threshold; without intervals for 0 resamples."""
        alarms = (self.absent.distances < threshold).astype(np.float64)
        hits = (self.enrolled.correct & (self.enrolled.distances < threshold)).astype(np.float64)
        far_interval, dir_interval = (
            bootstrap_intervals(values[:, None], side.pids, resamples=resamples, seed=seed)[0]
            if resamples and len(np.unique(side.pids)) > 1
            else None
            for values, side in ((alarms, self.absent), (hits, self.enrolled))
        )
        return OpenSetPoint(threshold, float(alarms.mean()), far_interval, float(hits.mean()), dir_interval)


def answer_queries(pairs: Pairs, *, seed: int) -> OpenSet:
    """The answers after half of the identities that have a query with a true match have left the gallery.

    Which ones is random by `seed`. Queries without a true match in the whole gallery are left out. Equal distances keep
    gallery order. Raises `DataError` for fewer than two such identities.
    """
    query, gallery = pairs.retrieval.query, pairs.retrieval.gallery
    with_match = _find_queries(pairs.retrieval)
    present = np.unique(query.pids[with_match])
    if len(present) < 2:
        raise DataError(
            f"{len(present)} identities have a query with a true match: expected two or more, as half of them leave "
            "the gallery. Use a test set with more identities."
        )
    gone = np.random.default_rng(seed).permutation(present)[: len(present) // 2]
    hidden = np.isin(gallery.pids, gone)
    distances, correct = np.full(len(query), np.inf), np.zeros(len(query), dtype=bool)
    for one in pairs:
        if with_match[one.row]:
            nearest = int(np.argmin(np.where(hidden, np.inf, one.distances)))
            distances[one.row] = np.inf if hidden[nearest] else one.distances[nearest]
            correct[one.row] = gallery.pids[nearest] == query.pids[one.row]
    is_gone = np.isin(query.pids, gone)
    return OpenSet(
        *(
            Answers(query.pids[rows], distances[rows], correct[rows])
            for rows in (with_match & ~is_gone, with_match & is_gone)
        )
    )


def _find_queries(retrieval: Retrieval) -> np.ndarray:
    """(Q,) bool: the queries with a true match under the protocol."""
    judge = Judge(retrieval.protocol, retrieval.query, retrieval.gallery)
    own = find_own_images(retrieval)
    matches = [judge.verdict(row, own.get(row)).matches for row in range(len(retrieval.query))]
    return np.array([len(columns) > 0 for columns in matches], dtype=bool)
