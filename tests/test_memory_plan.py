"""What an evaluation is said to take is what it takes at most, and not many times more."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ptlreid.retrieval.memory_plan import estimate, plan
from ptlreid.retrieval.metrics import evaluate_blocks
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.rerank import rerank
from ptlreid.retrieval.types import Features


def features(size: int, width: int, seed: int) -> Features:
    """People scattered around centres, ten images each, as neighbours in re-ranking are."""
    rng = np.random.default_rng(seed)
    pids = rng.integers(1, size // 10, size)
    matrix = np.random.default_rng(9).standard_normal((size, width), dtype=np.float32)[pids]
    matrix += rng.standard_normal((size, width), dtype=np.float32)
    return Features(matrix, pids, np.full(size, seed), np.full(size, "", dtype=object))


def test_without_re_ranking_it_is_the_features_and_the_plan():
    found = estimate(100, 900, 64, memory_budget=10**8)
    assert found.features == (100 + 900) * 64 * 4
    assert (found.ranking, found.reranking) == (plan(100, 900, 64, 10**8).bytes, 0)
    assert found.total == found.features + found.ranking


@pytest.mark.parametrize("width", [32, 512])
def test_re_ranking_stays_within_its_estimate(width):
    query, gallery = features(500, width, 1), features(6000, width, 2)
    tracemalloc.start()
    evaluate_blocks(rerank(query, gallery), query, gallery, PROTOCOLS["market"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = estimate(500, 6000, width, rerank=True)
    assert peak <= found.ranking + found.reranking <= 3 * peak


def test_a_smaller_budget_takes_less_until_the_least():
    sizes = [estimate(3000, 50_000, 128, rerank=True, memory_budget=budget).total for budget in (10**9, 2 * 10**8, 1)]
    assert sizes[0] > sizes[1] >= sizes[2] > 0
