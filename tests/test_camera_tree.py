"""Own images without identities: where their cameras come from, and where that would be a guess."""

from __future__ import annotations

import pytest

from ptlreid.datasets._own_images import find_images
from ptlreid.errors import DataError, OptionError
from ptlreid.settings import OwnImagesSettings


@pytest.fixture
def read(tmp_path):
    """Writes empty files, as their content does not matter here, and returns what was found."""

    def run(names, layout=None, pattern=None):
        for name in names:
            file = tmp_path / "in" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return find_images(tmp_path / "in", layout=layout, pattern=pattern, unlabelled=True)

    return run


def cameras(found, part="train"):
    return {image.origin: image.camera for image in found.images if image.split == part}


@pytest.mark.parametrize(
    ("names", "reading", "expected"),
    [
        (["cam1/1.jpg", "cam2/1.jpg"], "camera", ["cam1", "cam2"]),
        (["in/cam_a/1.jpg", "in/cam_b/deep/1.jpg"], "camera", ["cam_a", "cam_b"]),
        (["monday/cam1/1.jpg", "tuesday/cam2/1.jpg"], "*/camera", ["cam1", "cam2"]),
        (["a/x/cam1/1.jpg", "b/y/cam1/2.jpg", "b/y/cam2/3.jpg"], "*/*/camera", ["cam1", "cam1", "cam2"]),
        (["cam1/1.jpg", "cam1/2.jpg"], "camera", ["cam1", "cam1"]),
        (["frames/cam7/1.jpg", "frames/cam7/2.jpg"], "camera", ["cam7", "cam7"]),
        (["1_c1.jpg", "1_c2.jpg"], "files", ["1", "2"]),
        (["monday/c03_1.jpg", "tuesday/c12_1.jpg"], "files", ["3", "12"]),
        (["0002_c1s1_000451_03.jpg", "-1_c3s1_000451_03.jpg"], "files", ["3", "1"]),
        (["1.jpg", "2.jpg"], "files", ["1", "1"]),
        (["in/1.jpg", "in/2.jpg"], "files", ["1", "1"]),
        (["train/cam1/1.jpg", "train/cam2/1.jpg"], "camera", ["cam1", "cam2"]),
        (["train_all/cam1/1.jpg", "train_all/cam2/1.jpg", "train/cam1/1.jpg"], "camera", ["cam1", "cam2"]),
    ],
)
def test_cameras_come_from_a_level_that_names_them_or_from_the_file_names(read, names, reading, expected):
    found = read(names)
    assert found.reading == reading
    assert [image.camera for image in found.images] == expected
    assert {(image.identity, image.split) for image in found.images} == {("-1", "train")}


@pytest.mark.parametrize(
    ("names", "layouts"),
    [
        (["anna/1.jpg", "ben/1.jpg"], ["camera", "files"]),
        (["anna/door/1.jpg", "ben/yard/1.jpg"], ["camera", "*/camera", "files"]),
        (["anna/2020/door/1.jpg", "ben/2021/yard/1.jpg"], ["camera", "*/camera", "*/*/camera", "files"]),
        (["cam1/view_a/1.jpg", "cam2/view_b/1.jpg"], ["camera", "*/camera"]),
        (["train/door/1.jpg", "train/yard/1.jpg"], ["camera", "files"]),
    ],
)
def test_where_folders_may_be_cameras_or_not_every_reading_is_named_and_the_option_chooses(read, names, layouts):
    with pytest.raises(DataError) as error:
        read(names)
    text = str(error.value)
    assert text.endswith(f"Choose with --layout {' or --layout '.join(layouts)}.")
    for level, layout in enumerate(layouts):
        chosen = OwnImagesSettings.resolve(layout=layout, unlabelled=True).layout
        found = read([], layout=chosen)
        assert found.reading == layout
        folders = [name.removeprefix("train/").split("/") for name in names]
        assert [image.camera for image in found.images] == [
            "1" if layout == "files" else names[level] for names in folders
        ]


def test_a_test_part_keeps_its_identities_and_names_the_cameras_of_training(read):
    test = [f"{part}/p{n}/{camera}/1.jpg" for part in ("query", "gallery") for n in range(3) for camera in "xy"]
    found = read(["train/monday/x/1.jpg", "train/tuesday/y/2.jpg", *test])
    assert found.reading == "*/camera for training and identity/camera for testing"
    assert cameras(found) == {"train/monday/x/1.jpg": "x", "train/tuesday/y/2.jpg": "y"}
    assert {image.identity for image in found.images if image.split == "train"} == {"-1"}
    for part in ("query", "gallery"):
        labels = {(image.identity, image.camera) for image in found.images if image.split == part}
        assert labels == {(f"p{n}", camera) for n in range(3) for camera in "xy"}


def test_a_layout_with_identities_is_that_of_all_images_and_those_of_training_are_dropped(read):
    names = [f"{part}/p{n}/{camera}/1.jpg" for part in ("train", "query", "gallery") for n in "12" for camera in "xy"]
    found = read(names, layout="split/identity/camera")
    assert found.reading == "split/identity/camera"
    assert set(cameras(found).values()) == {"x", "y"}
    assert {image.identity for image in found.images if image.split == "train"} == {"-1"}
    assert {image.identity for image in found.images if image.split != "train"} == {"p1", "p2"}


def test_images_of_training_called_junk_are_training_images(read):
    assert len(read(["-1_c1_1.jpg", "0000_c2_1.jpg", "0001_c2_1.jpg"]).images) == 3
    found = read(["-1_c1_1.jpg"], layout="names")
    assert {(image.identity, image.split) for image in found.images} == {("-1", "train")}


@pytest.mark.parametrize(
    ("names", "layout", "message"),
    [
        (["a/1.jpg", "2.jpg"], None, "2.jpg: the name gives no camera, and it is in no folder, as others are"),
        (["1_c1.jpg", "2.jpg"], None, "2.jpg: the name gives no camera, but that of 1_c1.jpg does"),
        (["1.jpg", "2.jpg"], "camera", "1.jpg is in too few folders: expected the layout camera"),
        ([], None, r"holds no image .*\. Expected crops, in folders of cameras or with the cameras in their names$"),
    ],
)
def test_images_without_cameras_next_to_others_are_refused(read, tmp_path, names, layout, message):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=message):
        read(names, layout=layout)


@pytest.mark.parametrize(
    ("name", "pattern", "camera"),
    [
        ("entry-17.jpg", r"(?P<camid>[a-z]+)-", "entry"),
        ("a/entry/17.jpg", r"\w+/(?P<camid>\w+)/", "entry"),
        ("17_2.jpg", r"\d+_(?:(?P<camid_hall>[12])|(?P<camid_yard>[34]))", "hall"),
        ("anna_3.jpg", r"(?P<pid>\w+)_(?P<camid>\d)", "3"),
        ("train/17.jpg", r"(?P<split>\w+)/", "1"),
    ],
)
def test_a_pattern_may_name_cameras_alone(read, name, pattern, camera):
    (image,) = read([name], pattern=OwnImagesSettings.resolve(pattern=pattern, unlabelled=True).pattern).images
    assert (image.identity, image.camera, image.split) == ("-1", camera, "train")


def test_a_pattern_gives_identities_to_the_test_part_alone(read):
    pattern = r"(?P<split>\w+)/(?:(?P<pid>\w+)-)?c(?P<camid>\d)"
    names = ["train/anna-c1.jpg", "train/c2.jpg", "query/ben-c1.jpg", "gallery/ben-c2.jpg"]
    found = read(names, pattern=pattern)
    assert {image.origin: image.identity for image in found.images} == dict(
        zip(names, ["-1", "-1", "ben", "ben"], strict=True)
    )
    with pytest.raises(DataError, match=r"1 of 5 images .* query/c1.jpg: expected .* an identity in those of test"):
        read(["query/c1.jpg"], pattern=pattern)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": r"\d+", "unlabelled": True}, "has no group camid"),
        ({"pattern": r"(?P<camid>\d)"}, "has no group pid.*with --unlabelled, training images need no pid"),
        ({"layout": "camera"}, "names no identities: expected one that does.*add --unlabelled"),
        ({"layout": "files"}, "names no identities"),
        ({"test_share": 0.3, "unlabelled": True}, "test_share divides identities"),
    ],
)
def test_settings_that_need_identities_or_none_are_checked_before_anything_is_read(settings, message):
    with pytest.raises(OptionError, match=message):
        OwnImagesSettings.resolve(**settings)
