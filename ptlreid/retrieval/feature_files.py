"""Feature files, of ptlreid or any other program: HDF5 or .npz with `features`, `pids`, `camids`, `paths`, `clothes`.

docs/file-formats.md describes them. `read` accepts files from any program, checks them, and names the file and row
at fault; `write` writes HDF5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from ptlreid import files
from ptlreid.errors import DataError
from ptlreid.file_kinds import printable
from ptlreid.retrieval import array_files
from ptlreid.retrieval.shards import Shards, is_shard_folder
from ptlreid.retrieval.types import Features

NAMES: tuple[Literal["identities", "cameras"], ...] = ("identities", "cameras")
_REQUIRED, _OPTIONAL = ("features", "pids", "camids"), ("paths", "clothes")
_INDEX_BYTES = 64  # for each row: its identity and camera, and where its path is


@dataclass(frozen=True)
class FeatureFile:
    """The content of a feature file. `names`: what the source calls identities and cameras, (N,) object arrays of str.

    `attributes`: those of a file of ptlreid, such as the digest of the weights; none of an .npz.
    """

    features: Features
    names: Mapping[str, np.ndarray]
    attributes: Mapping[str, str]


def read(file: Path) -> Features:
    """The features in `file`, as float32: float16 and float64 are converted, whole numbers of any type become int64.

    Without `paths`, images are named after their row; `clothes` may be missing, too. Raises `DataError` naming the file
    and what is wrong with it; a file without rows is an error too. `file` may be a folder of shards: see `shards`.
    """
    if is_shard_folder(file):
        return Shards.open(file).read()[0]
    return _read(file, array_files.read_arrays(_check_kind(file), (*_REQUIRED, *_OPTIONAL)))


def read_in_place(file: Path) -> FeatureFile:
    """The same with names and attributes. The matrix may be a read-only map of the file, which takes no memory."""
    if is_shard_folder(file):
        shards = Shards.open(file)
        features, texts = shards.read()
        return FeatureFile(features, texts, shards.attributes)
    content = array_files.read_arrays(_check_kind(file), (*_REQUIRED, *_OPTIONAL, *NAMES), mapped=("features",))
    features = _read(file, content)
    names: dict[str, np.ndarray] = {}
    names |= {name: _as_column(_as_texts(content.arrays[name])) for name in NAMES if name in content.arrays}
    wrong = [name for name, column in names.items() if len(column) != len(features)]
    if wrong:
        raise DataError(
            f"{file}: {len(features)} rows of features, but {len(names[wrong[0]])} {wrong[0]}: expected one for each "
            "row. Write the file again."
        )
    return FeatureFile(features, names, content.attributes)


def _check_kind(file: Path) -> Path:
    if file.suffix not in array_files.SUFFIXES:
        raise DataError(f"{file}: unknown file format. Give features as HDF5 (.h5, .hdf5) or NumPy's .npz.")
    if not file.is_file():
        raise DataError(f"{file}: no such file. Give an existing feature file.")
    return file


def _read(file: Path, content: array_files.Arrays) -> Features:
    columns, missing = content.arrays, [name for name in _REQUIRED if name not in content.arrays]
    if missing:
        contained = ", ".join(printable(name, 40) for name in content.names[:10]) or "nothing"
        raise DataError(
            f"{file}: not a complete feature file: no {' and no '.join(missing)}; it has {contained}. "
            f"Save {', '.join(_REQUIRED)} under these names."
        )
    size = len(columns["features"]) if columns["features"].ndim else 0
    if not size:
        raise DataError(f"{file}: holds no features, expected at least one row. Extract them again.")
    paths = _as_texts(columns["paths"]) if "paths" in columns else [f"{file}#{row}" for row in range(size)]
    matrix = _as_floats(file, columns["features"])
    pids, camids = (_as_integers(file, name, columns[name]) for name in ("pids", "camids"))
    clothes = _as_integers(file, "clothes", columns["clothes"]) if "clothes" in columns else None
    try:
        return Features(matrix, pids, camids, _as_column(paths), clothes)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def write(
    file: Path,
    features: Features,
    attributes: Mapping[str, str],
    *,
    dtype: str,
    names: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes the features, as `dtype`, and the `attributes` to the HDF5 `file`, atomically.

    The matrix is in one piece, so that it can be mapped into memory. `names`: further columns of text by name, (N,)
    object arrays of str. Names of files that are not UTF-8 are written byte for byte.
    """
    texts = {"paths": features.paths, **(names or {})}
    size, width = features.matrix.shape
    needed = size * width * np.dtype(dtype).itemsize
    needed += sum(sum(map(len, column)) + _INDEX_BYTES * size for column in texts.values())
    with files.atomic_output(file, needed) as output, h5py.File(output, "w") as content:
        content.create_dataset("features", data=features.matrix, dtype=dtype)
        content["pids"], content["camids"] = features.pids, features.camids
        if features.clothes is not None:
            content["clothes"] = features.clothes
        for name, column in texts.items():
            encoded = np.array([text.encode("utf-8", "surrogateescape") for text in column], dtype=object)
            content.create_dataset(name, data=encoded, dtype=h5py.string_dtype())
        content.attrs.update(attributes)


def _as_floats(file: Path, matrix: np.ndarray) -> np.ndarray:
    if matrix.dtype.kind != "f":
        raise DataError(f"{file}: features are {matrix.dtype}, expected float32 (or float16, float64). Convert them.")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are rejected later, with their row
        return matrix.astype(np.float32, copy=False)


def _as_integers(file: Path, name: str, column: np.ndarray) -> np.ndarray:
    """The column as int64; `DataError` for a number that is not whole, or that int64 or its own type does not hold."""
    if column.dtype.kind not in "iuf":
        raise DataError(f"{file}: {name} are {column.dtype}, expected integers (int64). Convert them.")
    with np.errstate(invalid="ignore"):
        integers = column.astype(np.int64, copy=False)
    if column.dtype.kind == "f":
        largest = 2 ** (np.finfo(column.dtype).nmant + 1)  # beyond it, neighbouring integers are the same float
        wrong = ~((integers == column) & (np.abs(column) <= largest))
    else:
        wrong = column > np.iinfo(np.int64).max
    rows = np.flatnonzero(wrong)
    if len(rows) and column.ndim == 1:
        raise DataError(
            f"{file}: row {rows[0]}: {name} = {column[rows[0]]}: expected a whole number that int64 holds exactly. "
            "Number identities and cameras as integers (int64)."
        )
    return integers


def _as_column(texts: list[str]) -> np.ndarray:
    column = np.empty(len(texts), dtype=object)
    column[:] = texts
    return column


def _as_texts(column: np.ndarray) -> list[str]:
    return [
        one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else str(one)
        for one in column.ravel().tolist()
    ]
