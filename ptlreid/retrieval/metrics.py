"""From distances to `Scores`: the ranks of the true matches, then average precision, CMC and mINP from the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptlreid.errors import DataError
from ptlreid.records import JUNK
from ptlreid.retrieval.distance import Blocks, check_coverage, map_rows
from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.protocols import Judge, Protocol
from ptlreid.retrieval.ranking_keys import ExactDistances
from ptlreid.retrieval.single_shot import SingleShotCMC
from ptlreid.retrieval.types import Retrieval, Scores

AveragePrecision = Literal["step", "trapezoid"]
MAX_RANK = 50  # of the CMC curve


@dataclass(frozen=True)
class MatchRanks:
    """One query's true matches, nearest first, and its CMC under a single-shot protocol."""

    ranks: np.ndarray
    columns: np.ndarray
    curve: np.ndarray | None


def score(
    retrieval: Retrieval,
    blocks: Blocks,
    *,
    ap: AveragePrecision,
    single_shot_samples: int | None,
    seed: int,
    max_rank: int = MAX_RANK,
) -> Scores:
    """The scores of ranking the gallery for every query by the distances in `blocks`, re-ranked or not.

    Equal distances keep gallery order. Queries without a true match are excluded from the means. `single_shot_samples`,
    `seed`: only for a single-shot protocol, see `SingleShotCMC`. Raises `DataError` when no query has a true match.
    """
    query, gallery, protocol = retrieval.query, retrieval.gallery, retrieval.protocol
    judge = Judge(protocol, query, gallery)
    own = find_own_images(retrieval)
    single_shot = (
        SingleShotCMC(gallery.pids, max_rank, samples=single_shot_samples, seed=seed) if protocol.single_shot else None
    )
    hits: dict[int, MatchRanks] = {}

    def rank(rows: range) -> None:
        for row in rows:
            verdict = judge.verdict(row, own.get(row))
            if len(verdict.matches):
                keys = block.keys_of(row)
                judge.hide(keys, verdict)
                exact = block.exact_of(row) if block.exact_of else None
                ranks = match_ranks(keys, verdict.matches, exact)
                curve = single_shot.curve(keys, verdict.matches, row) if single_shot else None
                order = ranks.argsort()
                hits[row] = MatchRanks(ranks[order], verdict.matches[order], curve)

    for block in check_coverage(blocks, len(query.matrix), len(gallery.matrix)):
        map_rows(rank, block.rows, block.num_gallery)
    if not hits:
        raise no_matches(protocol, query.pids, gallery.pids)
    sizes = GallerySizes(len(gallery.matrix), int(np.count_nonzero(gallery.pids == JUNK)))
    return make_scores(protocol, len(query.matrix), sizes, hits, ap=ap, max_rank=max_rank)


def no_matches(protocol: Protocol, query_pids: np.ndarray, gallery_pids: np.ndarray) -> DataError:
    """The error where no query has a true match. `gallery_pids`: at least those of the queries' identities."""
    return DataError(
        f"None of the {len(query_pids)} queries has a true match in the gallery under the protocol {protocol.name!r}: "
        f"expected at least one. {_match_advice(protocol, query_pids, gallery_pids)}"
    )


def _match_advice(protocol: Protocol, query_pids: np.ndarray, gallery_pids: np.ndarray) -> str:
    """What helps where no query has a true match."""
    if not np.isin(query_pids[query_pids >= 0], gallery_pids).any():
        return "Query and gallery share no identity: check that both number the same identities alike."
    if protocol.ignore_own_clothes_matches:
        return "Only images of the query's identity by other cameras and in other clothes count: see --protocol market."
    if protocol.ignore_own_camera_matches or protocol.other_cameras_only:
        return "Where identities were seen by one camera only, use --protocol any-camera."
    return "The only match of each query is its own image: add other images of these identities to the gallery."


@dataclass(frozen=True)
class Split:
    """Where a row of keys lies relative to M intervals.

    `nearer`: (M,) int64, the number of keys below each. `doubtful`: the columns of the keys inside, by the number of an
    interval that holds enough of them.
    """

    nearer: np.ndarray
    doubtful: Mapping[int, np.ndarray]


def match_ranks(keys: np.ndarray, matches: np.ndarray, exact: ExactDistances | None) -> np.ndarray:
    """(M,) int64, the 1-based ranks of the gallery columns `matches`; equal distances keep gallery order.

    `keys`: (G,), infinite where an image is absent. M >= 1. `exact`: None where the keys are the distances. A rank is
    one more than the number of images before the match, so only the images at least as near as the farthest match are
    sorted, never the gallery.
    """
    match_keys = keys[matches]
    # Two keys may both be wrong. The rest is for the rounding of the sums here.
    margins = 0 if exact is None else np.float32(2.1) * exact.errors_of(match_keys)
    split = split_keys(keys, match_keys - margins, match_keys + margins, fewest=2)
    nearer = split.nearer
    if not split.doubtful:
        return nearer + 1
    columns = np.unique(np.concatenate(list(split.doubtful.values())))  # with the matches that they are close to
    distances = keys[columns] if exact is None else exact.distances_of(columns)
    for number, near in split.doubtful.items():
        distance = distances[columns.searchsorted(matches[number])]
        nearer[number] += count_before(distances[columns.searchsorted(near)], near, distance, matches[number])
    return nearer + 1


def split_keys(keys: np.ndarray, lower: np.ndarray, upper: np.ndarray, *, fewest: int) -> Split:
    """Where the keys, (G,), lie relative to the intervals from `lower` to `upper`, (M,) of the same type each.

    `fewest`: keys in an interval that make them doubtful: one, or two where the match itself is one of them.
    """
    columns = (keys <= upper.max()).nonzero()[0]
    near = keys[columns]
    in_order = np.sort(near)
    nearer = in_order.searchsorted(lower)
    enough = in_order.searchsorted(upper, side="right") - nearer >= fewest
    doubtful = {
        number: columns[((near >= lower[number]) & (near <= upper[number])).nonzero()[0]]
        for number in enough.nonzero()[0].tolist()
    }
    return Split(nearer, doubtful)


def count_before(distances: np.ndarray, columns: np.ndarray, distance: float, column: int) -> int:
    """How many images, (K,) `distances` at the gallery `columns`, precede the one at `column`."""
    return int(np.count_nonzero((distances < distance) | ((distances == distance) & (columns < column))))


def average_precisions(ranks: np.ndarray, starts: np.ndarray, ap: AveragePrecision) -> np.ndarray:
    """(V,) average precision of V queries, each the mean over its matches of the precision there.

    `ranks`: (T,) 1-based, ascending within a query; `starts`: (V + 1,), where each query's ranks begin. At the i-th
    match, with rank r, `step` takes i / r: ranks 1 and 3 give (1/1 + 2/3) / 2 = 0.833. `trapezoid` takes its mean with
    the precision one rank earlier, (i - 1) / (r - 1), or 1 at rank 1, as the first code for Market-1501 did:
    ranks 1 and 3 give ((1 + 1) / 2 + (1/2 + 2/3) / 2) / 2 = 0.792.
    """
    counts = np.diff(starts)
    matches_so_far = np.arange(1, len(ranks) + 1) - np.repeat(starts[:-1], counts)
    precision = matches_so_far / ranks
    if ap == "trapezoid":
        earlier = np.where(ranks > 1, (matches_so_far - 1) / np.maximum(ranks - 1, 1), 1)
        precision = (earlier + precision) / 2
    return np.asarray(np.add.reduceat(precision, starts[:-1]) / counts)


@dataclass(frozen=True)
class GallerySizes:
    """The number of images of a gallery, and of the junk among them."""

    images: int
    junk: int


def make_scores(
    protocol: Protocol,
    num_queries: int,
    gallery: GallerySizes,
    hits: Mapping[int, MatchRanks],
    *,
    ap: AveragePrecision,
    max_rank: int = MAX_RANK,
) -> Scores:
    """The scores from the ranks of true matches, by query row; at least one query has some."""
    rows = sorted(hits)  # threads finish in any order
    ranks = np.concatenate([hits[row].ranks for row in rows])
    starts = np.cumsum([0, *(len(hits[row].ranks) for row in rows)])
    curves = [hit.curve for hit in (hits[row] for row in rows) if hit.curve is not None]
    hit_by_rank = ranks[starts[:-1], None] <= np.arange(1, max_rank + 1)
    return Scores(
        protocol=protocol.name,
        num_queries=num_queries,
        num_gallery=gallery.images,
        num_junk=gallery.junk,
        rows=np.array(rows),
        average_precision=average_precisions(ranks, starts, ap),
        inp=np.diff(starts) / ranks[starts[1:] - 1],
        cmc_by_query=np.stack(curves) if curves else hit_by_rank.astype(np.float64),
        match_ranks=ranks,
        match_columns=np.concatenate([hits[row].columns for row in rows]),
        match_starts=starts,
    )
