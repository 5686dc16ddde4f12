"""The memory estimate is an upper bound of what an evaluation needs, and not many times larger."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from ranking import evaluate_blocks, rerank

from ptlreid.retrieval.memory_plan import estimate_memory, plan_blocks
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features


def features(size: int, width: int, seed: int) -> Features:
    """Clusters of ten images, one per identity, as re-ranking expects."""
    rng = np.random.default_rng(seed)
    pids = rng.integers(1, size // 10, size)
    matrix = np.random.default_rng(9).standard_normal((size, width), dtype=np.float32)[pids]
    matrix += rng.standard_normal((size, width), dtype=np.float32)
    return Features(matrix, pids, np.full(size, seed), np.full(size, "", dtype=object))


def test_without_re_ranking_it_is_the_features_and_the_plan():
    found = estimate_memory(100, 900, 64, rerank=False, memory_budget=10**8)
    assert found.features_bytes == (100 + 900) * 64 * 4
    assert (found.ranking_bytes, found.reranking_bytes) == (plan_blocks(100, 900, 64, 10**8).peak_bytes, 0)
    assert found.total_bytes == found.features_bytes + found.ranking_bytes


@pytest.mark.parametrize("width", [32, 512])
def test_re_ranking_stays_within_its_estimate(width):
    query, gallery = features(500, width, 1), features(6000, width, 2)
    tracemalloc.start()
    evaluate_blocks(rerank(query, gallery), query, gallery, PROTOCOLS["market"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = estimate_memory(500, 6000, width, rerank=True, memory_budget=None)
    assert peak <= found.ranking_bytes + found.reranking_bytes <= 3 * peak


def test_a_smaller_budget_takes_less_down_to_the_minimum():
    sizes = [
        estimate_memory(3000, 50_000, 128, rerank=True, memory_budget=budget).total_bytes
        for budget in (10**9, 2 * 10**8, 1)
    ]
    assert sizes[0] > sizes[1] >= sizes[2] > 0
