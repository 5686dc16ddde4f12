"""The gate: whether an exported graph, in its own runtime, gives the features and decisions of the run it came from.

    sample = sample_test_set(splits, settings)
    comparison = compare(before, after, thresholds, settings, batch_gaps=gaps, weights_changed=[])
    faults = find_faults(comparison, settings)

A graph without faults may be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptlreid.evaluation import rank, score_ranking
from ptlreid.records import Records, Splits
from ptlreid.retrieval.pairs import Pairs
from ptlreid.retrieval.ranklist import rank_list
from ptlreid.retrieval.types import Retrieval
from ptlreid.settings import ExportSettings

BATCHES = (1, 7, 64)  # of which all images have to get the same features


def sample_test_set(splits: Splits, settings: ExportSettings) -> Splits:
    """The test set, or a random part with at least `settings.images` images: all those of some identities."""
    query, gallery = splits.query, splits.gallery
    if settings.full or settings.images >= len(query) + len(gallery):
        return splits
    pids = _find_pids(query, gallery)
    np.random.default_rng(settings.seed).shuffle(pids)
    images = np.array([(query.pids == pid).sum() + (gallery.pids == pid).sum() for pid in pids])
    enough = int(np.searchsorted(np.cumsum(images), settings.images)) + 1
    chosen = pids[:enough]

    def select(part: Records) -> Records:
        return part.select(np.isin(part.pids, chosen))

    return replace(splits, query=select(query), gallery=select(gallery))


def _find_pids(query: Records, gallery: Records) -> np.ndarray:
    """The identities of queries that the gallery has, too: by another camera, if there are any."""
    pids = np.unique(query.pids[query.pids >= 0])
    both = np.intersect1d(pids, gallery.pids)
    sides = [(part.pids, part.camids) for part in (query, gallery)]
    moved = [pid for pid in both.tolist() if len({c for p, camids in sides for c in camids[p == pid].tolist()}) > 1]
    return np.array(moved or (both if len(both) else pids), dtype=np.int64)


@dataclass(frozen=True)
class FeatureGap:
    """How far apart two features of one image are at most, over all images.

    `min_cosine`: 1 where both are zero. `max_absolute`: of one element. `max_relative`: length of the difference, in
    lengths of the first; infinite where that is zero.
    """

    min_cosine: float
    max_absolute: float
    max_relative: float

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray) -> FeatureGap:
        """The gap between two (N, D) matrices of finite numbers, in float64."""
        first, second = before.astype(np.float64), after.astype(np.float64)
        lengths, others = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
        products, squares = (first * second).sum(axis=1), lengths * others
        both_zero = (lengths == 0) & (others == 0)
        cosines = np.where(both_zero, 1.0, products / np.where(squares > 0, squares, 1.0))
        gaps = np.linalg.norm(first - second, axis=1)
        relative = np.divide(gaps, lengths, out=np.where(gaps > 0, np.inf, 0.0), where=lengths > 0)
        return cls(float(cosines.min()), float(np.abs(first - second).max()), float(relative.max()))

    def describe(self) -> dict[str, float | None]:
        """The fields by name, for JSON, which has no infinity: None."""
        values = {"min_cosine": self.min_cosine, "max_absolute": self.max_absolute, "max_relative": self.max_relative}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Comparison:
    """A graph against its run on the same images.

    `gap`: of their features; `batch_gaps`: of the graph's features in batches of another size. `scores`: mAP and CMC-1
    `before` and `after`, by name. `nearest_changed`: queries whose nearest image is another one, of `queries`.
    `decisions`: by threshold, the pairs that are accepted by one and refused by the other, and the number of pairs.
    `weights_changed`: tensors of the graph that are not those of the run.
    """

    gap: FeatureGap
    batch_gaps: Mapping[int, FeatureGap]
    scores: Mapping[str, Mapping[str, float]]
    nearest_changed: int
    queries: int
    decisions: Mapping[str, tuple[int, int]]
    weights_changed: Sequence[str]

    @property
    def map_loss(self) -> float:
        """The loss of mAP, in percentage points; negative for a gain."""
        return 100 * (self.scores["mAP"]["before"] - self.scores["mAP"]["after"])

    def describe(self) -> dict[str, Any]:
        """The comparison, for JSON."""
        return {
            "features": self.gap.describe(),
            "batches": {str(size): gap.describe() for size, gap in self.batch_gaps.items()},
            "scores": {name: dict(values) for name, values in self.scores.items()},
            "nearest_changed": {"changed": self.nearest_changed, "queries": self.queries},
            "decisions_changed": {
                name: {"changed": changed, "pairs": pairs} for name, (changed, pairs) in self.decisions.items()
            },
            "weights_changed": list(self.weights_changed),
        }


def compare(
    before: Retrieval,
    after: Retrieval,
    thresholds: Mapping[str, float],
    settings: ExportSettings,
    *,
    batch_gaps: Mapping[int, FeatureGap],
    weights_changed: Sequence[str],
) -> Comparison:
    """The comparison of the run's features with the graph's, of the same images in the same order.

    `thresholds`: by name; a pair is accepted if its distance is below. `batch_gaps`, `weights_changed`: as in the
    result.
    """
    features = [np.concatenate([one.query.matrix, one.gallery.matrix]) for one in (before, after)]
    gap = FeatureGap.between(features[0], features[1])
    nearest = [_find_nearest(one, settings) for one in (before, after)]
    return Comparison(
        gap,
        batch_gaps,
        _score(before, after, settings),
        int((nearest[0] != nearest[1]).sum()),
        len(before.query),
        _count_changes(before, after, thresholds, settings),
        weights_changed,
    )


def find_faults(comparison: Comparison, settings: ExportSettings) -> list[str]:
    """What is beyond the limits, one sentence for each; none for a graph that may be used."""
    faults = []
    gap, limit, relative = comparison.gap, settings.cosine_limit, settings.difference_limit
    if gap.min_cosine < limit:
        faults.append(f"the smallest cosine with the run's features is {gap.min_cosine:.7f} (limit {limit:g})")
    if gap.max_relative > relative:
        faults.append(f"features differ by up to {gap.max_relative:.2g} of their length (limit {relative:g})")
    for size, one in comparison.batch_gaps.items():
        if one.max_relative > relative:
            faults.append(f"in batches of {size}, features change by {one.max_relative:.2g} of their length")
    if comparison.map_loss > settings.max_map_loss:
        loss, before = comparison.map_loss, 100 * comparison.scores["mAP"]["before"]
        faults.append(f"mAP falls by {loss:.2f} points from {before:.2f} (limit {settings.max_map_loss:g})")
    if changed := comparison.weights_changed:
        faults.append(f"{len(changed)} of its tensors are not those of the run, such as {changed[0]}")
    return faults


def _score(before: Retrieval, after: Retrieval, settings: ExportSettings) -> dict[str, dict[str, float]]:
    found = [score_ranking(rank(one, settings), settings).summary() for one in (before, after)]
    values = {"mAP": [one["mAP"] for one in found], "CMC-1": [one["cmc"]["1"] for one in found]}
    return {name: dict(zip(("before", "after"), both, strict=True)) for name, both in values.items()}


def _find_nearest(retrieval: Retrieval, settings: ExportSettings) -> np.ndarray:
    """(Q,) the row of each query's nearest gallery image."""
    ranks = rank_list(retrieval, rank(retrieval, settings).blocks, 1, metric=settings.metric)
    return ranks.columns[:, 0]


def _count_changes(
    before: Retrieval, after: Retrieval, thresholds: Mapping[str, float], settings: ExportSettings
) -> dict[str, tuple[int, int]]:
    """By threshold, the pairs whose decision changed, and the number of pairs."""
    changed, num_pairs = dict.fromkeys(thresholds, 0), 0
    both = (Pairs(one, rank(one, settings).blocks, settings.metric) for one in (before, after))
    for first, second in zip(*both, strict=True):
        visible = np.isfinite(first.distances)
        num_pairs += int(visible.sum())
        for name, threshold in thresholds.items():
            decisions = (first.distances < threshold) != (second.distances < threshold)
            changed[name] += int((decisions & visible).sum())
    return {name: (count, num_pairs) for name, count in changed.items()}
