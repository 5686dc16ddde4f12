"""Notes on features with which scores mean little."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.retrieval.feature_checks import describe_doubts
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features, Retrieval


def side(matrix: np.ndarray, name: str) -> Features:
    ids = np.arange(len(matrix))
    paths = np.array([f"{name}{row}.jpg" for row in range(len(matrix))], dtype=object)
    return Features(matrix.astype(np.float32), ids, ids, paths)


def doubts(query: np.ndarray, gallery: np.ndarray, protocol: str = "market") -> list[str]:
    return describe_doubts(Retrieval(side(query, "q"), side(gallery, "g"), PROTOCOLS[protocol]))


def normal(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, 16))


@pytest.mark.parametrize("offset", [0, 1000])
def test_features_that_differ_are_not_remarked_on(offset):
    assert doubts(normal(5) + offset, normal(9) + offset) == []


def test_zero_rows_are_counted_and_the_first_is_named():
    gallery = normal(9)
    gallery[[4, 6]] = 0
    (note,) = doubts(normal(5), gallery)
    assert note.startswith("2 of 9 gallery features are all zero, the first of them row 4 (g4.jpg): check")


@pytest.mark.parametrize(("spread", "words"), [(1e-6, "they differ by 4e-06 of their length"), (0, "all images have")])
def test_a_collapsed_network_is_suspected(spread, words):
    direction = np.ones(16) / 4  # of length 1
    (note,) = doubts(direction + spread * normal(300), direction + spread * normal(700))
    assert note.startswith("the features are all but equal")
    assert words in note


def test_queries_that_are_in_the_gallery_are_counted():
    both = normal(6)
    assert doubts(both[:4], both) == []
    (note,) = doubts(both[:4], both, "any-camera")
    assert note.startswith("4 of 4 queries are in the gallery themselves: under the protocol any-camera, each is left")
