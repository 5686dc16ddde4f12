"""--pattern: own images labelled by a regular expression."""

from __future__ import annotations

import os

import pytest

from ptlreid.datasets import _name_pattern
from ptlreid.datasets._name_pattern import read_names
from ptlreid.errors import DataError, OptionError
from ptlreid.settings import OwnImagesSettings


@pytest.fixture
def read(tmp_path):
    def run(names, pattern):
        for name in names:
            file = tmp_path / "in" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        images, _ = read_names(tmp_path / "in", OwnImagesSettings(pattern=pattern).pattern, unlabelled=False)
        return [(image.origin, image.identity, image.camera, image.split) for image in images]

    return run


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("0001003.png", r"(?P<pid>\d{4})(?P<camid>\d{3})", ("0001", "003", "")),
        ("0001_02.jpg", r"(?P<pid>\d+)_(?P<camid>\d+)", ("0001", "02", "")),
        ("camA_7_x.jpg", r"cam(?P<camid>[A-Z])_(?P<pid>\d+)", ("7", "A", "")),
        ("deep/in/7_x.jpg", r"(?P<pid>\d+)_", ("7", "1", "")),
        ("Test/7/x.jpg", r"(?P<split>\w+)/(?P<pid>\d+)/", ("7", "1", "test")),
        ("0001002.png", r"(?P<pid>\d{4})(?:(?P<camid_a>00[12])|(?P<camid_b>00[34]))", ("0001", "a", "")),
        ("0001004.png", r"(?P<pid>\d{4})(?:(?P<camid_a>00[12])|(?P<camid_b>00[34]))", ("0001", "b", "")),
    ],
)
def test_groups_label_images(read, name, pattern, expected):
    assert read([name], pattern) == [(name, *expected)]


def test_names_that_are_not_unicode_are_matched(read):
    name = os.fsdecode(b"7_\xe9.jpg")
    assert read([name], r"(?P<pid>\d)_.\.jpg")[0][:2] == (name, "7")


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        (["1_1.jpg", "x.jpg", "y.jpg"], r"(?P<pid>\d)", "2 of 3 images do not match the pattern .* such as x.jpg"),
        (["1.jpg", "x.jpg"], r"(?P<pid>\d?)", "1 of 2 images do not match"),
        (["1.txt"], r"(?P<pid>\d)", "0 of 0 images do not match"),
        (["1_a.jpg", "1.jpg"], r"(?P<pid>\d)(_(?P<camid>\w))?", "finds no camera in 1.jpg"),
        (["1_a.jpg"], r"(?P<pid>\d)_(?P<split>\w)", "finds the part 'a' in 1_a.jpg: expected train"),
    ],
)
def test_names_without_labels_are_refused(read, names, pattern, message):
    with pytest.raises(DataError, match=message):
        read(names, pattern)


def test_a_pattern_that_takes_forever_is_ended(read, monkeypatch):
    monkeypatch.setattr(_name_pattern, "MAX_SECONDS", 1)
    with pytest.raises(DataError, match="takes longer than 1 s: expected one that matches in one pass"):
        read(["a" * 60 + ".jpg"], r"(?P<pid>(a+)+)$")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "not a regular expression"),
        ("(?P<pid>a{9999999999999})", "not a regular expression"),
        (r"(\d+)_(\d+)", "has no group pid"),
        (r"(?P<pid>\d+)_(?P<camera>\d+)", "has a group camera"),
    ],
)
def test_a_pattern_is_checked_before_anything_is_read(pattern, message):
    with pytest.raises(OptionError, match=message):
        OwnImagesSettings.resolve(pattern=pattern)


def test_layout_and_pattern_exclude_each_other():
    with pytest.raises(OptionError, match="layout and pattern: expected one of them"):
        OwnImagesSettings.resolve(pattern=r"(?P<pid>\d+)", layout="names")
    assert OwnImagesSettings.resolve(pattern=r"(?P<pid>\d+)", layout="auto").layout is None
