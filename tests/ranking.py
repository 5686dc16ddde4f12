"""Evaluation in one call, with the defaults of `ptlreid evaluate`, for the tests of retrieval."""

from __future__ import annotations

import numpy as np

from ptlreid.retrieval import cameras, metrics
from ptlreid.retrieval.cameras import CameraScores
from ptlreid.retrieval.distance import Blocks, distance_blocks
from ptlreid.retrieval.expansion import expand_queries
from ptlreid.retrieval.protocols import Protocol
from ptlreid.retrieval.ranklist import RankList, rank_list
from ptlreid.retrieval.rerank import rerank_blocks
from ptlreid.retrieval.types import Features, Retrieval, Scores


def blocks(query: Features, gallery: Features, *, metric="euclidean", memory_budget=None) -> Blocks:
    return distance_blocks(_retrieval(query, gallery), metric=metric, memory_budget=memory_budget)


def rerank(query: Features, gallery: Features, *, k1=20, k2=6, weight=0.3, memory_budget=None) -> Blocks:
    return rerank_blocks(_retrieval(query, gallery), k1=k1, k2=k2, weight=weight, memory_budget=memory_budget)


def evaluate(query, gallery, protocol, *, metric="euclidean", memory_budget=None, **settings) -> Scores:
    source = blocks(query, gallery, metric=metric, memory_budget=memory_budget)
    return evaluate_blocks(source, query, gallery, protocol, **settings)


def evaluate_blocks(
    source: Blocks, query, gallery, protocol, *, ap="step", single_shot_samples=None, seed=0, max_rank=50
) -> Scores:
    return metrics.score(
        Retrieval(query, gallery, protocol),
        source,
        ap=ap,
        single_shot_samples=single_shot_samples,
        seed=seed,
        max_rank=max_rank,
    )


def ranklist(query, gallery, protocol, size, *, metric="euclidean", memory_budget=None) -> RankList:
    retrieval = Retrieval(query, gallery, protocol)
    return rank_list(
        retrieval, distance_blocks(retrieval, metric=metric, memory_budget=memory_budget), size, metric=metric
    )


def matrix(source: Blocks) -> np.ndarray:
    """All keys of the blocks, (Q, G)."""
    return np.stack([block.keys_of(row) for block in source for row in block.rows])


def rank_list_of(source: Blocks, query, gallery, protocol, size) -> RankList:
    """The rank list of re-ranked blocks."""
    return rank_list(Retrieval(query, gallery, protocol), source, size, metric=None)


def camera_scores(source: Blocks, query, gallery, protocol, *, ap="step") -> CameraScores:
    return cameras.camera_scores(Retrieval(query, gallery, protocol), source, ap=ap)


def expand(query: Features, gallery: Features, *, size=5, alpha=0.0) -> Features:
    return expand_queries(_retrieval(query, gallery), size=size, alpha=alpha, memory_budget=None).query


def _retrieval(query: Features, gallery: Features) -> Retrieval:
    return Retrieval(query, gallery, Protocol("any"))
