"""CSV files of own images: what is read, and what is refused with its line."""

from __future__ import annotations

import os

import pytest
from conftest import write_image
from damage import within_seconds
from hypothesis import given
from hypothesis import strategies as st

from ptlreid.datasets._image_list import read_list
from ptlreid.datasets._own_image import assign_numbers, parse_part
from ptlreid.errors import DataError

NAMES = ("a1.jpg", "a2.jpg", "b1.jpg", "b2.jpg")


@pytest.fixture
def read(tmp_path):
    for seed, name in enumerate(NAMES):
        write_image(tmp_path / "crops" / name, seed)

    def run(content, encoding="utf-8"):
        (tmp_path / "own.csv").write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        images, _ = read_list(tmp_path / "own.csv", unlabelled=False)
        return [(image.origin, image.identity, image.camera, image.split) for image in images]

    return run


EXPECTED = [("crops/a1.jpg", "7", "1", "train"), ("crops/b1.jpg", "9", "2", "query")]


@pytest.mark.parametrize(
    "text",
    [
        "path,pid,camid,split\ncrops/a1.jpg,7,1,train\ncrops/b1.jpg,9,2,query\n",
        "Path;PID;CamID;Split\ncrops/a1.jpg;7;1;Train\ncrops/b1.jpg;9;2;probe\n",
        "pid\tcamid\tsplit\tpath\n7\t1\ttraining\tcrops/a1.jpg\n9\t2\tQUERY\tcrops/b1.jpg",
        ' path , "pid", camid,split,note\n\n"crops/a1.jpg", 007 ,1.0,train_set\r\ncrops/b1.jpg,9.,02,query,x\n',
        "path,pid,camid,split\ncrops\\b1.jpg,9,2,query\ncrops\\a1.jpg,7,1,train",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_capitals_and_encodings_make_no_difference(read, text, encoding):
    assert read(text, encoding) == EXPECTED


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("crops/a1.jpg,1,1\ncrops/b1.jpg,2,1\ncrops/a1.jpg,2,1", "lines 2 and 4: both name the image crops/a1.jpg"),
        ("crops/a1.jpg,1,1\n./crops/../crops/a1.jpg,1,1", "lines 2 and 3: both name the image"),
        ("crops/a1.jpg,1,1\ncrops/b1.jpg,9223372036854775808,1", r"line 3: pid = 9223372036854775808: expected a num"),
        ("crops/a1.jpg,18446744073709551615,1", "line 2: pid = 18446744073709551615"),
        (f"crops/a1.jpg,{'9' * 5000},1", "line 2: pid = 999"),
        ("crops/a1.jpg,1,99999999999999999999", "line 2: camid = 99999999999999999999"),
        ("crops/a1.jpg,-3,1", "line 2: pid = -3"),
        ("crops/a1.jpg,1,-1", "line 2: camid = -1"),
        ("crops/a1.jpg,nan,1", "line 2: pid is empty"),
        ("crops/a1.jpg,1", "line 2: camid is empty"),
        ("\ncrops/a,1.jpg,1,1", "line 3: 4 values, but the header names 3 columns"),
        ("crops,1,1", "crops: is not an existing image, but .*own.csv, line 2, names it"),
    ],
)
def test_a_fault_is_refused_with_its_lines(read, rows, message):
    with pytest.raises(DataError, match=message):
        read(f"path,pid,camid\n{rows}\n")


def test_a_link_to_a_listed_image_is_the_same_image(read, tmp_path):
    (tmp_path / "link.jpg").symlink_to("crops/a1.jpg")
    (tmp_path / "folder").symlink_to("crops")
    for path in ("link.jpg", "folder/a1.jpg"):
        with pytest.raises(DataError, match="lines 2 and 3: both name the image"):
            read(f"path,pid,camid\ncrops/a1.jpg,1,1\n{path},2,1\n")


def test_a_list_that_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "own.csv")
    with within_seconds(), pytest.raises(DataError, match="cannot be read as CSV"):
        read_list(tmp_path / "own.csv", unlabelled=False)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\xff\xfe\0", b"\xff", b'"', b"path,pid,pid,camid\na,1,1,1"])
def test_what_is_no_list_is_refused_with_an_example(read, content):
    with pytest.raises(DataError, match=r"crops/17.jpg,anna,door|two columns are called pid"):
        read(content)


def test_the_largest_number_that_an_array_holds_is_kept(read):
    [image] = read("path,pid,camid\ncrops/a1.jpg,9223372036854775807,1")
    assert assign_numbers([image[1]]) == {"9223372036854775807": 2**63 - 1}


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["3", "10", "2"], {"2": 2, "3": 3, "10": 10}),
        (["0", "1", "10", "-1"], {"-1": -1, "0": 0, "1": 1, "10": 10}),  # 0 is an identity like any other
        (["bob", "-1", "-2", "0", "anna"], {"-1": -1, "-2": -2, "0": 1, "anna": 2, "bob": 3}),
        (["cam10", "cam9"], {"cam9": 1, "cam10": 2}),
        (["1", "01"], {"01": 1, "1": 2}),
        (["9223372036854775808", "1"], {"1": 1, "9223372036854775808": 2}),
    ],
)
def test_numbers_from_0_are_kept_and_anything_else_is_numbered_in_order(values, numbers):
    assert assign_numbers(values) == numbers


@given(st.sets(st.text(st.characters(codec="utf-8"), max_size=4) | st.integers().map(str), min_size=1))
def test_values_are_numbered_apart(values):
    numbers = assign_numbers(values)
    assert len(set(numbers.values())) == len(values)
    assert all(0 <= number < 2**63 for value, number in numbers.items() if value not in ("-1", "-2"))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"),
        ("Training_Set", "train"),
        ("bounding_box_train", "train"),
        ("bbox_test", "test"),
        ("image_query", "query"),
        ("Probe", "query"),
        ("gallery-images", "gallery"),
        ("train_all", "train_all"),
        ("VAL", "val"),
        ("multi-query", "extra"),
        ("gt_bbox", "extra"),
        ("valerie", ""),
        ("train7", ""),
        ("images", ""),
        ("", ""),
    ],
)
def test_names_of_parts(name, part):
    assert parse_part(name) == part
