"""Query expansion, worked by hand and against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from ranking import expand

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval.types import Features


def features(matrix: np.ndarray, pids: list[int] | None = None) -> Features:
    size = len(matrix)
    people = np.ones(size, dtype=np.int64) if pids is None else np.asarray(pids, dtype=np.int64)
    paths = np.array([f"{row}.jpg" for row in range(size)], dtype=object)
    return Features(np.asarray(matrix, dtype=np.float32), people, np.ones(size, dtype=np.int64), paths)


def test_the_average_of_a_query_and_its_nearest_image():
    expanded = expand(features([[2, 0]]), features([[0, 3], [-1, 0]]), size=1)
    np.testing.assert_allclose(expanded.matrix, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_alpha_weighs_by_the_power_of_the_cosine():
    expanded = expand(features([[1, 0]]), features([[3, 4], [-1, 0]]), size=2, alpha=2)
    sum_of_both = np.array([1, 0]) + 0.6**2 * np.array([0.6, 0.8])  # the opposite image has weight 0
    np.testing.assert_allclose(expanded.matrix[0], sum_of_both / np.linalg.norm(sum_of_both), rtol=1e-6)


def test_junk_is_not_used():
    expanded = expand(features([[1, 0]]), features([[0, 1], [1, 0]], [-1, 7]), size=5)
    np.testing.assert_allclose(expanded.matrix, [[1, 0]])


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_equal_to_a_slow_loop(alpha: float):
    rng = np.random.default_rng(2)
    query, gallery = features(rng.standard_normal((7, 6))), features(rng.standard_normal((400, 6)))
    expanded = expand(query, gallery, size=4, alpha=alpha)
    images = gallery.matrix / np.linalg.norm(gallery.matrix, axis=1, keepdims=True)
    for row, vector in enumerate(query.matrix):
        unit = vector / np.linalg.norm(vector)
        total = unit.astype(float)
        for image in sorted(images.astype(float), key=lambda image: -(image @ unit))[:4]:
            total = total + (image @ unit) ** alpha * image
        np.testing.assert_allclose(expanded.matrix[row], total / np.linalg.norm(total), atol=1e-6)


def test_without_an_image_that_may_be_used_it_is_an_error():
    with pytest.raises(DataError, match="only junk"):
        expand(features([[1, 0]]), features([[0, 1]], [-1]), size=1)


@pytest.mark.parametrize("option", [{"size": 0}, {"alpha": -1.0}])
def test_a_setting_without_meaning_is_an_error(option: dict[str, float]):
    with pytest.raises(OptionError, match="expected size"):
        expand(features([[1, 0]]), features([[1, 0]]), **option)
