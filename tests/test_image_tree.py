"""Folders of own images: how a tree is read, and where reading it would be a guess."""

from __future__ import annotations

import os

import pytest

from ptlreid.datasets._own_images import find_images
from ptlreid.errors import DataError


@pytest.fixture
def read(tmp_path):
    """Writes empty files, as their content does not matter here, and returns what was found."""

    def run(names, layout=None, pattern=None):
        (tmp_path / "in").mkdir(exist_ok=True)
        for name in names:
            file = tmp_path / "in" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return find_images(tmp_path / "in", layout=layout, pattern=pattern, unlabelled=False)

    return run


def labels(found):
    return [(image.identity, image.camera, image.split) for image in found.images]


def spread(form, *, persons=range(3), cameras=range(2)):
    return [form.format(person, camera) for person in persons for camera in cameras]


EVERYONE = [(f"p{person}", f"cam{camera}") for person in range(3) for camera in range(2)]


@pytest.mark.parametrize(
    ("form", "layout"),
    [
        ("p{0}/cam{1}/1.jpg", "identity/camera"),
        ("cam{1}/p{0}/1.jpg", "camera/identity"),
        ("crops/cam{1}/p{0}/monday/1.png", "camera/identity"),
        ("p{0}/cam{1}/tracklet{1}/1.png", "identity/camera"),
        ("p{0}/images/cam{1}/1.png", "identity/*/camera"),
    ],
)
def test_folders_of_identities_and_cameras_in_both_orders_at_any_depth(read, form, layout):
    found = read(spread(form))
    assert found.reading == layout
    assert sorted((image.identity, image.camera) for image in found.images) == EVERYONE


@pytest.mark.parametrize(
    "form", ["p{0}/1_c{1}.jpg", "in/p{0}/cam{1}-1.jpg", "p{0}/0001_c{1}.jpg", "p{0}/000{0}C{1}T01F1.jpg"]
)
def test_folders_of_identities_with_cameras_in_the_file_names(read, form):
    found = read(spread(form))
    assert found.reading == "identity"
    assert labels(found) == [(f"p{person}", str(camera), "") for person in range(3) for camera in range(2)]


def test_images_in_deeper_folders_are_found(read):
    names = [*spread("p{0}/cam{1}/1.jpg"), *spread("p{0}/cam{1}/monday/evening/2.jpg")]
    assert len(read(names).images) == len(names)


@pytest.mark.parametrize(
    "parts",
    [("train", "query", "gallery"), ("Training", "test/probe", "test/gallery"), ("image_train", "query", "bbox_test")],
)
@pytest.mark.parametrize("below", ["p{0}/cam{1}/1.jpg", "cam{1}/p{0}/1.jpg", "images/p{0}/1_c{1}.jpg"])
def test_folders_of_parts_are_no_identities(read, parts, below):
    train, query, gallery = (f"set/{part}/{below}" for part in parts)
    found = read(
        spread(train, persons=[0, 1]) + spread(query, persons=[2, 3], cameras=[0]) + spread(gallery, persons=[2, 3, 4])
    )
    by_part = {
        part: {image.identity for image in found.images if image.split == part}
        for part in ("train", "query", "gallery")
    }
    assert by_part == {"train": {"p0", "p1"}, "query": {"p2", "p3"}, "gallery": {"p2", "p3", "p4"}}
    assert {image.camera[-1] for image in found.images} == {"0", "1"}
    assert found.reading.startswith("split/")


def test_the_images_of_one_folder_are_of_one_identity(read):
    assert labels(read(["crops/2024/p1/c1_1.jpg", "crops/2024/p1/c2_1.jpg"])) == [("p1", "1", ""), ("p1", "2", "")]


def test_parts_inside_the_folders_of_cameras_are_found_too(read):
    found = read(["cam1/train/p0/1.jpg", "cam2/train/p0/1.jpg", "cam1/test/p1/1.jpg", "cam2/test/p1/1.jpg"])
    assert labels(found) == [
        ("p1", "cam1", "test"),
        ("p0", "cam1", "train"),
        ("p1", "cam2", "test"),
        ("p0", "cam2", "train"),
    ]


def test_validation_images_are_the_test_set_only_if_there_is_no_other(read):
    names = ["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"]
    assert [image.split for image in read(names).images] == ["train", "train", "test"]
    found = read([*names, "test/d/1.jpg"])
    assert [image.origin for image in found.images] == ["test/d/1.jpg", "train/a/1.jpg", "train/b/1.jpg"]
    assert [item.path for item in found.left_out] == ["val/c/1.jpg"]


def test_images_in_train_all_are_taken_once(read):
    found = read(
        ["train/a/1.jpg", "val/a/2.jpg", "train_all/a/1.jpg", "train_all/a/2.jpg", "train_all/b/1.jpg", "test/c/1.jpg"]
    )
    assert [image.origin for image in found.images if image.split == "train"] == [
        "train_all/a/1.jpg",
        "train_all/a/2.jpg",
        "train_all/b/1.jpg",
    ]
    assert [item.path for item in found.left_out] == ["train/a/1.jpg", "val/a/2.jpg"]


def test_markets_own_names_are_read_at_any_depth_and_only_they_give_0000_a_meaning(read):
    names = ["-1_c1s1_1.jpg", "0000_c2s1_1.jpg", "0001_c1s1_1.jpg", "0001_c2s1_1.jpg", "0002_c1s1_1.jpg"]
    expected = [("-1", "1", ""), ("-2", "2", ""), ("1", "1", ""), ("1", "2", ""), ("2", "1", "")]
    assert labels(read(names)) == labels(read([])) == expected
    by_folder = [f"people/{name.split('_')[0]}/{name}" for name in names]
    assert [label[:2] for label in labels(read(by_folder, layout="names"))].count(("-2", "2")) == 2


def test_in_folders_called_like_their_market_names_0000_is_a_distractor(read):
    found = read(["0001/0001_c1s1_1.jpg", "0000/0000_c2s1_1.jpg", "0002/0002_c2s1_1.jpg"])
    assert labels(found) == [("-2", "2", ""), ("1", "1", ""), ("2", "2", "")]


def test_in_training_0000_is_an_identity(read):
    found = read(["train/0000_c1s1_1.jpg", "train/0001_c1s1_1.jpg", "test/0000_c1s1_1.jpg", "test/0002_c1s1_1.jpg"])
    assert [label[0] for label in labels(found)] == ["-2", "2", "0", "1"]


def test_markets_names_name_identities_in_folders_of_cameras(read):
    found = read([f"cam{camera}/{pid:04d}_c{camera}s1_{pid}.jpg" for pid in (1, 2) for camera in (1, 2, 3)])
    assert (found.reading, {image.identity for image in found.images}) == ("names", {"1", "2"})


def test_folders_that_agree_with_the_cameras_in_file_names_are_cameras(read):
    found = read([f"p{n}/{folder}/x_{camera}.jpg" for n in (1, 2) for folder, camera in (("a", "c1"), ("b", "c2"))])
    assert found.reading == "identity/camera"


def test_in_other_folders_0000_is_an_identity_and_minus_1_junk(read):
    assert [identity for identity, _, _ in labels(read(["0000/1.jpg", "0001/1.jpg", "-1/1.jpg"]))] == [
        "-1",
        "0000",
        "0001",
    ]


@pytest.mark.parametrize(
    ("names", "first", "second"),
    [
        (spread("{0}/door{1}/1.jpg", persons=range(2)), "identity/camera (2", "camera/identity (2"),
        (spread("{1}/anna{0}/1.jpg", persons=range(8)), "identity/camera (2", "camera/identity (8"),
        ([f"p{n}/t{n}{k}/1.jpg" for n in range(3) for k in range(2)], "identity (3", "*/identity (6"),
        ([f"day{n}/p{k}/c1_1.jpg" for n in range(3) for k in range(2)], "identity (3", "*/identity (2"),
        (spread("site{0}/p{0}/cam{1}/1.jpg"), "identity/*/camera (3", "*/identity/camera (3"),
        (spread("p{0}/0001_c{1}s1_1.jpg"), "names (1", "identity (3"),
        (spread("train/p{0}/0001_c{1}s1_1.jpg"), "split/names (1", "split/identity (3"),
    ],
)
def test_where_two_readings_fit_both_are_named_and_the_option_chooses(read, names, first, second):
    with pytest.raises(DataError) as error:
        read(names)
    assert first in str(error.value)
    assert second in str(error.value)
    for layout in (first.split()[0], second.split()[0]):
        assert f"--layout {layout}" in str(error.value)
        assert read([], layout=layout).reading == layout


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1.jpg", "anna/1.jpg"], "train/a/1.jpg is in a folder called like a part of a split, but anna/1.jpg"),
        (["val/1.jpg", "anna/1.jpg", "bob/1.jpg"], "val/1.jpg is in a folder called like a part"),
        (["train/a/1.jpg", "1.jpg"], "but 1.jpg is not"),
        (["train/a/1.jpg", "query/b/1.jpg"], "has the parts query: expected query and gallery"),
        (["p1/cam1/1.jpg", "p1/cam2/1.jpg"], "folders such as cam1 name cameras, and none names identities"),
        (["cam1/1.jpg", "cam2/1.jpg"], "folders such as cam1 name cameras, and none names identities"),
        (["p1/cam1/1.jpg", "p1/2.jpg", "p2/1.jpg"], "Keep one or the other"),
        ([], r"holds no image .*Expected one folder per identity.*path,pid,camid \| crops/17.jpg,anna,door"),
        (["query/-1/1.jpg", "gallery/2/1.jpg"], "query/-1/1.jpg is a query of pid -1"),
    ],
)
def test_a_tree_that_fits_no_reading_is_refused(read, names, message):
    with pytest.raises(DataError, match=message):
        read(names)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("split/identity", "no folder is called train"),
        ("identity/*/camera", "a/1.jpg is in too few folders"),
        ("names", "the name gives no pid and camera"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(read, layout, message):
    with pytest.raises(DataError, match=message):
        read(["a/1.jpg", "b/1.jpg"], layout=layout)


def test_what_is_no_image_is_left_out_with_its_reason(read, tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    os.mkfifo(tmp_path / "in" / "a" / "pipe.jpg")
    (tmp_path / "in" / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "in" / "again").symlink_to("a")
    (tmp_path / "in" / "a" / "loop").symlink_to("..")
    names = ["a/1.jpg", "b/1.JPG", "a/2.gif", "notes.txt", "Thumbs.db", "__MACOSX/a/1.jpg", "b/.3.jpg", "README"]
    found = read(names)
    assert [image.origin for image in found.images] == ["a/1.jpg", "b/1.JPG"]
    assert {item.path: item.reason.split(",")[0] for item in found.left_out} == {
        "a/2.gif": "has the suffix .gif",
        "notes.txt": "has the suffix .txt",
        "README": "has no suffix",
        "Thumbs.db": "is hidden",
        "__MACOSX/": "is hidden",
        "b/.3.jpg": "is hidden",
        "a/pipe.jpg": "is not a regular file",
        "a/gone.jpg": "is not a regular file",
        "again/": "is a link to a folder that is read under another name",
        "a/loop/": "is a link to a folder that is read under another name",
    }
