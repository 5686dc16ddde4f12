"""Times in the paths of images, and searches between two of them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import ptlreid as package
from ptlreid.retrieval.path_times import find_time
from ptlreid.retrieval.types import Features


@pytest.mark.parametrize(
    ("path", "time"),
    [
        ("2024-05-01/door/12-30-05.jpg", (2024, 5, 1, 12, 30, 5)),
        ("a/20240501_123005_0001.jpg", (2024, 5, 1, 12, 30, 5)),
        ("cam3/2024-05-01T12:30.jpg", (2024, 5, 1, 12, 30)),
        ("20240501123005.jpg", (2024, 5, 1, 12, 30, 5)),
        ("IMG_20240229-235959.png", (2024, 2, 29, 23, 59, 59)),
        ("2023-01-01/again/2024.05.01/7.jpg", (2024, 5, 1)),  # the last date
        ("20240501/0001_c1s1_000151.jpg", (2024, 5, 1)),  # identity and camera are no time
        ("2024-05-01/01_02_03.jpg", (2024, 5, 1)),
        ("2024-05-01/25-00-00.jpg", (2024, 5, 1)),
        ("0049_c1s1_014128_01.jpg", None),  # a frame of Market-1501
        ("PXL_20240501_123005123.jpg", (2024, 5, 1, 12, 30, 5)),
        ("2024-05-01T12:30:05.123456.jpg", (2024, 5, 1, 12, 30, 5)),
        ("20240501_1230051.jpg", (2024, 5, 1)),
        ("2023-02-30/a.jpg", None),
        ("20241301.jpg", None),
        ("door_1714566605.jpg", None),
        ("120240501.jpg", None),
    ],
)
def test_the_time_of_a_path(path, time):
    assert find_time(path) == (datetime(*time) if time else None)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--after", "2024-05-02"], [1, 2]),
        (["--before", "2024-05-02"], [0]),
        (["--after", "2024-05-01T10:00", "--before", "2024-05-02T12:00"], [0, 1]),
        (["--after", "2024-05-02T12:00"], [2]),  # the first moment itself is searched
        ([], [0, 1, 2, 3]),
    ],
)
def test_images_between_two_times_are_searched(ptlreid, options, found):
    paths = ["2024-05-01/10-30-00.jpg", "2024-05-02/11-59-59.jpg", "2024-05-02/12-00-00.jpg", "unknown.jpg"]
    matrix = np.arange(8, dtype=np.float32).reshape(4, 2)
    numbers = np.zeros(4, np.int64)
    features = Features(matrix, numbers, numbers, np.array(paths, dtype=object), None)
    package.write_features(features, "f.h5")
    code, out, err = ptlreid("search", "unknown.jpg", "--features", "f.h5", *options, "--json")
    assert code == 0, err
    hits = json.loads(out)["queries"][0]["hits"]
    assert sorted(paths.index(str(Path(one["path"]))) for one in hits) == found
    assert ("1 of 4 paths state no time: left out; the first is unknown.jpg" in err) == bool(options)
