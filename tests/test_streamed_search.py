"""A gallery that is read block by block gives the ranks of the same gallery in memory, to the last one."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from shard_folders import make_shards, random_features

from ptlreid.records import UNKNOWN_CAMERA
from ptlreid.retrieval import feature_files, streamed_search
from ptlreid.retrieval.search import Person, rank_gallery
from ptlreid.retrieval.streamed_search import GalleryBlock, plan_rows, rank_blocks
from ptlreid.retrieval.types import Features

COUNTS = (1, 3, 2, 1)  # images of each of the people


def with_matrix(features: Features, matrix: np.ndarray) -> Features:
    return Features(matrix.astype(np.float32), features.pids, features.camids, features.paths)


def make_people(seed: int, size: int) -> list[Person]:
    rng, people, row = np.random.default_rng(seed), [], 0
    for count in COUNTS:
        people.append(Person(np.arange(row, row + count), rng.choice(size, rng.integers(0, size), replace=False)))
        row += count
    return people


def split(gallery: Features, people: list[Person], rows: int, dtype: str = "float32") -> list[GalleryBlock]:
    """Blocks of so many rows, with what is hidden in each."""
    blocks = []
    for first in range(0, len(gallery), rows):
        columns = np.arange(first, min(first + rows, len(gallery)))
        hidden = [one.hidden[np.isin(one.hidden, columns)] - first for one in people]
        parts = [Person(one.rows, part) for one, part in zip(people, hidden, strict=True)]
        blocks.append(GalleryBlock(gallery.matrix[columns].astype(dtype), columns, parts))
    return blocks


def check(
    query: Features, gallery: Features, people: list[Person], *, rows: int, size: int, metric: str, **given
) -> None:
    expected = rank_gallery(query, people, gallery, size=size, metric=metric, memory_budget=None)
    found = rank_blocks(query, split(gallery, people, rows, **given), size=size, metric=metric)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.columns, other.columns)
        np.testing.assert_array_equal(one.distances, other.distances)


CASES = [
    (seed, metric, size, rows)
    for seed in range(4)
    for metric in ("euclidean", "cosine")
    for size, rows in ((1, 7), (7, 13), (100, 10), (5, 100))
]


@pytest.mark.parametrize(("seed", "metric", "size", "rows"), CASES)
def test_ties_copies_and_hidden_images_in_any_blocks(seed, metric, size, rows):
    """Copies of the first image are in every block; whole numbers make many distances equal."""
    check(
        random_features(seed, 7),
        random_features(seed + 50, 60),
        make_people(seed, 60),
        rows=rows,
        size=size,
        metric=metric,
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (1, 1e4), (1e-3, 1e-2), (1e-15, 0), (1e15, 0), (1e-30, 0), (1e-42, 0)]
)
def test_features_of_any_size_and_offset(metric, scale, offset):
    query, gallery = (random_features(seed, size, width=32, whole=False) for seed, size in ((1, 7), (2, 400)))
    query, gallery = (with_matrix(one, one.matrix.astype(np.float64) * scale + offset) for one in (query, gallery))
    check(query, gallery, make_people(0, 400), rows=64, size=10, metric=metric)


def test_the_cut_is_that_of_exact_distances():
    """Distances differ by a hundredth of what a product in float32 tells apart."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(600, 64))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    gallery = with_matrix(random_features(0, 600, width=64), directions * (1 + 1e-8 * rng.permutation(600))[:, None])
    query = with_matrix(random_features(0, 7, width=64), np.full((7, 64), 1e-3))
    check(query, gallery, make_people(0, 600), rows=50, size=20, metric="euclidean")


def test_float16_and_more_queries_than_a_strip(monkeypatch):
    monkeypatch.setattr(streamed_search, "_STRIP", 2)
    gallery = random_features(3, 200, width=16, whole=False)
    gallery = with_matrix(gallery, gallery.matrix.astype(np.float16))
    query = random_features(4, 7, width=16, whole=False)
    check(query, gallery, make_people(1, 200), rows=30, size=9, metric="cosine", dtype="float16")


def test_every_finite_float16_is_widened_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.tile(every[np.isfinite(every)], 2).reshape(-1, 4)
    widened = streamed_search._widen(finite)
    np.testing.assert_array_equal(widened.view(np.uint32), finite.astype(np.float32).view(np.uint32))


def test_the_first_errors_of_a_block_are_raised():
    def broken():
        yield from split(random_features(1, 20), make_people(0, 20), 10)
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        rank_blocks(random_features(0, 7), broken(), size=3, metric="euclidean")


def test_a_block_fits_into_the_budget():
    assert plan_rows(100, 128, None) == 16_384
    assert plan_rows(100, 2048, 64 << 20) * (400 + 24 * 2048) <= 64 << 20
    assert plan_rows(100, 2048, 1) == 1024


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """`g.h5` and the same features in shards, `g`, with some paths of `q.npz`, whose images are queries."""
    monkeypatch.chdir(tmp_path)
    gallery, query = random_features(1, 50), random_features(2, 6)
    gallery.paths[11], gallery.paths[37] = query.paths[2], query.paths[2]
    gallery.paths[7] = "door/2024-05-01_12-30-05.jpg"
    gallery.camids[::7] = UNKNOWN_CAMERA
    feature_files.write(Path("g.h5"), gallery, {}, dtype="float32")
    feature_files.write(Path("q.h5"), query, {}, dtype="float32")
    make_shards(Path("g"), gallery, rows=8)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (["--camera", "0,2"], "8 of 50 gallery images are by no known camera: left out"),
        (["--exclude-same-camera", "--query-camera", "0"], "by no known camera: searched for every query"),
        (["--after", "2024-05-01"], "49 of 50 paths state no time: left out; the first is 1/0.jpg"),
    ],
)
@pytest.mark.parametrize("gallery", ["g", "g.h5"])
def test_images_of_which_camera_or_time_is_not_known_are_counted(ptlreid, files, gallery, options, note):
    code, _, err = ptlreid("search", "--features", "q.h5", "--gallery", gallery, *options)
    assert (code, note in err) == (0, True), err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--metric", "cosine", "--top", 60],
        ["--together"],
        ["--together", "--combine", "max", "--exclude-same-camera", "--query-camera", "1"],
        ["--exclude-query", "--memory-budget", "1KB"],
        ["--exclude-same-camera"],
        ["--camera", "0,2", "--threshold", "2.5"],
        ["--glob", "1/1*"],
        ["--after", "2024-05-01"],
        ["--rerank"],
    ],
    ids=str,
)
def test_a_search_in_shards_finds_what_one_in_a_file_finds(ptlreid, files, options):
    answers = []
    for gallery in ("g", "g.h5"):
        code, out, err = ptlreid("search", "--features", "q.h5", "--gallery", gallery, "--json", *options)
        assert code == 0, err
        answers.append(json.loads(out)["queries"])
    assert answers[0] == answers[1]
    assert answers[0][0]["hits"]


def test_a_run_searches_shards_as_it_searches_a_file(ptlreid, run, market_folder):
    """The camera of a query that is in the gallery is the gallery's."""
    given = ("--run", "tiny", "--root", market_folder.parent, "--device", "cpu", "--json")
    for out in (["--out", "gallery", "--shards", 3], ["--out", "gallery.h5"]):
        code, _, err = ptlreid("embed", "market", "--part", "gallery", *out, *given)
        assert code == 0, err
    images = (
        sorted((market_folder / "query").iterdir())[:2] + sorted((market_folder / "bounding_box_test").iterdir())[3:4]
    )
    for options in ([], ["--exclude-same-camera"], ["--exclude-query", "--threshold", "1"]):
        answers = []
        for gallery in ("gallery", "gallery.h5"):
            code, out, err = ptlreid("search", *images, "--gallery", gallery, *options, *given)
            assert code == 0, err
            answers.append(json.loads(out)["queries"])
        assert answers[0] == answers[1]
    code, _, err = ptlreid("search", *images, "--gallery", "gallery", "--flip", *given)
    assert (code, "gallery was extracted with False" in err) == (1, True)


def test_shards_are_queries_too(ptlreid, files):
    answers = []
    for features in ("g", "g.h5"):
        for given in ([], ["1/3.jpg", "1/40.jpg"]):
            code, out, err = ptlreid("search", *given, "--features", features, "--top", 3, "--json")
            assert code == 0, err
            answers.append(json.loads(out)["queries"])
    assert answers[:2] == answers[2:]
    assert len(answers[0]) == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "9"], "--camera 9: no gallery image is known to be by it, expected one of 0, 1, 2"),
        (["--glob", "x"], "No gallery image is left"),
        (["--after", "2025-01-01"], "No gallery image is left"),
        (["nobody.jpg"], "q.h5: no image is called nobody.jpg"),
    ],
)
def test_what_cannot_be_searched_is_one_message(ptlreid, files, options, message):
    code, _, err = ptlreid("search", "--features", "q.h5", "--gallery", "g", *options)
    assert (code, message in err) == (1, True), err


def test_many_queries_stay_within_the_budget():
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=(size, 16)).astype(np.float32) for size in (2000, 4096)]
    numbers = [np.zeros(len(side), np.int64) for side in sides]
    query, gallery = (
        Features(side, number, number, number.astype(object)) for side, number in zip(sides, numbers, strict=True)
    )
    people = [Person(np.array([row]), np.empty(0, np.int64)) for row in range(len(query))]
    rows = plan_rows(len(query), 16, 8 << 20)
    blocks = iter(split(gallery, [], rows))
    tracemalloc.start()
    found = rank_blocks(
        query, (GalleryBlock(one.matrix, one.columns, people) for one in blocks), size=3, metric="euclidean"
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 2000
    assert peak < 24 << 20  # a row in float64 for every query would take 2,000 × rows × 8 bytes
