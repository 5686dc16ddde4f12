"""The single-gallery-shot curve against every possible sample, and against seeded samples."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ranking import evaluate

from ptlreid.errors import OptionError
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.single_shot import expected_curve
from ptlreid.retrieval.types import Features

CLASSIC = PROTOCOLS["cuhk03-classic"]


def line(positions: list[float], pids: list[int], camids: list[int]) -> Features:
    paths = np.array([str(position) for position in positions], dtype=object)
    matrix = np.asarray(positions, dtype=np.float32)[:, None]
    return Features(matrix, np.asarray(pids, dtype=np.int64), np.asarray(camids, dtype=np.int64), paths)


def test_one_nearer_stranger_half_of_the_time():
    gallery = line([1, 2, 3], [8, 7, 8], [2, 2, 2])  # the sampled 8 is nearer than 7 with probability 1/2
    assert evaluate(line([0], [7], [1]), gallery, CLASSIC, max_rank=3).cmc.tolist() == [0.5, 1, 1]


def test_two_strangers_worked_by_hand():
    # nearer with probability 1/2 and 1/3: none 1/2 x 2/3, one 1/2 x 2/3 + 1/2 x 1/3, both 1/6
    np.testing.assert_allclose(expected_curve(np.array([1 / 2, 1 / 3]), 4), [1 / 3, 5 / 6, 1, 1])


def test_strangers_that_are_always_nearer_shift_the_curve():
    np.testing.assert_allclose(expected_curve(np.array([1, 0.5, 1]), 4), [0, 0, 0.5, 1])
    assert expected_curve(np.ones(3), 2).tolist() == expected_curve(np.ones(2), 2).tolist() == [0, 0]
    assert expected_curve(np.array([]), 2).tolist() == [1, 1]


def test_each_distractor_is_always_sampled():
    gallery = line([1, 2, 3], [-2, -2, 7], [2, 2, 2])
    assert evaluate(line([0], [7], [1]), gallery, CLASSIC, max_rank=3).cmc.tolist() == [0, 0, 1]


def test_average_precision_sees_the_whole_gallery():
    gallery = line([1, 2, 3], [8, 7, 8], [2, 2, 2])
    scores = evaluate(line([0], [7], [1]), gallery, CLASSIC)
    assert scores.mean_ap == 1 / 2
    assert scores.first_match_rank.tolist() == [2]


def enumerated(query: Features, gallery: Features, max_rank: int) -> np.ndarray:
    """The mean curve over every way to sample one image of each identity, for one query of camera 1."""
    columns = [c for c in range(len(gallery)) if gallery.camids[c] != query.camids[0] and gallery.pids[c] != -1]
    groups: dict[object, list[int]] = {}
    for column in columns:
        pid = int(gallery.pids[column])
        groups.setdefault(pid if pid >= 0 else f"distractor {column}", []).append(column)
    curves = []
    for sample in product(*groups.values()):
        far = {c: abs(float(gallery.matrix[c, 0]) - float(query.matrix[0, 0])) for c in sample}
        order = sorted(sample, key=lambda c: (far[c], c))
        rank = 1 + [gallery.pids[c] for c in order].index(query.pids[0])
        curves.append([rank <= k for k in range(1, max_rank + 1)])
    return np.mean(curves, axis=0)


def random_case(seed: int, size: int, identities: int) -> tuple[Features, Features]:
    rng = np.random.default_rng(seed)
    pids = rng.integers(-2, identities + 1, size)
    pids[0] = 1
    camids = rng.integers(1, 4, size)
    camids[0] = 2
    gallery = line(rng.integers(-6, 7, size).tolist(), pids.tolist(), camids.tolist())
    return line([float(rng.integers(-2, 3))], [1], [1]), gallery


@pytest.mark.parametrize("seed", range(60))
def test_equal_to_every_possible_sample_with_ties_junk_and_distractors(seed: int):
    query, gallery = random_case(seed, 12, 4)
    scores = evaluate(query, gallery, CLASSIC, max_rank=6)
    np.testing.assert_allclose(scores.cmc, enumerated(query, gallery, 6), atol=1e-12)


def test_within_the_sampling_error_of_400_seeded_samples():
    for seed in range(5):
        query, gallery = random_case(seed, 200, 20)
        exact = evaluate(query, gallery, CLASSIC, max_rank=20).cmc
        sampled = evaluate(query, gallery, CLASSIC, max_rank=20, single_shot_samples=400, seed=seed).cmc
        error = np.sqrt(exact * (1 - exact) / 400)
        assert (np.abs(sampled - exact) <= 4.5 * error + 1e-12).all()
        assert np.abs(sampled - exact).max() > 0  # not the expectation


def test_samples_depend_on_the_seed_only():
    query, gallery = random_case(1, 200, 20)
    curves = [evaluate(query, gallery, CLASSIC, single_shot_samples=10, seed=seed).cmc.tolist() for seed in (3, 3, 4)]
    assert curves[0] == curves[1] != curves[2]


def test_zero_samples_are_an_error():
    query, gallery = random_case(1, 20, 4)
    with pytest.raises(OptionError, match="0 samples"):
        evaluate(query, gallery, CLASSIC, single_shot_samples=0)


def test_fractions_never_exceed_one():
    query, gallery = random_case(2, 400, 60)
    cmc = evaluate(query, gallery, CLASSIC, max_rank=80).cmc
    assert (np.diff(cmc) >= 0).all()
    assert 0 <= cmc[0] <= cmc[-1] <= 1
