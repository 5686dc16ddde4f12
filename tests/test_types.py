"""Features are checked when they are created, and every error names the first bad row."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.errors import DataError
from ptlreid.retrieval.types import Features, Scores


def columns(size: int) -> dict[str, np.ndarray]:
    return {
        "matrix": np.ones((size, 2), dtype=np.float32),
        "pids": np.arange(size, dtype=np.int64),
        "camids": np.ones(size, dtype=np.int64),
        "paths": np.array([f"{row}.jpg" for row in range(size)], dtype=object),
    }


def test_good_features_are_taken_as_they_are():
    features = Features(**columns(3))
    assert (len(features), features.width) == (3, 2)
    assert len(Features(**columns(0))) == 0


def test_select_takes_rows_or_a_mask():
    features = Features(**columns(4))
    assert features.select(np.array([3, 1])).paths.tolist() == ["3.jpg", "1.jpg"]
    assert features.select(features.pids > 1).pids.tolist() == [2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 4095, 4096, 9999])
def test_a_value_that_is_not_finite_is_named_with_its_row_and_file(bad: float, row: int):
    values = columns(10_000)
    values["matrix"][row:, 1] = bad
    with pytest.raises(DataError, match=rf"row {row} \({row}\.jpg\)"):
        Features(**values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("matrix", np.ones((3, 2)), "float64, expected float32"),
        ("matrix", np.ones((3, 2), dtype=np.float16), "float16, expected float32"),
        ("matrix", np.ones(3, dtype=np.float32), "shape"),
        ("matrix", np.ones((3, 0), dtype=np.float32), "shape"),
        ("pids", np.ones(2, dtype=np.int64), "3 rows of features, but pids"),
        ("camids", np.ones((3, 1), dtype=np.int64), "3 rows of features, but camids"),
        ("paths", np.array(["a"], dtype=object), "3 rows of features, but paths"),
        ("pids", np.ones(3, dtype=np.int32), "pids are int32, expected int64"),
        ("camids", np.ones(3), "camids are float64, expected int64"),
        ("paths", np.array(["a", "b", "c"]), "paths are <U1, expected object"),
        ("clothes", np.ones(2, dtype=np.int64), "3 rows of features, but clothes"),
        ("clothes", np.ones(3), "clothes are float64, expected int64"),
        ("pids", np.array([1, -3, -4]), r"row 1 \(1.jpg\): pid -3"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: np.ndarray, message: str):
    with pytest.raises(DataError, match=message):
        Features(**(columns(3) | {name: value}))


def scores(curve: list[float]) -> Scores:
    return Scores(
        protocol="market",
        num_queries=3,
        num_gallery=9,
        num_junk=2,
        rows=np.array([0, 2]),
        average_precision=np.array([1.0, 0.5]),
        inp=np.array([0.5, 0.25]),
        cmc_by_query=np.array([curve, [1.0] * len(curve)]),
        match_ranks=np.array([1, 4, 2]),
        match_columns=np.array([8, 0, 3]),
        match_starts=np.array([0, 2, 3]),
    )


def test_the_summary_holds_means_and_counts():
    assert scores([rank / 20 for rank in range(1, 21)]).summary() == {
        "protocol": "market",
        "mAP": 0.75,
        "mINP": 0.375,
        "cmc": {"1": (0.05 + 1) / 2, "5": (0.25 + 1) / 2, "10": (0.5 + 1) / 2, "20": 1.0},
        "queries": {"total": 3, "valid": 2},
        "gallery": {"total": 9, "junk": 2},
    }


def test_a_short_curve_ends_in_its_last_point():
    assert scores([0.0, 0.0, 1.0]).summary()["cmc"] == {"1": 0.5, "5": 1.0, "10": 1.0, "20": 1.0}


def test_the_first_match_of_each_query():
    assert scores([1.0]).first_match_rank.tolist() == [1, 2]


def test_arrays_that_do_not_belong_together_are_our_own_mistake():
    with pytest.raises(ValueError, match="differ in length"):
        Scores("market", 1, 1, 0, *(np.zeros(size) for size in (1, 2, 1)), np.zeros((1, 5)), *[np.zeros(2)] * 3)
