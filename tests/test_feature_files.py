"""Feature files of any program: taken over, or refused by file and row."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest

from ptlreid.errors import DataError
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.types import Features


def columns(size: int = 4) -> dict[str, np.ndarray]:
    return {
        "features": np.arange(size * 3, dtype=np.float32).reshape(size, 3) / 7,
        "pids": np.arange(1, size + 1),
        "camids": np.ones(size, dtype=np.int64),
        "paths": np.array([f"{row}.jpg" for row in range(size)]),
    }


def save(path, values: dict[str, np.ndarray]):
    if path.suffix == ".npz":
        np.savez(path, **values)
    else:
        with h5py.File(path, "w") as content:
            for name, value in values.items():
                content[name] = value.astype(h5py.string_dtype()) if value.dtype.kind == "U" else value
    return path


@pytest.fixture(params=["f.h5", "f.hdf5", "f.npz"])
def file(request, tmp_path):
    return tmp_path / request.param


def test_a_file_with_all_four_is_taken_as_it_is(file):
    values = columns()
    features = feature_files.read(save(file, values))
    np.testing.assert_array_equal(features.matrix, values["features"])
    assert features.pids.tolist() == [1, 2, 3, 4]
    assert features.paths.tolist() == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_an_image_without_a_path_is_called_after_its_row(file):
    values = columns()
    del values["paths"]
    assert feature_files.read(save(file, values)).paths.tolist() == [f"{file.name}#{row}" for row in range(4)]


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floats_become_float32(file, dtype):
    values = columns()
    values["features"] = values["features"].astype(dtype)
    matrix = feature_files.read(save(file, values)).matrix
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, values["features"].astype(np.float32))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int16"])
def test_other_whole_numbers_become_int64(file, dtype):
    values = columns()
    values["pids"] = values["pids"].astype(dtype)
    assert feature_files.read(save(file, values)).pids.dtype == np.int64


def changed(**new: np.ndarray) -> dict[str, np.ndarray]:
    return columns() | new


def with_bad(number: float) -> np.ndarray:
    matrix = columns()["features"].astype(np.float64)
    matrix[2, 1] = number
    return matrix


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(features=np.ones((4, 3), dtype=np.int64)), "features are int64, expected float32"),
        (changed(features=np.ones((4, 3), dtype=complex)), "features are complex128, expected float32"),
        (changed(pids=np.ones(4)), "pids are float64, expected integers"),
        (changed(camids=np.ones(4, dtype=bool)), "camids are bool, expected integers"),
        (changed(pids=np.ones(3, dtype=int)), r"4 rows of features, but pids of shape \(3,\)"),
        (changed(pids=np.array([1, 1, -5, 1])), r"row 2 \(2\.jpg\): pid -5"),
        (changed(features=with_bad(np.nan)), r"row 2 \(2\.jpg\): a feature is NaN or infinite"),
        (changed(features=with_bad(1e300)), r"row 2 \(2\.jpg\): a feature is NaN or infinite"),
        (changed(features=np.ones(4, dtype=np.float32)), r"features have shape \(4,\)"),
        ({"features": np.ones((4, 3))}, "no pids and no camids; it has features"),
        ({"x": np.ones(4)}, "it has nothing"),
        (changed(features=np.ones((0, 3))), "holds no features, expected at least one row"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(file, values, message):
    with pytest.raises(DataError, match=re.escape(str(file)) + ".*" + message):
        feature_files.read(save(file, values))


def test_a_file_of_another_kind_is_an_error_that_names_it(tmp_path):
    for name, words in (("f.csv", "unknown file format"), ("none.npz", "no such file")):
        with pytest.raises(DataError, match=f"{name}: {words}"):
            feature_files.read(tmp_path / name)
    for name in ("f.h5", "f.npz"):
        for content in (b"", b"something else", b"PK\x03\x04 cut"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match=f"{name}: not a complete feature file"):
                feature_files.read(tmp_path / name)


def test_a_file_cut_short_is_an_error_that_names_it(file):
    save(file, columns(500))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match="not a complete feature file"):
        feature_files.read(file)


def test_no_code_in_a_file_is_run(tmp_path):
    np.savez(tmp_path / "f.npz", **(columns() | {"paths": np.array(["a", "b", "c", "d"], dtype=object)}))
    with pytest.raises(DataError, match="paths are strings, not Python objects"):
        feature_files.read(tmp_path / "f.npz")


@pytest.mark.parametrize("size", [1, 700])
def test_what_is_written_is_read_and_has_the_documented_layout(tmp_path, size):
    rng = np.random.default_rng(0)
    paths = np.array([f"zürich/{row}.jpg" for row in range(size)], dtype=object)
    ids = np.arange(size, dtype=np.int64)
    features = Features(rng.standard_normal((size, 1000)).astype(np.float32), ids, ids, paths)
    feature_files.write(tmp_path / "f.h5", features, {"schema": "2"}, dtype="float32")
    found = feature_files.read(tmp_path / "f.h5")
    np.testing.assert_array_equal(found.matrix, features.matrix)
    assert found.paths.tolist() == paths.tolist()
    with h5py.File(tmp_path / "f.h5") as content:
        assert (content["features"].dtype, content.attrs["schema"]) == (np.float32, "2")
        assert size == 0 or content["features"].chunks[0] * 4000 <= 2**20
