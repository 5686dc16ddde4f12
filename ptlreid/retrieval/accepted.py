"""The pairs that given thresholds accept, by identity: FAR and TAR with intervals over identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptlreid.retrieval.bootstrap import Interval, central_interval, resampled_ratios
from ptlreid.retrieval.pairs import Pairs


@dataclass(frozen=True)
class IdentityCounts:
    """Numbers of pairs by identity, (I,), and those accepted at each threshold, (I, T)."""

    pairs: np.ndarray
    accepted: np.ndarray


@dataclass(frozen=True)
class Rates:
    """FAR and TAR at a threshold, with their 95% confidence intervals; None without two identities to resample."""

    threshold: float
    far: float
    far_interval: Interval | None
    tar: float
    tar_interval: Interval | None


@dataclass(frozen=True)
class AcceptedPairs:
    """The accepted pairs of I queried identities at T thresholds.

    `same`: pairs of one identity. `by_query`, `by_gallery`: pairs of two identities, by that of the query and by that
    of the gallery image. `others`, one row: different-identity pairs with a gallery image of an identity that no query
    has, such as a distractor.
    """

    thresholds: Sequence[float]
    same: IdentityCounts
    by_query: IdentityCounts
    by_gallery: IdentityCounts
    others: IdentityCounts

    @property
    def fars(self) -> np.ndarray:
        """(T,); NaN without a pair of two identities."""
        return _share(self.by_query)

    @property
    def tars(self) -> np.ndarray:
        """(T,); NaN without a pair of one identity."""
        return _share(self.same)

    def rates(self, *, resamples: int, seed: int) -> list[Rates]:
        """FAR and TAR at each threshold, with intervals from a bootstrap over identities.

        An identity that is resampled brings its same-identity pairs along, and its images on both sides of
        different-identity pairs: see `_resample_fars`. None for 0 `resamples`.
        """
        has_pairs = self.same.pairs > 0
        tars = fars = None
        if resamples and has_pairs.sum() > 1:
            sums, sizes = self.same.accepted[has_pairs], self.same.pairs[has_pairs]
            tars = resampled_ratios(sums, sizes, resamples=resamples, seed=seed)
        if resamples and len(has_pairs) > 1:
            fars = self._resample_fars(resamples=resamples, seed=seed)
        return [
            Rates(
                threshold,
                float(self.fars[at]),
                None if fars is None else central_interval(fars[:, at]),
                float(self.tars[at]),
                None if tars is None else central_interval(tars[:, at]),
            )
            for at, threshold in enumerate(self.thresholds)
        ]

    def _resample_fars(self, *, resamples: int, seed: int) -> np.ndarray:
        """(resamples, T) FARs: that of the resampled queries times that of the resampled gallery, over that of all.

        To first order, this is the FAR of all pairs of resampled identities, each pair weighted by how often its two
        identities are sampled, and needs no table of identities by identities. Where few pairs are accepted, intervals
        are rather too wide: each pair then counts as noise of both its identities.
        """
        by_query = resampled_ratios(self.by_query.accepted, self.by_query.pairs, resamples=resamples, seed=seed)
        by_gallery = resampled_ratios(
            self.by_gallery.accepted,
            self.by_gallery.pairs,
            resamples=resamples,
            seed=seed,
            fixed_sums=self.others.accepted[0],
            fixed_sizes=self.others.pairs[0],
        )
        return np.minimum(by_query * by_gallery / np.where(self.fars > 0, self.fars, 1), 1)


def count_accepted(pairs: Pairs, thresholds: Sequence[float]) -> AcceptedPairs:
    """The pairs whose distance is below each of the thresholds."""
    query, gallery = pairs.retrieval.query, pairs.retrieval.gallery
    pids = np.unique(query.pids[query.pids >= 0])
    limits = np.array(thresholds, dtype=np.float64)[:, None]  # (T, 1)
    shape = (len(pids), len(thresholds))
    same, by_query = (IdentityCounts(np.zeros(shape[0]), np.zeros(shape)) for _ in range(2))
    columns = IdentityCounts(np.zeros(len(gallery), np.int32), np.zeros((shape[1], len(gallery)), np.int32))
    for one in pairs:
        identity = int(pids.searchsorted(query.pids[one.row]))
        visible, below = np.isfinite(one.distances), one.distances < limits
        num_same, same_below = len(one.matches), below[:, one.matches].sum(axis=1)
        visible[one.matches] = False
        below[:, one.matches] = False
        same.pairs[identity] += num_same
        same.accepted[identity] += same_below
        by_query.pairs[identity] += visible.sum()
        by_query.accepted[identity] += below.sum(axis=1)
        np.add(columns.pairs, visible, out=columns.pairs)
        np.add(columns.accepted, below, out=columns.accepted)
    # Gallery images of identities that no query has take one row more.
    known = np.isin(gallery.pids, pids)
    rows = np.where(known, np.minimum(pids.searchsorted(gallery.pids), len(pids) - 1), len(pids))
    by_column = [np.bincount(rows, weights=one, minlength=len(pids) + 1) for one in (columns.pairs, *columns.accepted)]
    counted, accepted = by_column[0], np.column_stack(by_column[1:])
    by_gallery, others = (IdentityCounts(counted[part], accepted[part]) for part in (slice(-1), slice(-1, None)))
    return AcceptedPairs(thresholds, same, by_query, by_gallery, others)


def _share(counts: IdentityCounts) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts.accepted.sum(axis=0) / counts.pairs.sum())
