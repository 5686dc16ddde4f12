"""Features for other programs: what NumPy, csv and pyarrow read from the files."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval import feature_exports
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


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_tables_are_read_by_pyarrow(features, tmp_path, suffix):
    from pyarrow import feather, parquet

    features = features.select(np.array([0, 1]))  # their texts are UTF-8
    export(tmp_path / f"f.{suffix}", features, {"cameras": NAMES["cameras"][:2]}, dtype="float32")
    read = parquet.read_table if suffix == "parquet" else feather.read_table
    table = read(tmp_path / f"f.{suffix}").to_pydict()
    np.testing.assert_array_equal(np.array(table["feature"], np.float32), MATRIX[:2])
    assert (table["path"], table["pid"], table["camid"]) == (PATHS[:2].tolist(), [3, -1], [1, -1])
    assert table["cameras"] == ["door", ""]


def test_an_arrow_file_is_mapped_into_memory_batch_by_batch(features, tmp_path, monkeypatch):
    """Its features are those bytes of the file, of fixed width, in the type that was asked for."""
    import pyarrow

    monkeypatch.setattr(feature_exports, "_TABLE_ROWS", 1)
    export(tmp_path / "f.arrow", features.select(np.array([0, 1])), {}, dtype="float16")
    before = pyarrow.total_allocated_bytes()
    with pyarrow.memory_map(str(tmp_path / "f.arrow")) as source:
        table = pyarrow.ipc.open_file(source).read_all()
        assert table.schema.field("feature").type == pyarrow.list_(pyarrow.float16(), 2)
        assert (table["feature"].num_chunks, pyarrow.total_allocated_bytes()) == (2, before)
        rows = [chunk.flatten().to_numpy() for chunk in table["feature"].chunks]
        np.testing.assert_array_equal(np.stack(rows), MATRIX[:2].astype(np.float16))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_name_that_a_table_cannot_hold_is_refused(features, tmp_path, suffix):
    with pytest.raises(DataError, match=rf"f\.{suffix}: caf\\udce9\.jpg is not UTF-8"):
        export(tmp_path / f"f.{suffix}", features, {}, dtype="float32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_a_table_without_pyarrow_is_refused_before_any_work(tmp_path, monkeypatch, suffix):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=rf"f\.{suffix}: needs .*pip install 'ptlreid\[parquet\]'"):
        check_format(tmp_path / f"f.{suffix}")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"f\.pkl: unknown file format"):
        check_format(tmp_path / "f.pkl")
