"""Feature files of any program: taken over, or refused by file and row."""

from __future__ import annotations

import os
import re
import zipfile

import h5py
import numpy as np
import pytest
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st

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


def test_clothes_are_taken_where_they_are_there(file):
    assert feature_files.read(save(file, columns())).clothes is None
    clothes = feature_files.read(save(file, changed(clothes=np.array([3.0, 1.0, 1.0, 0.0])))).clothes
    assert (clothes.tolist(), clothes.dtype) == ([3, 1, 1, 0], np.int64)
    for wrong in (np.array([1, 2, 3]), np.array([1, 2, 3, 0.5]), np.array(["a", "b", "c", "d"])):
        with pytest.raises(DataError, match=rf"{file.name}.*clothes"):
            feature_files.read(save(file, changed(clothes=wrong)))


def test_written_features_keep_their_clothes(tmp_path):
    features = feature_files.read(save(tmp_path / "a.npz", changed(clothes=np.array([3, 1, 1, 0]))))
    feature_files.write(tmp_path / "b.h5", features, {}, dtype="float32")
    feature_files.write(tmp_path / "c.h5", features.select(np.array([3, 0])), {}, dtype="float32")
    assert feature_files.read(tmp_path / "b.h5").clothes.tolist() == [3, 1, 1, 0]
    assert feature_files.read(tmp_path / "c.h5").clothes.tolist() == [0, 3]


def test_an_image_without_a_path_is_called_after_its_row(file):
    values = columns()
    del values["paths"]
    assert feature_files.read(save(file, values)).paths.tolist() == [f"{file}#{row}" for row in range(4)]


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floats_become_float32(file, dtype):
    values = columns()
    values["features"] = values["features"].astype(dtype)
    matrix = feature_files.read(save(file, values)).matrix
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, values["features"].astype(np.float32))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int16", "uint64", "float64", "float16"])
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
        (changed(pids=np.array([1, 2, 2.5, 3])), r"row 2: pids = 2\.5: expected a whole number"),
        (changed(pids=np.array([1, np.nan, 2, np.inf])), "row 1: pids = nan: expected a whole number"),
        (changed(pids=np.array([1, 1, 2, 1e300])), r"row 3: pids = 1e\+300: expected a whole number"),
        (changed(pids=np.float32([1, 1, 2, 2**24 + 2])), "row 3: pids = 16777218"),  # is 2^24 + 1 as a float32, too
        (changed(pids=np.array([1, 2**64 - 1, 2, 3], dtype=np.uint64)), "row 1: pids = 18446744073709551615"),
        (changed(camids=np.array([1, 2, 3, 2**63], dtype=np.uint64)), "row 3: camids = 9223372036854775808"),
        (changed(camids=np.ones(4, dtype=bool)), "camids are bool, expected integers"),
        (changed(pids=np.ones(3, dtype=int)), r"4 rows of features, but pids of shape \(3,\)"),
        (changed(pids=np.array([1, 1, -5, 1])), r"row 2 \(2\.jpg\): pid -5"),
        (changed(features=with_bad(np.nan)), r"row 2 \(2\.jpg\): a feature is NaN, infinite or too large for float32"),
        (changed(features=with_bad(1e300)), r"row 2 \(2\.jpg\): a feature is NaN, infinite or too large for float32"),
        (changed(features=np.ones(4, dtype=np.float32)), r"features have shape \(4,\)"),
        ({"features": np.ones((4, 3))}, "no pids and no camids; it has features"),
        ({"x": np.ones(4)}, "it has x"),
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


def test_an_array_under_another_files_name_is_called_what_it_is(tmp_path):
    with (tmp_path / "f.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    (tmp_path / "g.h5").write_text("<!doctype html><html>Sign in</html>")
    for name, words in (("f.npz", "it is a NumPy array"), ("g.h5", "it is an HTML page")):
        with pytest.raises(DataError, match=f"{name}: not a complete feature file .{words}"):
            feature_files.read(tmp_path / name)


@pytest.mark.parametrize("name", ["features", "pids", "paths"])
def test_a_member_that_is_no_array_is_an_error(tmp_path, name):
    np.savez(tmp_path / "f.npz", **{key: value for key, value in columns().items() if key != name})
    with zipfile.ZipFile(tmp_path / "f.npz", "a") as archive:
        archive.writestr(name, "1, 2, 3")
    with h5py.File(tmp_path / "f.h5", "w") as content:
        content.create_group(name)
    for file in ("f.npz", "f.h5"):
        with pytest.raises(DataError, match=f"{file}: {name} is not an array"):
            feature_files.read(tmp_path / file)


def test_objects_and_empty_dataspaces_are_no_arrays(tmp_path):
    with h5py.File(save(tmp_path / "f.h5", columns()), "a") as content:
        del content["paths"], content["pids"]
        content.create_dataset("paths", (4,), dtype=h5py.vlen_dtype(np.int32))
        content["pids"] = h5py.Empty("i8")
    with pytest.raises(DataError, match=r"f\.h5: pids is not an array"):
        feature_files.read(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5", "a") as content:
        del content["pids"]
        content["pids"] = np.arange(4)
    with pytest.raises(DataError, match=r"f\.h5: paths holds object: expected numbers or strings"):
        feature_files.read(tmp_path / "f.h5")


@pytest.mark.parametrize(
    ("options", "written", "row"),
    [
        ({}, slice(0, 0), 0),
        ({"chunks": (2, 3)}, slice(0, 0), 0),
        ({"chunks": (2, 3)}, slice(0, 5), 6),  # the chunk of rows 4 and 5 is there
        ({"chunks": (2, 1), "compression": "gzip"}, slice(4, 12), 0),
        ({"chunks": (3, 3), "maxshape": (None, 3)}, slice(0, 9), 9),
    ],
)
def test_rows_that_were_never_written_are_an_error(tmp_path, options, written, row):
    values = columns(12)
    with h5py.File(save(tmp_path / "f.h5", values), "a") as content:
        del content["features"]
        matrix = content.create_dataset("features", (12, 3), "f4", **options)
        if written.stop:
            matrix[written] = values["features"][written]
    with pytest.raises(DataError, match=rf"f\.h5: features has rows without data, the first of them row {row}:"):
        feature_files.read(tmp_path / "f.h5")


def test_rows_in_other_files_are_an_error(tmp_path):
    save(tmp_path / "source.h5", columns())
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[...] = h5py.VirtualSource(tmp_path / "none.h5", "features", (4, 3))
    for kind in ("virtual", "external", "link"):
        file = save(tmp_path / f"{kind}.h5", columns())
        with h5py.File(file, "a") as content:
            del content["features"]
            if kind == "virtual":
                content.create_virtual_dataset("features", layout)
            elif kind == "external":
                content.create_dataset("features", (4, 3), "f4", external=[(str(tmp_path / "none.raw"), 0, 48)])
            else:
                content["features"] = h5py.ExternalLink(str(tmp_path / "source.h5"), "features")
        with pytest.raises(DataError, match=f"{kind}.h5: features is in another file .*expected the rows in this file"):
            feature_files.read(file)


def test_more_chunks_than_a_file_has_bytes_are_not_counted(tmp_path):
    with h5py.File(save(tmp_path / "f.h5", columns()), "a") as content:
        del content["features"]
        content.create_dataset("features", (10**9, 1), "f2", chunks=(1, 1))[0] = 1  # 2 GB would fit into memory
    with within_seconds(5), pytest.raises(DataError, match=r"f\.h5: features (has rows without data|takes .* GB)"):
        feature_files.read(tmp_path / "f.h5")


@pytest.mark.parametrize("shape", [(10**7, 3), (10**12, 3), (10**15, 10**15)])
@pytest.mark.parametrize("options", [{"chunks": (1, 3)}, {"chunks": (1000, 3)}, {}])
def test_a_file_that_declares_more_than_it_has_is_an_error_at_once(tmp_path, shape, options):
    with h5py.File(save(tmp_path / "f.h5", columns()), "a") as content:
        del content["features"]
        try:
            matrix = content.create_dataset("features", shape, "f4", **options)
        except (ValueError, OSError):
            pytest.skip("HDF5 refuses to declare it")
        if options:
            matrix[0, :3] = 1
    with within_seconds(5), pytest.raises(DataError, match=r"f\.h5: features (has rows without data|takes .* GB)"):
        feature_files.read(tmp_path / "f.h5")


def test_a_list_of_strings_without_end_is_damaged(tmp_path):
    """The library would follow it for ever."""
    file = save(tmp_path / "f.h5", columns())
    content = file.read_bytes()
    heap = content.index(b"GCOL")
    size = int.from_bytes(content[heap + 8 : heap + 16], "little")
    at = heap + 16
    while content[at : at + 2] != b"\0\0":  # as far as the free object: index 0, and its size after 8 bytes
        at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
    assert at < heap + size
    file.write_bytes(content[: at + 8] + bytes(8) + content[at + 16 :])
    with (
        within_seconds(5),
        pytest.raises(DataError, match=r"f\.h5: not a complete .*a list of strings in it is damaged"),
    ):
        feature_files.read(file)


@pytest.mark.parametrize("options", [{}, {"chunks": (3,)}])
def test_a_string_longer_than_the_file_is_damaged(tmp_path, options):
    """The library would reserve its length."""
    values = columns()
    del values["paths"]
    file, paths = save(tmp_path / "f.h5", values), np.array(["a.jpg", "bb.jpg", "c.jpg", "d.jpg"], dtype=object)
    with h5py.File(file, "a") as content:
        content.create_dataset("paths", data=paths, dtype=h5py.string_dtype(), **options)
    content = file.read_bytes()
    reference = (6).to_bytes(4, "little") + content.index(b"GCOL").to_bytes(8, "little")  # length, heap
    assert content.count(reference) == 1
    file.write_bytes(content.replace(reference, b"\xff\xff\xff\x7f" + reference[4:]))
    with pytest.raises(DataError, match="the length of a string is damaged"):
        feature_files.read(file)


@pytest.mark.parametrize("name", ["f.npz", "stored.h5", "packed.h5", "written.h5"])
@damage_examples(0.5)
@given(data=st.data())
def test_a_damaged_file_gives_features_or_one_message(tmp_path, name, data):
    file = tmp_path / name
    if name not in CONTENTS:
        CONTENTS[name] = write_sound(file).read_bytes()
    file.write_bytes(data.draw(damaged(CONTENTS[name])))
    with within_seconds():
        try:
            features = feature_files.read(file)
        except DataError as error:
            assert str(file) in str(error)
            assert len(str(error).splitlines()) == 1
            return
    assert np.isfinite(features.matrix).all()
    assert (features.pids >= -2).all()


CONTENTS: dict[str, bytes] = {}


def write_sound(file):
    """A small feature file, as several programs write it."""
    values = columns(40)
    if file.name == "written.h5":
        paths, ids = values["paths"].astype(object), values["pids"].astype(np.int64)
        feature_files.write(file, Features(values["features"], ids, ids, paths), {"schema": "2"}, dtype="float32")
        return file
    if file.name == "packed.h5":
        with h5py.File(file, "w") as content:
            for name, value in values.items():
                data = value.astype("S") if name == "paths" else value
                content.create_dataset(name, data=data, chunks=(7, *value.shape[1:]), compression="gzip", shuffle=True)
        return file
    return save(file, values)


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
        assert content["features"].chunks is None
        offset = content["features"].id.get_offset()
    mapped = feature_files.read_in_place(tmp_path / "f.h5").features.matrix
    np.testing.assert_array_equal(mapped, features.matrix)
    assert (tmp_path / "f.h5").read_bytes()[offset : offset + 4] == features.matrix[0, :1].tobytes()
    assert not mapped.flags.writeable


@pytest.mark.parametrize("options", [{"chunks": (2, 3)}, {"chunks": (2, 3), "compression": "gzip"}, {}])
def test_a_matrix_is_read_in_place_or_copied_with_its_names_and_attributes(tmp_path, options):
    values = columns(5)
    with h5py.File(tmp_path / "f.h5", "w") as content:
        content.create_dataset("features", data=values.pop("features"), **options)
        for name, value in {**values, "cameras": np.array([*"abcde"])}.items():
            content[name] = value.astype(h5py.string_dtype()) if value.dtype.kind == "U" else value
        content.attrs["weights"] = "12"
        content.attrs["number"] = 3
    found = feature_files.read_in_place(tmp_path / "f.h5")
    np.testing.assert_array_equal(found.features.matrix, columns(5)["features"])
    assert found.names["cameras"].tolist() == [*"abcde"]
    assert dict(found.attributes) == {"weights": "12"}


def test_names_of_another_number_of_rows_are_refused(tmp_path):
    np.savez(tmp_path / "f.npz", **columns(4), cameras=np.array(["a"]))
    with pytest.raises(DataError, match=r"4 rows of features, but 1 cameras"):
        feature_files.read_in_place(tmp_path / "f.npz")


def test_names_of_files_that_are_not_utf8_come_back_byte_for_byte(tmp_path):
    names = [os.fsdecode(b"a\xff.jpg"), "b\N{LATIN SMALL LETTER E WITH ACUTE}.jpg"]
    numbers = np.zeros(2, np.int64)
    features = Features(np.eye(2, dtype=np.float32), numbers, numbers, np.array(names, dtype=object))
    feature_files.write(tmp_path / "f.h5", features, {}, dtype="float32")
    assert [os.fsencode(name) for name in feature_files.read(tmp_path / "f.h5").paths] == list(map(os.fsencode, names))
