"""From features to `Scores`: ranks of the true matches, then average precision, CMC and mINP from the ranks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.records import JUNK
from ptlreid.retrieval.distance import Block, blocks, check_coverage
from ptlreid.retrieval.parallel import map_rows
from ptlreid.retrieval.protocols import Judge, Protocol
from ptlreid.retrieval.ranking_keys import Metric
from ptlreid.retrieval.single_shot import SingleShotCMC
from ptlreid.retrieval.types import Features, Scores

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
    """As `evaluate`, from distances of any making, such as re-ranked ones."""
    if ap not in ("step", "trapezoid"):
        raise OptionError(f"No average precision is called {ap!r}. Known: step, trapezoid.")
    if max_rank < 1:
        raise OptionError(f"The CMC was asked for up to rank {max_rank}, expected 1 or more.")
    judge = Judge(protocol, gallery.pids, gallery.camids)
    draw = SingleShotCMC(gallery.pids, max_rank, repeats=draws, seed=seed) if protocol.single_shot else None
    hits: dict[int, _Hits] = {}

    def rank(block: Block, rows: slice) -> None:
        for row in range(block.start + rows.start, block.start + rows.stop):
            verdict = judge.verdict(int(query.pids[row]), int(query.camids[row]))
            if len(verdict.matches):
                keys = block.keys_of(row - block.start)
                judge.hide(keys, verdict)
                ranks = match_ranks(keys, verdict.matches)
                order = ranks.argsort()
                curve = draw.curve(keys, verdict.matches, row) if draw else None
                hits[row] = _Hits(ranks[order], verdict.matches[order], curve)

    for block in check_coverage(source, len(query), len(gallery)):
        map_rows(partial(rank, block), *block.shape)
    if not hits:
        raise DataError(
            f"None of {len(query)} queries has a true match in the gallery under the protocol {protocol.name!r}, "
            "expected one at least. For people seen by one camera only, choose any-camera."
        )
    return _scores(hits, query, gallery, protocol, ap=ap, max_rank=max_rank)


def match_ranks(keys: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """(M,) int64, the 1-based ranks of the gallery columns `matches`; equal keys keep the order of the gallery.

    `keys`: (G,), infinite where an image is absent. M >= 1. A rank is one more than the number of images before the
    match, so only the images as near as the farthest match are looked at; the gallery is never sorted.
    """
    own = keys[matches]
    near = keys[(keys <= own.max()).nonzero()[0]]
    near.sort()
    before = near.searchsorted(own)  # images that are nearer
    up_to = near.searchsorted(own, side="right")  # and those as near, the match itself among them
    for tied in (up_to - before > 1).nonzero()[0]:
        before[tied] += np.count_nonzero(keys[: matches[tied]] == own[tied])
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
    """One query's true matches, nearest first, and its CMC where that is an expectation."""

    ranks: np.ndarray
    columns: np.ndarray
    curve: np.ndarray | None


def _scores(
    hits: dict[int, _Hits],
    query: Features,
    gallery: Features,
    protocol: Protocol,
    *,
    ap: AveragePrecision,
    max_rank: int,
) -> Scores:
    rows = sorted(hits)  # threads finish in any order
    ranks = np.concatenate([hits[row].ranks for row in rows])
    starts = np.cumsum([0, *(len(hits[row].ranks) for row in rows)])
    curves = [hit.curve for hit in (hits[row] for row in rows) if hit.curve is not None]
    within = ranks[starts[:-1], None] <= np.arange(1, max_rank + 1)
    return Scores(
        protocol=protocol.name,
        num_queries=len(query),
        num_gallery=len(gallery),
        num_junk=int(np.count_nonzero(gallery.pids == JUNK)),
        rows=np.array(rows),
        average_precision=average_precisions(ranks, starts, ap),
        inp=np.diff(starts) / ranks[starts[1:] - 1],
        cmc_by_query=np.stack(curves) if curves else within.astype(np.float64),
        match_ranks=ranks,
        match_columns=np.concatenate([hits[row].columns for row in rows]),
        match_starts=starts,
    )
