"""Features for other programs: what NumPy, csv and pyarrow read from the files."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from ptlreid.errors import OptionError
from ptlreid.retrieval.feature_exports import check_format, export
from ptlreid.retrieval.types import Features

MATRIX = np.array([[1.5, -2.25], [0.1, 3], [0, 0]], dtype=np.float32)
PATHS = np.array(['a,"b".jpg', "c.jpg", "caf\udce9.jpg"], dtype=object)
NAMES = {"cameras": np.array(["door", "", "yard"], dtype=object)}


@pytest.fixture
def features() -> Features:
    return Features(MATRIX, np.array([3, -1, 4]), np.array([1, -1, 2]), PATHS)


def test_an_npz_is_read_without_pickle(features, tmp_path):
    export(tmp_path / "f.npz", features, NAMES, dtype="float16")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as content:
        assert content["features"].dtype == np.float16
        np.testing.assert_array_equal(content["features"], MATRIX.astype(np.float16))
        assert (content["pids"].tolist(), content["camids"].tolist()) == ([3, -1, 4], [1, -1, 2])
        assert content["paths"].tolist() == PATHS.tolist()
        assert content["cameras"].tolist() == ["door", "", "yard"]


def test_a_matrix_has_a_csv_with_its_rows(features, tmp_path):
    export(tmp_path / "f.npy", features, NAMES, dtype="float32")
    found = np.load(tmp_path / "f.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(found, MATRIX)
    assert b"caf\xe9.jpg" in (tmp_path / "f.csv").read_bytes()
    with (tmp_path / "f.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {"row": "0", "path": 'a,"b".jpg', "pid": "3", "camid": "1", "camera": "door"}
    assert [row["row"] for row in rows] == ["0", "1", "2"]


def test_parquet_is_read_by_pyarrow(features, tmp_path):
    from pyarrow import parquet

    features = features.select(np.array([0, 1]))  # Parquet's texts are UTF-8
    export(tmp_path / "f.parquet", features, {}, dtype="float32")
    table = parquet.read_table(tmp_path / "f.parquet").to_pydict()
    np.testing.assert_array_equal(np.array(table["feature"], np.float32), MATRIX[:2])
    assert (table["path"], table["pid"], table["camid"]) == (PATHS[:2].tolist(), [3, -1], [1, -1])


def test_parquet_without_pyarrow_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"pip install 'ptlreid\[parquet\]'"):
        check_format(tmp_path / "f.parquet")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"f\.pkl: unknown file format"):
        check_format(tmp_path / "f.pkl")
