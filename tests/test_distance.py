"""Streamed keys: right, the same for every budget to the last bit, and equal for equal images."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from ranking import blocks

from ptlreid.errors import DataError
from ptlreid.retrieval import distance, memory_plan
from ptlreid.retrieval.distance import key_blocks, matrix_blocks
from ptlreid.retrieval.memory_plan import plan_blocks
from ptlreid.retrieval.types import Features


def features(matrix: np.ndarray) -> Features:
    ids = np.ones(len(matrix), dtype=np.int64)
    return Features(matrix, ids, ids, np.array([f"{row}.jpg" for row in range(len(matrix))], dtype=object))


def normal(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width), dtype=np.float32)


def all_keys(queries: np.ndarray, images: np.ndarray, **options: object) -> np.ndarray:
    """The keys of all blocks, as squared distances."""
    rows = []
    for block in key_blocks(queries, images, **{"metric": "euclidean", "memory_budget": None} | options):
        assert block.rows.start == sum(len(keys) for keys in rows)
        rows.append(np.stack([block.keys_of(row) * np.float32(block.unit) for row in block.rows]))
        assert rows[-1].shape == (len(block.rows), block.num_gallery)
    return np.concatenate(rows)


def test_keys_are_squared_distances():
    keys = all_keys(np.float32([[0, 0], [3, 4]]), np.float32([[3, 4], [0, 2], [1, 0]]))
    assert keys.tolist() == [[25, 4, 1], [0, 9 + 4, 4 + 16]]


def test_keys_for_cosine_distance_are_two_minus_twice_the_cosine():
    keys = all_keys(np.float32([[3, 4], [0, 0]]), np.float32([[6, 8], [0, 2], [-1, 0], [0, 0]]), metric="cosine")
    # cosines 1, 8 / 10, -3 / 5; 0 where a vector is zero
    np.testing.assert_allclose(keys, [[0, 0.4, 3.2, 2], [2, 2, 2, 2]], rtol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("num_queries", "num_images", "width"), [(1, 1, 1), (3, 7, 5), (70, 333, 64), (1100, 40, 17)])
def test_every_budget_gives_the_same_bits(metric: str, num_queries: int, num_images: int, width: int):
    queries, images = normal(num_queries, width), normal(num_images, width, seed=1)
    whole = all_keys(queries, images, metric=metric)
    exact = queries.astype(float) @ images.T.astype(float)
    lengths = np.linalg.norm(images.astype(float), axis=1)
    squares = np.square(np.linalg.norm(queries.astype(float), axis=1))[:, None]
    expected = lengths**2 - 2 * exact + squares if metric == "euclidean" else 2 - 2 * exact / lengths / squares**0.5
    np.testing.assert_allclose(whole, expected, rtol=2e-4, atol=1e-12)
    least = plan_blocks(num_queries, num_images, width, 1 << 30).peak_bytes
    for memory_budget in (least - 1, least // 2, 1):
        np.testing.assert_array_equal(all_keys(queries, images, metric=metric, memory_budget=memory_budget), whole)


def test_parts_of_a_strip_have_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_plan, "_TILE_COLUMNS", 100)
    monkeypatch.setattr(memory_plan, "_STRIP_ROWS", (16, 64))
    queries, images = normal(150, 48), normal(333, 48, seed=1)
    assert plan_blocks(150, 333, 48, None).columns == 84  # four equal tiles
    whole = all_keys(queries, images)
    rows = set()
    for memory_budget in range(1, 300_000, 10_000):
        rows.add(plan_blocks(150, 333, 48, memory_budget).rows)
        np.testing.assert_array_equal(all_keys(queries, images, memory_budget=memory_budget), whole)
    assert rows >= {1, 3, 12, 25, 50}  # of three equal strips


def place_dependent(strip: np.ndarray, transposed: np.ndarray, out: np.ndarray) -> None:
    """A product as some BLAS kernels make it: its last bits depend on the place in the call, and on its shape."""
    places = np.arange(out.size).reshape(out.shape)
    out[...] = strip.dot(transposed) * (1 + np.float32(2e-7) * (places % 3)) + transposed.shape[1] % 2 * np.float32(
        1e-6
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("width", [1, 3, 17, 64, 100, 513])
def test_equal_images_have_equal_keys_wherever_they_lie(metric: str, width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distance.np, "matmul", place_dependent)
    monkeypatch.setattr(memory_plan, "_TILE_COLUMNS", 100)
    images = normal(259, width, seed=width)
    images[[3, 100, 257, 258]] = images[2]
    images[[50, 61]] = images[10]
    images[50, 0], images[61, 0] = 0.0, -0.0
    queries = normal(67, width)
    keys = all_keys(queries, images, metric=metric)
    for copy, original in ((3, 2), (100, 2), (257, 2), (258, 2), (61, 50)):
        np.testing.assert_array_equal(keys[:, copy], keys[:, original])
    np.testing.assert_array_equal(all_keys(queries, images, metric=metric, memory_budget=1), keys)


def test_images_that_differ_at_the_end_alone_are_not_taken_for_equal():
    images = np.repeat(normal(1, 100), 3, axis=0)
    images[:, -2:] = [[3, 4], [4, 3], [3, 4]]  # same length, same first values
    keys = all_keys(np.eye(100, dtype=np.float32)[-1:], images)
    assert keys[0, 0] == keys[0, 2] != keys[0, 1]


def test_the_order_in_memory_does_not_matter():
    queries, images = normal(9, 20), normal(30, 20, seed=1)
    np.testing.assert_array_equal(
        all_keys(np.asfortranarray(queries), np.asfortranarray(images)), all_keys(queries, images)
    )


@pytest.mark.parametrize("num_gallery", [10, 15_913, 82_161, 515_913])
def test_a_plan_stays_within_its_budget(num_gallery: int):
    for memory_budget in (1_000_000_000, 500_000_000, 250_000_000):
        assert plan_blocks(3368, num_gallery, 512, memory_budget).peak_bytes <= memory_budget
    assert plan_blocks(3368, num_gallery, 512, 1).peak_bytes <= 135_000_000 + 110 * num_gallery


def test_scarce_memory_makes_blocks_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda: 800_000_000)
    assert plan_blocks(3368, 82_161, 512, None).peak_bytes <= 200_000_000
    assert plan_blocks(3368, 82_161, 512, None).rows < plan_blocks(3368, 82_161, 512, None).strip == 842


def test_memory_taken_is_what_the_plan_says():
    queries, images = normal(600, 16), normal(70_000, 16, seed=1)
    rows = set()
    for memory_budget in (250_000_000, 150_000_000, 80_000_000):
        tracemalloc.start()
        for block in key_blocks(queries, images, metric="euclidean", memory_budget=memory_budget):
            block.keys_of(block.rows.start)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        planned = plan_blocks(600, 70_000, 16, memory_budget)
        assert 0.9 * 4 * planned.rows * 70_000 < peak <= planned.peak_bytes <= memory_budget
        rows.add(planned.rows)
    assert len(rows) == 3


def test_free_memory_is_plausible():
    assert 1 << 20 < memory_plan.free_memory_bytes() < 1 << 50


@pytest.mark.parametrize("empty", ["query", "gallery"])
def test_an_empty_side_is_an_error(empty: str):
    sides = {"query": features(normal(2, 3)), "gallery": features(normal(2, 3))}
    sides[empty] = features(normal(0, 3))
    with pytest.raises(DataError, match=f"The {empty} is empty"):
        blocks(sides["query"], sides["gallery"])


def test_different_widths_are_an_error():
    with pytest.raises(DataError, match=r"width 3.* width 4"):
        blocks(features(normal(2, 3)), features(normal(2, 4)))


def test_numbers_too_large_for_float32_squares_are_compared_all_the_same():
    matrix = normal(4, 3)
    matrix[2:] = [[1e30] * 3, [3e38] * 3]
    block = next(iter(blocks(features(normal(2, 3)), features(matrix))))
    assert np.argsort(block.keys_of(0))[2:].tolist() == [2, 3]
    assert np.isfinite(block.keys_of(1)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matrix_of_distances_holds_finite_numbers(bad: float):
    distances = np.zeros((200, 3))
    distances[170, 1] = bad
    (block,) = matrix_blocks(distances)
    assert block.keys_of(3).tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="Row 170"):
        block.keys_of(170)
    with pytest.raises(DataError, match="int64"):
        list(matrix_blocks(np.zeros((2, 2), dtype=np.int64)))


def test_an_evaluation_on_the_cpu_does_not_import_torch():
    code = "import sys, ptlreid.retrieval.metrics, ptlreid.retrieval.ranklist; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
