"""Ranks and scores worked by hand, and what no memory budget may change. See also test_metrics_by_loop.py."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from ranking import evaluate, evaluate_blocks

from ptlreid.errors import DataError
from ptlreid.retrieval import memory_plan
from ptlreid.retrieval.distance import matrix_blocks
from ptlreid.retrieval.memory_plan import plan_blocks
from ptlreid.retrieval.metrics import average_precisions
from ptlreid.retrieval.protocols import PROTOCOLS, Protocol
from ptlreid.retrieval.types import Features

MARKET, ANY_CAMERA = PROTOCOLS["market"], PROTOCOLS["any-camera"]
NUMBERS = count()  # of images, so that no two have one name


def features(
    matrix: list[list[float]] | np.ndarray, pids: list[int] | np.ndarray, camids: list[int] | np.ndarray
) -> Features:
    rows = np.asarray(matrix, dtype=np.float32)
    paths = np.array([f"{next(NUMBERS)}.jpg" for _ in range(len(rows))], dtype=object)
    return Features(rows, np.asarray(pids, dtype=np.int64), np.asarray(camids, dtype=np.int64), paths)


def line(positions: list[float], pids: list[int], camids: list[int]) -> Features:
    """Images on a line, so that distances can be read off."""
    return features([[position] for position in positions], pids, camids)


def test_hits_at_ranks_1_and_3():
    scores = evaluate(line([0], [7], [1]), line([1, 2, 3, 4], [7, 8, 7, 9], [2, 2, 2, 2]), MARKET)
    assert scores.mean_ap == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert scores.mean_inp == pytest.approx(2 / 3)  # two matches, the last at rank 3
    assert scores.match_ranks.tolist() == [1, 3]
    assert scores.match_columns.tolist() == [0, 2]
    assert scores.cmc[0] == 1


def test_trapezoid_takes_the_mean_with_the_precision_one_rank_earlier():
    scores = evaluate(line([0], [7], [1]), line([1, 2, 3], [7, 8, 7], [2, 2, 2]), MARKET, ap="trapezoid")
    assert scores.mean_ap == pytest.approx(((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_trapezoid_of_a_match_that_is_not_first_starts_from_nothing():
    assert average_precisions(np.array([2]), np.array([0, 1]), "trapezoid") == pytest.approx((0 / 1 + 1 / 2) / 2)


def test_the_same_identity_in_the_same_camera_is_ignored():
    query, gallery = line([0], [7], [1]), line([1, 2, 3], [7, 8, 7], [1, 2, 2])
    assert evaluate(query, gallery, MARKET).match_ranks.tolist() == [2]  # only 8 is nearer
    assert evaluate(query, gallery, ANY_CAMERA).match_ranks.tolist() == [1, 3]


def test_junk_leaves_and_distractors_stay():
    scores = evaluate(line([0], [7], [1]), line([1, 2, 3], [-1, -2, 7], [2, 2, 2]), MARKET)
    assert scores.match_ranks.tolist() == [2]
    assert (scores.num_gallery, scores.num_junk) == (3, 1)
    without = evaluate(
        line([0], [7], [1]), line([1, 2, 3], [-1, -2, 7], [2, 2, 2]), replace(MARKET, keep_distractors=False)
    )
    assert without.match_ranks.tolist() == [1]


def test_identity_0_is_an_identity_like_any_other():
    scores = evaluate(line([0, 0], [0, 7], [1, 1]), line([1, 2, 3], [7, 0, 8], [2, 2, 2]), MARKET)
    assert scores.match_ranks.tolist() == [2, 1]


@pytest.mark.parametrize("order", [[7, 8, 8, 7], [8, 7, 7, 8], [8, 8, 7, 7]])
def test_equal_distances_keep_the_order_of_the_gallery(order: list[int]):
    scores = evaluate(line([0], [7], [1]), line([1, -1, 1, -1], order, [2, 2, 2, 2]), MARKET)
    assert scores.match_ranks.tolist() == [place + 1 for place, pid in enumerate(order) if pid == 7]


def test_queries_without_a_match_are_left_out_and_counted():
    query = line([0, 0, 0, 0], [7, 9, -2, -1], [1, 1, 1, 1])  # 9 is not there; -2 and -1 are nobody
    scores = evaluate(query, line([1, 2, 3], [7, -2, -1], [2, 2, 2]), MARKET)
    assert scores.rows.tolist() == [0]
    assert scores.summary()["queries"] == {"total": 4, "valid": 1}
    assert scores.mean_ap == 1


def test_other_cameras_only_hides_the_whole_camera():
    protocol = Protocol("other", other_cameras_only=True)
    scores = evaluate(line([0], [7], [1]), line([1, 2, 3, 4], [8, 7, 9, 7], [1, 1, 2, 2]), protocol)
    assert scores.match_ranks.tolist() == [2]


def test_the_curve_is_flat_beyond_a_small_gallery():
    scores = evaluate(line([0, 9], [7, 8], [1, 1]), line([1, 2], [7, 8], [2, 2]), MARKET)
    assert len(scores.cmc) == 50
    assert scores.summary()["cmc"] == {"1": 1.0, "5": 1.0, "10": 1.0, "20": 1.0}
    assert evaluate(line([5], [7], [1]), line([5, 0], [8, 7], [2, 2]), MARKET, max_rank=3).cmc.tolist() == [0, 1, 1]


def test_cosine_looks_at_directions_alone():
    gallery = features([[9, 9], [1, 0]], [8, 7], [2, 2])
    assert evaluate(features([[1, 0]], [7], [1]), gallery, MARKET, metric="cosine").match_ranks.tolist() == [1]
    assert evaluate(features([[8, 7]], [7], [1]), gallery, MARKET, metric="cosine").match_ranks.tolist() == [2]


def test_a_zero_vector_is_at_a_right_angle_to_everything():
    gallery = features([[0, 0], [1, 0], [-1, 0]], [7, 8, 9], [2, 2, 2])
    assert evaluate(features([[1, 0]], [7], [1]), gallery, MARKET, metric="cosine").match_ranks.tolist() == [2]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_no_memory_budget_changes_a_number(metric: str, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    query, gallery = (
        features(rng.standard_normal((size, 33)), rng.integers(0, 9, size).tolist(), rng.integers(1, 4, size).tolist())
        for size in (77, 1031)
    )
    monkeypatch.setattr(memory_plan, "_TILE_COLUMNS", 100)
    whole = evaluate(query, gallery, MARKET, metric=metric)
    for memory_budget in (300_000, 250_000, 200_000, 1):
        scores = evaluate(query, gallery, MARKET, metric=metric, memory_budget=memory_budget)
        np.testing.assert_array_equal(scores.match_ranks, whole.match_ranks)
        np.testing.assert_array_equal(scores.match_columns, whole.match_columns)
        assert scores.mean_ap == whole.mean_ap


def test_an_evaluation_stays_within_its_plan():
    """With rows long enough for several threads."""
    rng = np.random.default_rng(3)
    query, gallery = (
        features(
            rng.standard_normal((size, 8), dtype=np.float32), rng.integers(0, 5000, size), rng.integers(1, 4, size)
        )
        for size in (300, 60_000)
    )
    tracemalloc.start()
    scores = evaluate(query, gallery, MARKET, memory_budget=60_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= plan_blocks(300, 60_000, 8, 60_000_000).peak_bytes <= 60_000_000
    np.testing.assert_array_equal(scores.match_ranks, evaluate(query, gallery, MARKET).match_ranks)


@pytest.mark.parametrize(
    ("gallery_pid", "name", "remedy"),
    [
        (7, "market", "Where identities were seen by one camera only, use --protocol any-camera."),
        (7, "cuhk03-classic", "Where identities were seen by one camera only, use --protocol any-camera."),
        (7, "any-camera", "The only match of each query is its own image: add other images of these identities to"),
        (8, "market", "Query and gallery share no identity: check that both number the same identities alike."),
        (8, "any-camera", "Query and gallery share no identity: check that both number the same identities alike."),
        (-1, "any-camera", "Query and gallery share no identity: check that both number the same identities alike."),
    ],
)
def test_no_valid_query_is_an_error_that_names_the_way_out(gallery_pid, name, remedy):
    query, gallery = line([0, 1], [7, -1], [1, 1]), line([0], [gallery_pid], [1])
    with pytest.raises(DataError, match=f"None of the 2 queries .* protocol '{name}': expected at least one. {remedy}"):
        evaluate(query, gallery, PROTOCOLS[name])


def test_blocks_that_do_not_fit_the_features_are_an_error():
    query, gallery = line([0, 1], [7, 7], [1, 1]), line([1, 2], [7, 8], [2, 2])
    for distances in (np.zeros((1, 2)), np.zeros((3, 2)), np.zeros((2, 3))):
        with pytest.raises(DataError, match="distances"):
            evaluate_blocks(matrix_blocks(distances), query, gallery, MARKET)
    (row,) = matrix_blocks(np.zeros((1, 2)))
    with pytest.raises(DataError, match=r"Rows 0 to 1 .* expected rows from 1"):
        evaluate_blocks([row, row], query, gallery, MARKET)
    assert (
        evaluate_blocks(
            [row, replace(row, rows=range(1, 2), keys_of=lambda _: row.keys_of(0))], query, gallery, MARKET
        ).num_valid
        == 2
    )
