"""Each camera pair against an evaluation of the queries and images of these cameras alone."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from ranking import blocks, camera_scores, evaluate_blocks
from test_metrics_by_loop import features, random_case, slow

from ptlreid.errors import DataError
from ptlreid.retrieval import memory_plan
from ptlreid.retrieval.distance import matrix_blocks
from ptlreid.retrieval.protocols import PROTOCOLS, Protocol
from ptlreid.retrieval.types import Features

MARKET = PROTOCOLS["market"]
NUMBERS = count()  # of images, so that no two have one name
CHOICES = (
    MARKET,
    PROTOCOLS["any-camera"],
    PROTOCOLS["cloth-changing"],
    Protocol("other", other_cameras_only=True),
)


@pytest.mark.parametrize("seed", range(120))
def test_equal_to_a_slow_loop_on_each_pair_alone(seed: int):
    query, gallery = random_case(seed, ties=seed % 5 > 0)
    protocol, ap = CHOICES[seed % 4], ("step", "trapezoid")[seed // 4 % 2]
    found = camera_scores(blocks(query, gallery), query, gallery, protocol, ap=ap)
    assert found.query_cameras.tolist() == sorted(set(query.camids.tolist()))
    assert found.gallery_cameras.tolist() == sorted(set(gallery.camids.tolist()))
    for row, left in enumerate(found.query_cameras):
        for column, right in enumerate(found.gallery_cameras):
            asked, searched = query.select(query.camids == left), gallery.select(gallery.camids == right)
            places = slow(asked, searched, protocol)
            assert found.queries[row] == len(asked)
            assert found.valid[row, column] == len(places)
            if not places:
                assert np.isnan([found.mean_ap[row, column], found.cmc1[row, column]]).all()
                continue
            areas = []
            for ranks in places.values():
                heights = []
                for number, rank in enumerate(ranks, start=1):
                    before = 1.0 if rank == 1 else (number - 1) / (rank - 1)
                    heights.append(number / rank if ap == "step" else (number / rank + before) / 2)
                areas.append(sum(heights) / len(heights))
            assert found.mean_ap[row, column] == pytest.approx(sum(areas) / len(areas))
            assert found.cmc1[row, column] == pytest.approx(sum(1 in ranks for ranks in places.values()) / len(places))


def line(positions: list[float], pids: list[int], camids: list[int]) -> Features:
    return features(np.array(positions, dtype=float)[:, None], np.array(pids), np.array(camids))


def test_two_cameras_worked_by_hand():
    """From camera 1 the person is first in camera 2 and second, behind a stranger, in camera 3."""
    query = line([0, 0], [7, 9], [1, 1])
    gallery = line([5, 1, 9, 2, 3], [7, 7, 8, 8, 7], [1, 2, 2, 3, 3])
    cells = camera_scores(blocks(query, gallery), query, gallery, MARKET).cells()
    count = {"total": 2, "valid": 1}
    assert cells == [
        {"query": 1, "gallery": 1, "queries": {"total": 2, "valid": 0}, "mAP": None, "cmc": {"1": None}},
        {"query": 1, "gallery": 2, "queries": count, "mAP": 1.0, "cmc": {"1": 1.0}},
        {"query": 1, "gallery": 3, "queries": count, "mAP": 0.5, "cmc": {"1": 0.0}},
    ]


def test_no_memory_budget_changes_a_cell_and_several_threads_do_not(monkeypatch):
    monkeypatch.setattr(memory_plan, "_TILE_COLUMNS", 100)
    monkeypatch.setattr("ptlreid.retrieval.distance._LONG_ROW", 10)
    rng = np.random.default_rng(4)
    query, gallery = (
        features(rng.standard_normal((size, 9)), rng.integers(0, 30, size), rng.integers(1, 5, size))
        for size in (150, 900)
    )
    whole = camera_scores(blocks(query, gallery), query, gallery, MARKET)
    small = camera_scores(blocks(query, gallery, memory_budget=1), query, gallery, MARKET)
    for name in ("valid", "mean_ap", "cmc1"):
        np.testing.assert_array_equal(getattr(small, name), getattr(whole, name))


def test_one_gallery_camera_is_the_evaluation_itself():
    rng = np.random.default_rng(5)
    query = features(rng.standard_normal((40, 4)), rng.integers(1, 9, 40), np.ones(40, dtype=np.int64))
    gallery = features(rng.standard_normal((80, 4)), rng.integers(-1, 9, 80), np.full(80, 2))
    whole = evaluate_blocks(blocks(query, gallery), query, gallery, MARKET)
    found = camera_scores(blocks(query, gallery), query, gallery, MARKET)
    assert found.mean_ap[0, 0] == pytest.approx(whole.mean_ap)
    assert found.cmc1[0, 0] == pytest.approx(whole.cmc[0])
    assert found.valid[0, 0] == whole.num_valid


def test_distances_of_other_features_are_an_error():
    query, gallery = line([0, 1], [7, 7], [1, 1]), line([1, 2], [7, 8], [2, 2])
    with pytest.raises(DataError, match="distances"):
        camera_scores(matrix_blocks(np.zeros((2, 3))), query, gallery, MARKET)
