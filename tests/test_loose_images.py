"""Images that are used where they are: what is found, in which order, and what is known of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_image

from ptlreid.datasets._loose_images import LooseImages, find_loose_images, parse_listed, place_at_site
from ptlreid.errors import DataError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(*names: str) -> None:
    for name in names:
        write_image(Path(name), 1)


def find(*sources: str, layout=None, pattern=None, listed=()) -> LooseImages:
    return find_loose_images(sources, layout=layout, pattern=pattern, listed=listed)


def rows(images: LooseImages) -> list[tuple[str, str, str]]:
    return list(zip(map(str, images.records.paths), images.identities, images.cameras, strict=True))


def test_a_folder_of_identities_and_cameras_is_read_as_prepare_reads_it():
    write("crops/anna/door/1.jpg", "crops/anna/yard/1.jpg", "crops/ben/door/1.jpg", "crops/carl/yard/2.jpg")
    images = find("crops")
    assert rows(images) == [
        ("crops/anna/door/1.jpg", "anna", "door"),
        ("crops/anna/yard/1.jpg", "anna", "yard"),
        ("crops/ben/door/1.jpg", "ben", "door"),
        ("crops/carl/yard/2.jpg", "carl", "yard"),
    ]
    assert images.records.pids.tolist() == [1, 1, 2, 3]
    assert images.records.camids.tolist() == [1, 2, 1, 2]
    assert images.notes[0].startswith("crops: 4 images, read as identity/camera")


def test_names_as_in_market_give_numbers():
    write("crops/0007_c3s1_000001_00.jpg", "crops/-1_c2s1_000002_00.jpg")
    images = find("crops")
    assert (images.records.pids.tolist(), images.records.camids.tolist()) == ([-1, 7], [2, 3])


def test_where_only_cameras_are_named_identities_are_unknown():
    write("frames/cam1/a.jpg", "frames/cam2/a.jpg", "frames/cam2/b.jpg")
    images = find("frames")
    assert [row[1:] for row in rows(images)] == [("", "cam1"), ("", "cam2"), ("", "cam2")]
    assert images.records.pids.tolist() == [-1, -1, -1]


def test_what_no_reading_fits_is_read_without_labels_and_a_note_says_why():
    write("crops/x1.jpg", "crops/x2.jpg", "crops/deep/er/x3.jpg")
    images = find("crops")
    assert [row[1:] for row in rows(images)] == [("", "")] * 3
    assert (images.records.pids.tolist(), images.records.camids.tolist()) == ([-1] * 3, [-1] * 3)
    assert "no identities, no cameras" in images.notes[0]
    assert "the name gives no pid and camera" in images.notes[0]


def test_layout_files_reads_no_folder():
    write("crops/2024-05-01/1.jpg", "crops/2024-05-02/1.jpg")
    assert {row[1] for row in rows(find("crops"))} == {"2024-05-01", "2024-05-02"}
    assert [row[1:] for row in rows(find("crops", layout="files"))] == [("", "")] * 2


def test_a_layout_that_does_not_fit_is_an_error():
    write("crops/1.jpg", "crops/a/2.jpg")
    with pytest.raises(DataError, match="is in too few folders"):
        find("crops", layout="identity/camera")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(?P<pid>\d+)-(?P<camid>\w+)", [("7", "hall"), ("8", "door")]),
        (r"\d+-(?P<camid>\w+)", [("", "hall"), ("", "door")]),
        (r"(?P<pid>\d+)", [("7", ""), ("8", "")]),
    ],
)
def test_a_pattern_names_what_it_has_groups_for(pattern, expected):
    write("crops/7-hall.jpg", "crops/8-door.jpg")
    assert [row[1:] for row in rows(find("crops", pattern=pattern))] == expected


def test_a_list_keeps_its_order_and_its_repetitions_and_is_relative_to_its_folder():
    write("lists/b.jpg", "lists/a.jpg")
    Path("lists/mine.txt").write_text("b.jpg\n\na.jpg\nb.jpg\n")
    assert [row[0] for row in rows(find("lists/mine.txt"))] == ["lists/b.jpg", "lists/a.jpg", "lists/b.jpg"]


def test_a_csv_gives_what_its_columns_have():
    write("a.jpg", "b.jpg")
    Path("one.csv").write_text("path\nb.jpg\na.jpg\nb.jpg\n")
    assert rows(find("one.csv")) == [("b.jpg", "", ""), ("a.jpg", "", ""), ("b.jpg", "", "")]
    Path("two.csv").write_text("Path;PID;camid\nb.jpg;007;door\na.jpg;;\n")
    images = find("two.csv")
    assert rows(images) == [("b.jpg", "7", "door"), ("a.jpg", "", "")]
    assert (images.records.pids.tolist(), images.records.camids.tolist()) == ([7, -1], [1, -1])


def test_the_csv_of_a_matrix_can_be_read_again():
    write("a.jpg", "b.jpg")
    Path("one.csv").write_text("row,path,pid,camid\n0,b.jpg,4,2\n1,a.jpg,-1,-1\n")
    images = find("one.csv")
    assert rows(images) == [("b.jpg", "4", "2"), ("a.jpg", "", "")]
    assert images.records.camids.tolist() == [2, -1]


def test_single_files_and_several_folders_keep_the_order_in_which_they_are_given():
    write("b/1.jpg", "a/2.jpg", "c.jpg")
    assert [row[0] for row in rows(find("c.jpg", "b", "a"))] == ["c.jpg", "b/1.jpg", "a/2.jpg"]


def test_standard_input_is_read_by_lines_or_by_zero_bytes():
    write("a b.jpg", "c.jpg")
    assert parse_listed(b"a b.jpg\nc.jpg\n") == [Path("a b.jpg"), Path("c.jpg")]
    assert parse_listed(b"a\nb.jpg\0c.jpg\0") == [Path("a\nb.jpg"), Path("c.jpg")]
    assert parse_listed(b"caf\xe9.jpg\n")[0].name.encode(errors="surrogateescape") == b"caf\xe9.jpg"
    images = find("-", listed=[Path("c.jpg"), Path("a b.jpg")])
    assert [row[0] for row in rows(images)] == ["c.jpg", "a b.jpg"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["empty"], "empty: holds no image"),
        (["notes.md"], r"notes.md: text \('hello'\): expected a folder, a tar file, an image"),
        (["a.jpg", "list.csv"], "list.csv: a CSV states all of its images"),
        (["-"], "-: holds no image"),
    ],
)
def test_a_source_that_is_none_is_refused(sources, message):
    write("a.jpg")
    Path("empty").mkdir()
    Path("notes.md").write_text("hello")
    Path("list.csv").write_text("path\na.jpg\n")
    with pytest.raises(DataError, match=message):
        find(*sources)


def test_a_csv_takes_no_layout():
    write("a.jpg")
    Path("list.csv").write_text("path\na.jpg\n")
    with pytest.raises(DataError, match="--layout is for folders"):
        find("list.csv", layout="files")


def test_cameras_get_the_numbers_of_a_site():
    write("new/yard/1.jpg", "new/gate/1.jpg", "new/door/1.jpg")
    images = place_at_site(find("new", layout="camera"), "lobby", {"door": 1, "yard": 2})
    assert images.records.camids.tolist() == [1, -1, 2]  # door, gate, yard
    assert set(images.records.sources) == {"lobby"}
    write("market/0001_c5_1.jpg", "market/0002_c3_1.jpg")
    assert place_at_site(find("market"), "market", {}).records.camids.tolist() == [5, 3]


def test_selected_rows_keep_their_names():
    write("crops/anna/1.jpg", "crops/ben/1.jpg")
    assert rows(find("crops").select(np.array([1]))) == [("crops/ben/1.jpg", "ben", "")]


def test_lists_with_equal_lines_name_different_images():
    write("day1/anna/1.jpg", "day1/ben/1.jpg", "day2/anna/1.jpg", "day2/ben/1.jpg")
    for day in ("day1", "day2"):
        Path(day, "list.txt").write_text("anna/1.jpg\nben/1.jpg\n")
    found = find("day1/list.txt", "day2/list.txt", layout="identity")
    assert [(path, identity) for path, identity, _ in rows(found)] == [
        (f"{day}/{name}/1.jpg", name) for day in ("day1", "day2") for name in ("anna", "ben")
    ]


def test_a_number_is_no_camera_of_a_site_that_names_its_cameras():
    write("a_c2.jpg", "b_c20240501120000123456.jpg")
    images = find(".")
    assert place_at_site(images, "lobby", {"door": 1, "hall": 2}).records.camids.tolist() == [-1, -1]
    assert place_at_site(images, "lobby", {}).records.camids.tolist() == [2, -1]
