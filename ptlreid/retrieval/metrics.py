"""From features to `Scores`: ranks of the true matches, then average precision, CMC and mINP from the ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.records import JUNK
from ptlreid.retrieval.distance import Block, blocks
from ptlreid.retrieval.keys import Metric
from ptlreid.retrieval.parallel import over_rows
from ptlreid.retrieval.protocols import Judge, Pairs, Protocol
from ptlreid.retrieval.single_shot import Draw
from ptlreid.retrieval.values import Features, Scores

AveragePrecision = Literal["step", "trapezoid"]


def evaluate(
    query: Features,
    gallery: Features,
    protocol: Protocol,
    *,
    metric: Metric = "euclidean",
    ap: AveragePrecision = "step",
    memory_budget: int | None = None,
    max_rank: int = 50,
    device: str = "cpu",
    draws: int | None = None,
    seed: int = 0,
) -> Scores:
    """The scores of ranking `gallery` for every row of `query`, the same for every memory budget.

    Equal distances keep the order of the gallery. Queries without a true match are left out and counted. `draws`,
    `seed`: only for a single-shot protocol, see `Draw`. Raises `DataError` when no query has a match, a side is empty
    or the widths differ.
    """
    source = blocks(query, gallery, metric=metric, memory_budget=memory_budget, device=device)
    return evaluate_blocks(source, query, gallery, protocol, ap=ap, max_rank=max_rank, draws=draws, seed=seed)


def evaluate_blocks(
    source: Iterable[Block],
    query: Features,
    gallery: Features,
    protocol: Protocol,
    *,
    ap: AveragePrecision = "step",
    max_rank: int = 50,
    draws: int | None = None,
    seed: int = 0,
) -> Scores:
    """As `evaluate`, from distances of any making, such as re-ranked ones. The keys are overwritten."""
    if ap not in ("step", "trapezoid"):
        raise OptionError(f"No average precision is called {ap!r}. Known: step, trapezoid.")
    if max_rank < 1:
        raise OptionError(f"The CMC was asked for up to rank {max_rank}, expected 1 or more.")
    judge = Judge(protocol, gallery.pids, gallery.camids)
    draw = Draw(gallery.pids, max_rank, repeats=draws, seed=seed) if protocol.single_shot else None
    hits: list[_Hits] = []
    for block in _covering(source, len(query), len(gallery)):
        rows = np.arange(block.start, block.start + len(block.keys))
        judge.remove(block.keys, query.pids[rows], query.camids[rows])
        matches = judge.matches(query.pids[rows], query.camids[rows])
        curves = [] if draw is None else draw.curves(block, matches)
        hits.append(_Hits(rows[matches.rows], match_ranks(block.keys, matches), matches.columns, curves))
    if not sum(len(hit.rows) for hit in hits):
        raise DataError(
            f"None of {len(query)} queries has a true match in the gallery under the protocol {protocol.name!r}, "
            "expected one at least. For people seen by one camera only, choose any-camera."
        )
    return _scores(hits, query, gallery, protocol, ap=ap, max_rank=max_rank)


def _covering(source: Iterable[Block], num_queries: int, num_gallery: int) -> Iterator[Block]:
    """The blocks of `source`; a `DataError` if they do not hold every query once, in order, against every image."""
    row = 0
    for block in source:
        height, width = block.keys.shape
        if block.start != row or row + height > num_queries or width != num_gallery:
            raise DataError(
                f"Rows {block.start} to {block.start + height} of the distances have width {width}, expected rows from "
                f"{row} to at most {num_queries} of width {num_gallery}. Compute them from the same features."
            )
        row += height
        yield block
    if row != num_queries:
        raise DataError(
            f"The distances have {row} rows for {num_queries} queries. Compute them from the same features."
        )


def match_ranks(keys: np.ndarray, matches: Pairs) -> np.ndarray:
    """(P,) int64, the 1-based ranks of P matches, each in its row; equal keys keep the order of the gallery.

    `keys`: (B, G), infinite where an image is absent. A rank is one more than the number of images before the match, so
    only the images as near as a row's farthest match are looked at; the gallery is never sorted.
    """
    own = keys[matches.rows, matches.columns]
    before = np.empty(len(own), dtype=np.int64)  # images that are nearer
    up_to = np.empty(len(own), dtype=np.int64)  # images that are nearer or as near, the match itself among them
    rows, firsts = np.unique(matches.rows, return_index=True)
    lasts = np.append(firsts[1:], len(own))

    def count(part: slice) -> None:
        for row, first, last in zip(rows[part], firsts[part], lasts[part], strict=True):
            line, mine = keys[row], own[first:last]
            near = line[np.flatnonzero(line <= mine.max())]
            near.sort()
            before[first:last] = near.searchsorted(mine)
            up_to[first:last] = near.searchsorted(mine, side="right")

    over_rows(count, len(rows))
    for tied in np.flatnonzero(up_to - before > 1):
        earlier = keys[matches.rows[tied], : matches.columns[tied]]
        before[tied] += np.count_nonzero(earlier == own[tied])
    return before + 1


def average_precisions(ranks: np.ndarray, starts: np.ndarray, ap: AveragePrecision) -> np.ndarray:
    """(V,) average precision of V queries, each the mean over its matches of the precision there.

    `ranks`: (T,) 1-based, ascending within a query; `starts`: (V + 1,), where each query's begin. At the i-th
    match, with rank r, `step` takes i / r: ranks 1 and 3 give (1/1 + 2/3) / 2 = 0.833. `trapezoid` takes its mean with
    the precision one rank earlier, (i - 1) / (r - 1), or 1 at rank 1, as the first code for Market-1501 did:
    ranks 1 and 3 give ((1 + 1) / 2 + (1/2 + 2/3) / 2) / 2 = 0.792.
    """
    counts = np.diff(starts)
    found = np.arange(1, len(ranks) + 1) - np.repeat(starts[:-1], counts)
    precision = found / ranks
    if ap == "trapezoid":
        earlier = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1)
        precision = (earlier + precision) / 2
    return np.asarray(np.add.reduceat(precision, starts[:-1]) / counts)


@dataclass(frozen=True)
class _Hits:
    """The true matches of one block: query rows, ranks and gallery columns; and the CMC of each query with a match,
    where that is an expectation.
    """

    rows: np.ndarray
    ranks: np.ndarray
    columns: np.ndarray
    curves: list[np.ndarray]


def _scores(
    hits: list[_Hits],
    query: Features,
    gallery: Features,
    protocol: Protocol,
    *,
    ap: AveragePrecision,
    max_rank: int,
) -> Scores:
    rows, ranks = np.concatenate([hit.rows for hit in hits]), np.concatenate([hit.ranks for hit in hits])
    order = np.lexsort((ranks, rows))
    ranks = ranks[order]
    valid, firsts = np.unique(rows, return_index=True)
    starts = np.append(firsts, len(rows))
    if protocol.single_shot:
        curves = np.stack([curve for hit in hits for curve in hit.curves])
    else:
        curves = (ranks[firsts, None] <= np.arange(1, max_rank + 1)).astype(np.float64)
    return Scores(
        protocol=protocol.name,
        num_queries=len(query),
        num_gallery=len(gallery),
        num_junk=int(np.count_nonzero(gallery.pids == JUNK)),
        rows=valid,
        average_precision=average_precisions(ranks, starts, ap),
        inp=np.diff(starts) / ranks[starts[1:] - 1],
        cmc_by_query=curves,
        match_ranks=ranks,
        match_columns=np.concatenate([hit.columns for hit in hits])[order],
        match_starts=starts,
    )
