"""Which rank lists are shown, and what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_image
from PIL import Image
from ranking import evaluate

from ptlreid.errors import DataError
from ptlreid.reports import crops, ranklists, render
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features

MARKET = PROTOCOLS["market"]


def line(places, pids, camids, folder=""):
    """Images on a line: the distance of two is that of their places."""
    paths = np.array([f"{folder}{name}.jpg" for name in range(len(places))], dtype=object)
    matrix = np.array(places, dtype=np.float32)[:, None]
    return Features(matrix, np.array(pids, dtype=np.int64), np.array(camids, dtype=np.int64), paths)


# Query 0 finds its person second, query 1 nobody, query 2 first, and query 3 fourth.
QUERY = line([0, 50, 10, 30], [1, 9, 2, 3], [1, 1, 1, 1], "q")
GALLERY = line([1, 2, 11, 26, 27, 28, 34], [5, 1, 2, 6, 7, 8, 3], [2, 2, 2, 2, 2, 2, 2], "g")
SCORES = evaluate(QUERY, GALLERY, MARKET)


def test_the_worst_come_first_and_those_without_a_match_not_at_all():
    assert SCORES.rows.tolist() == [0, 2, 3]
    assert ranklists.worst(SCORES, 5).tolist() == [2, 0, 1]
    assert ranklists.worst(SCORES, 1).tolist() == [2]


def test_queries_are_drawn_from_the_others_by_seed():
    worst = ranklists.worst(SCORES, 1)
    assert ranklists.sample(SCORES, 5, seed=0, without=worst).tolist() == [0, 1]
    drawn = [ranklists.sample(SCORES, 1, seed=seed, without=worst).tolist() for seed in range(20)]
    assert drawn == [ranklists.sample(SCORES, 1, seed=seed, without=worst).tolist() for seed in range(20)]
    assert {rows[0] for rows in drawn} == {0, 1}


def test_a_list_holds_the_nearest_and_then_the_first_match():
    (shown,) = ranklists.shown(QUERY, GALLERY, MARKET, SCORES, np.array([2]), places=2)
    assert (shown.path, shown.pid, shown.camid, shown.first_match) == (Path("q3.jpg"), 3, 1, 4)
    told = [(place.rank, place.path.name, place.distance, place.match) for place in shown.places]
    assert told == [(1, "g5.jpg", 2, False), (2, "g4.jpg", 3, False), (4, "g6.jpg", 4, True)]
    assert shown.table.rows[2] == ["4", "g6.jpg", "3", "2", "4.00", "right"]


def test_a_first_match_among_the_places_is_not_repeated():
    lists = ranklists.shown(QUERY, GALLERY, MARKET, SCORES, np.array([0, 1]), places=3)
    assert [[place.rank for place in one.places] for one in lists] == [[1, 2, 3], [1, 2, 3]]
    assert [[place.match for place in one.places] for one in lists] == [[False, True, False], [True, False, False]]


def test_what_the_protocol_hides_is_not_shown():
    gallery = line([0, 1, 2, 3], [1, -1, 1, 4], [1, 2, 2, 2], "g")  # own camera, junk, the match, another
    query = QUERY.select(np.array([0]))
    (shown,) = ranklists.shown(query, gallery, MARKET, evaluate(query, gallery, MARKET), np.array([0]), places=10)
    assert [place.path.name for place in shown.places] == ["g2.jpg", "g3.jpg"]


def test_no_lists_are_made_of_no_queries():
    assert ranklists.shown(QUERY, GALLERY, MARKET, SCORES, np.array([], dtype=np.int64), places=2) == []


def test_small_distances_have_more_digits():
    places = [ranklists.Place(1, Path("a"), 1, 1, distance, True) for distance in (0.0526, 5.4, 12.345)]
    assert [place.measured for place in places] == ["0.053", "5.40", "12.35"]


def test_a_picture_frames_right_and_wrong_differently(tmp_path):
    for name in ("q3", "g4", "g5", "g6"):
        write_image(tmp_path / f"{name}.jpg", 1)
    from dataclasses import replace

    query, gallery = (
        replace(side, paths=np.array([f"{tmp_path}/{path}" for path in side.paths], dtype=object))
        for side in (QUERY, GALLERY)
    )
    shown = ranklists.shown(query, gallery, MARKET, SCORES, np.array([2]), places=2)
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    ranklists.ranklists(shown).draw(axes)
    frames = [(patch.get_edgecolor(), str(patch.get_linestyle())) for patch in axes.patches]
    assert frames[0] == frames[1] != frames[2]
    assert frames[0][1] != frames[2][1]
    assert [text.get_text() for text in axes.texts] == ["query", "✗ 2.00", "✗ 3.00", "#4 ✓ 4.00"]
    assert len(axes.images) == 4
    render.save([ranklists.ranklists(shown)], tmp_path / "lists.png")
    with Image.open(tmp_path / "lists.png") as picture:
        assert picture.width > picture.height > 100


def test_a_crop_is_embedded_once_and_at_its_own_size(tmp_path):
    write_image(tmp_path / "a.jpg", 1, height=128, width=64)
    write_image(tmp_path / "b.png", 2, height=1000, width=300)
    found = crops.embed([tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "a.jpg"])
    assert [(crop.name, crop.width, crop.height) for crop in found.values()] == [("crop0", 64, 128), ("crop1", 58, 192)]
    assert all(crop.uri.startswith("data:image/jpeg;base64,") for crop in found.values())
    assert all(len(crop.uri) < 12_000 for crop in found.values())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_mode_are_shown(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (32, 64)).save(path)
    assert crops.read(path).mode == "RGB"


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"a\.jpg: not an image that can be decoded"):
        crops.embed([tmp_path / "a.jpg"])
