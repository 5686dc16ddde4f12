"""Ranks and scores against a slow and obvious loop, on random cases full of ties, and against scikit-learn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from ranking import evaluate, evaluate_blocks, ranklist
from sklearn.metrics import average_precision_score

from ptlreid.errors import DataError
from ptlreid.retrieval.distance import distance_blocks, matrix_blocks
from ptlreid.retrieval.pairs import Pairs
from ptlreid.retrieval.protocols import PROTOCOLS, Protocol
from ptlreid.retrieval.thresholds import count_pairs
from ptlreid.retrieval.types import Features, Retrieval, Scores

MARKET, ANY_CAMERA, CLOTHES = (PROTOCOLS[name] for name in ("market", "any-camera", "cloth-changing"))
NUMBERS = count()  # of images, so that no two have one name


def features(matrix: np.ndarray, pids: np.ndarray, camids: np.ndarray, clothes: np.ndarray | None = None) -> Features:
    paths = np.array([f"{next(NUMBERS)}.jpg" for _ in range(len(matrix))], dtype=object)
    return Features(matrix.astype(np.float32), pids, camids, paths, clothes)


def slow_order(query: Features, gallery: Features, protocol: Protocol, row: int) -> list[tuple[float, int, bool]]:
    """The images that the query at `row` sees, nearest first: distance, column, and whether it is a true match."""
    seen = []
    for column in range(len(gallery)):
        same_camera = gallery.camids[column] == query.camids[row]
        same_person = gallery.pids[column] == query.pids[row]
        if gallery.pids[column] == -1 or (gallery.pids[column] == -2 and not protocol.keep_distractors):
            continue
        if same_camera and (protocol.other_cameras_only or (same_person and protocol.ignore_own_camera_matches)):
            continue
        equal = bool((query.matrix[row] == gallery.matrix[column]).all())
        if protocol.leave_one_out and same_person and query.pids[row] >= 0 and equal:
            continue
        same_clothes = same_person and gallery.clothes[column] == query.clothes[row]
        if protocol.ignore_own_clothes_matches and same_clothes:
            continue
        gap = query.matrix[row].astype(float) - gallery.matrix[column].astype(float)
        seen.append((float(gap @ gap), column, bool(same_person and query.pids[row] >= 0)))
    return sorted(seen)


def slow(query: Features, gallery: Features, protocol: Protocol) -> dict[int, dict[int, int]]:
    """By query row, its true matches by rank: one image after another, in float64."""
    places: dict[int, dict[int, int]] = {}
    for row in range(len(query)):
        seen = slow_order(query, gallery, protocol, row)
        found = {rank: image[1] for rank, image in enumerate(seen, start=1) if image[2]}
        if found:
            places[row] = found
    return places


def check_against_slow(scores: Scores, places: dict[int, dict[int, int]], max_rank: int, ap: str) -> None:
    assert scores.rows.tolist() == list(places)
    for index, columns in enumerate(places.values()):
        found = list(columns)
        first, last = scores.match_starts[index : index + 2]
        assert scores.match_ranks[first:last].tolist() == found
        assert scores.match_columns[first:last].tolist() == list(columns.values())
        area = 0.0
        for number, rank in enumerate(found, start=1):
            here = number / rank
            before = 1.0 if rank == 1 else (number - 1) / (rank - 1)
            area += (here if ap == "step" else (here + before) / 2) / len(found)
        assert scores.average_precision[index] == pytest.approx(area)
        assert scores.inp[index] == pytest.approx(len(found) / found[-1])
    for rank in range(1, max_rank + 1):
        share = sum(min(columns) <= rank for columns in places.values()) / len(places)
        assert scores.cmc[rank - 1] == pytest.approx(share)


def random_case(seed: int, *, ties: bool = True) -> tuple[Features, Features]:
    """Few identities, cameras and positions, so that ties, junk, missing matches and one-image galleries all occur."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 5))

    def side(size: int) -> Features:
        spread = rng.integers(-2, 3, (size, width)) if ties else rng.standard_normal((size, width))
        pids, camids, clothes = rng.integers(-2, 5, size), rng.integers(1, 4, size), rng.integers(0, 3, size)
        return features(spread, pids, camids, clothes)

    return side(int(rng.integers(1, 9))), side(int(rng.integers(1, 60 if seed % 2 else 12)))


PROTOCOL_CHOICES = (
    MARKET,
    ANY_CAMERA,
    CLOTHES,
    Protocol("other", other_cameras_only=True),
    replace(MARKET, keep_distractors=False),
)


def test_equal_to_a_slow_loop_on_random_cases_with_ties():
    with_scores = 0
    for seed in range(600):
        query, gallery = random_case(seed, ties=seed % 7 > 0)
        protocol, ap = PROTOCOL_CHOICES[seed % 5], ("step", "trapezoid")[seed // 5 % 2]
        expected = slow(query, gallery, protocol)
        if not expected:
            with pytest.raises(DataError, match="true match"):
                evaluate(query, gallery, protocol)
            continue
        check_against_slow(evaluate(query, gallery, protocol, ap=ap, max_rank=25), expected, 25, ap)
        with_scores += 1
    assert with_scores > 300


def test_equal_to_scikit_learn_where_nothing_ties():
    for seed in range(40):
        query, gallery = random_case(seed, ties=False)
        gallery = replace(gallery, pids=np.abs(gallery.pids))
        if not slow(query, gallery, ANY_CAMERA):
            continue
        scores = evaluate(query, gallery, ANY_CAMERA)
        for row, precision in zip(scores.rows, scores.average_precision, strict=True):
            gaps = np.linalg.norm(gallery.matrix.astype(float) - query.matrix[row], axis=1)
            assert precision == pytest.approx(average_precision_score(gallery.pids == query.pids[row], -gaps))


def test_a_given_matrix_of_distances_is_scored_alike_and_left_alone():
    query, gallery = random_case(11)
    gaps = query.matrix[:, None].astype(float) - gallery.matrix[None]
    distances = np.square(gaps).sum(axis=-1)
    before = distances.copy()
    scores = evaluate_blocks(matrix_blocks(distances), query, gallery, MARKET)
    check_against_slow(scores, slow(query, gallery, MARKET), 50, "step")
    np.testing.assert_array_equal(distances, before)


def test_other_clothes_alone_count_under_every_memory_budget_and_in_rank_lists_and_thresholds():
    for seed in range(60):
        query, gallery = random_case(seed)
        people = np.flatnonzero(query.pids >= 0)
        orders = {int(row): slow_order(query, gallery, CLOTHES, row) for row in people}
        found = ranklist(query, gallery, CLOTHES, len(gallery), memory_budget=(None, 1)[seed % 2])
        for row, order in orders.items():
            assert found.columns[row][found.columns[row] >= 0].tolist() == [column for _, column, _ in order]
            assert found.matches[row][: len(order)].tolist() == [match for _, _, match in order]
        pairs = Counter(match for order in orders.values() for _, _, match in order)
        if min(pairs[True], pairs[False]) > 0:
            retrieval = Retrieval(query, gallery, CLOTHES)
            source = distance_blocks(retrieval, metric="euclidean", memory_budget=1)
            counts = count_pairs(Pairs(retrieval, source, "euclidean"), [])
            assert (counts.same.sum(), counts.different.sum()) == (pairs[True], pairs[False])
        if expected := slow(query, gallery, CLOTHES):
            scores = evaluate(query, gallery, CLOTHES, max_rank=25, memory_budget=1)
            check_against_slow(scores, expected, 25, "step")
