"""Which rank lists are shown, and what they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from PIL import Image
from ranking import evaluate

from ptlreid.errors import DataError
from ptlreid.reports import crops, rank_lists, render
from ptlreid.reports.run_summary import EvaluatedRun
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features, Retrieval
from ptlreid.settings import EvaluateSettings

MARKET = PROTOCOLS["market"]


def line(places, pids, camids, folder=""):
    """Images on a line: the distance of two is that of their places."""
    paths = np.array([f"{folder}{name}.jpg" for name in range(len(places))], dtype=object)
    matrix = np.array(places, dtype=np.float32)[:, None]
    return Features(matrix, np.array(pids, dtype=np.int64), np.array(camids, dtype=np.int64), paths)


# The first match of query 0 is at rank 2, of query 2 at rank 1, of query 3 at rank 4; query 1 has none.
QUERY = line([0, 50, 10, 30], [1, 9, 2, 3], [1, 1, 1, 1], "q")
GALLERY = line([1, 2, 11, 26, 27, 28, 34], [5, 1, 2, 6, 7, 8, 3], [2, 2, 2, 2, 2, 2, 2], "g")
SCORES = evaluate(QUERY, GALLERY, MARKET)
RUN = EvaluatedRun(Retrieval(QUERY, GALLERY, MARKET), SCORES, EvaluateSettings())


def test_the_worst_queries_come_first_and_those_without_a_match_are_left_out():
    assert SCORES.rows.tolist() == [0, 2, 3]
    assert rank_lists.find_worst(SCORES, 5).tolist() == [2, 0, 1]
    assert rank_lists.find_worst(SCORES, 1).tolist() == [2]


def test_other_queries_are_sampled_by_seed():
    worst = rank_lists.find_worst(SCORES, 1)
    assert rank_lists.sample_queries(SCORES, 5, seed=0, without=worst).tolist() == [0, 1]
    sampled = [rank_lists.sample_queries(SCORES, 1, seed=seed, without=worst).tolist() for seed in range(20)]
    assert sampled == [rank_lists.sample_queries(SCORES, 1, seed=seed, without=worst).tolist() for seed in range(20)]
    assert {rows[0] for rows in sampled} == {0, 1}


def test_a_list_holds_the_nearest_and_then_the_first_match():
    (result,) = rank_lists.rank_queries(RUN, np.array([2]), size=2)
    assert (result.path, result.pid, result.camid, result.first_match) == (Path("q3.jpg"), 3, 1, 4)
    images = [(image.rank, image.path.name, image.distance, image.match) for image in result.images]
    assert images == [(1, "g5.jpg", 2, False), (2, "g4.jpg", 3, False), (4, "g6.jpg", 4, True)]
    assert result.table.rows[2] == ["4", "g6.jpg", "3", "2", "4.00", "true match"]


def test_a_first_match_within_the_list_is_not_repeated():
    lists = rank_lists.rank_queries(RUN, np.array([0, 1]), size=3)
    assert [[image.rank for image in one.images] for one in lists] == [[1, 2, 3], [1, 2, 3]]
    assert [[image.match for image in one.images] for one in lists] == [[False, True, False], [True, False, False]]


def test_what_the_protocol_hides_is_not_shown():
    gallery = line([0, 1, 2, 3], [1, -1, 1, 4], [1, 2, 2, 2], "g")  # own camera, junk, the match, another
    query = QUERY.select(np.array([0]))
    run = replace(RUN, retrieval=Retrieval(query, gallery, MARKET), scores=evaluate(query, gallery, MARKET))
    (result,) = rank_lists.rank_queries(run, np.array([0]), size=10)
    assert [image.path.name for image in result.images] == ["g2.jpg", "g3.jpg"]


def test_without_queries_there_are_no_lists():
    assert rank_lists.rank_queries(RUN, np.array([], dtype=np.int64), size=2) == []


def test_small_distances_have_more_digits():
    images = [rank_lists.RankedImage(1, Path("a"), 1, 1, distance, True) for distance in (0.0526, 5.4, 12.345)]
    assert [image.distance_text for image in images] == ["0.053", "5.40", "12.35"]


def test_true_and_false_matches_have_different_frames(tmp_path):
    for name in ("q3", "g4", "g5", "g6"):
        write_image(tmp_path / f"{name}.jpg", 1)
    query, gallery = (
        replace(side, paths=np.array([f"{tmp_path}/{path}" for path in side.paths], dtype=object))
        for side in (QUERY, GALLERY)
    )
    results = rank_lists.rank_queries(replace(RUN, retrieval=Retrieval(query, gallery, MARKET)), np.array([2]), size=2)
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    rank_lists.plot_rank_lists(results).draw(axes)
    frames = [(patch.get_edgecolor(), str(patch.get_linestyle())) for patch in axes.patches]
    assert frames[0] == frames[1] != frames[2]
    assert frames[0][1] != frames[2][1]
    assert [text.get_text() for text in axes.texts] == ["query", "✗ 2.00", "✗ 3.00", "#4 ✓ 4.00"]
    assert len(axes.images) == 4
    render.save_figure([rank_lists.plot_rank_lists(results)], tmp_path / "lists.png")
    with Image.open(tmp_path / "lists.png") as image:
        assert image.width > image.height > 100


def test_a_crop_is_embedded_once_and_at_its_own_size(tmp_path):
    write_image(tmp_path / "a.jpg", 1, height=128, width=64)
    write_image(tmp_path / "b.png", 2, height=1000, width=300)
    found = crops.embed_crops([tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "a.jpg"])
    assert [(crop.name, crop.width, crop.height) for crop in found.values()] == [("crop0", 64, 128), ("crop1", 58, 192)]
    assert all(crop.uri.startswith("data:image/jpeg;base64,") for crop in found.values())
    assert all(len(crop.uri) < 12_000 for crop in found.values())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_mode_are_shown(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (32, 64)).save(path)
    assert crops.read_crop(path).mode == "RGB"


def test_a_file_that_is_not_an_image_is_named_in_the_error(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"a\.jpg: not an image that can be decoded"):
        crops.embed_crops([tmp_path / "a.jpg"])
