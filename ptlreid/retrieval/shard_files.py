"""The two files of a shard: a matrix as .npy, and the columns of its images as .npz."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptlreid.errors import DataError
from ptlreid.files import atomic_write, file_digest
from ptlreid.retrieval.array_files import read_arrays, write_matrix
from ptlreid.retrieval.types import check_finite

_NUMBERS = ("pids", "camids", "clothes")
_REMEDY = "Repeat the command that wrote the folder, `ptlreid embed --shards`, which extracts the shard again."


@dataclass(frozen=True)
class Columns:
    """What is known of N images: `pids`, `camids`: (N,) int64, `clothes`, too, or None. `paths`: (N,) object of str.

    `names`: (N,) object arrays of str, as `feature_files.FeatureFile` has them.
    """

    pids: np.ndarray
    camids: np.ndarray
    paths: np.ndarray
    clothes: np.ndarray | None
    names: Mapping[str, np.ndarray]


def matrix_file(folder: Path, number: int) -> Path:
    """The file of a shard's features."""
    return folder / f"{number:05d}.npy"


def columns_file(folder: Path, number: int) -> Path:
    """The file of a shard's labels and paths."""
    return folder / f"{number:05d}.npz"


def write_shard(folder: Path, number: int, matrix: np.ndarray, columns: Columns) -> tuple[str, str]:
    """Writes the two files of a shard, each atomically; the digests of their bytes, the matrix first.

    The same content gives the same bytes. Raises `DataError` for a feature that is not finite.
    """
    check_finite(matrix, columns.paths)
    arrays = {name: getattr(columns, name) for name in _NUMBERS if getattr(columns, name) is not None}
    arrays |= {name: _pack(column) for name, column in {"paths": columns.paths, **columns.names}.items()}
    with atomic_write(columns_file(folder, number)) as temporary:
        with temporary.open("wb") as stream:
            np.savez(stream, **arrays)
        digest = file_digest(temporary)
    with atomic_write(matrix_file(folder, number), matrix.nbytes) as temporary:
        with temporary.open("wb") as stream:
            write_matrix(stream, np.ascontiguousarray(matrix))
        return file_digest(temporary), digest


def map_matrix(folder: Path, number: int, *, rows: int, width: int, dtype: str) -> np.ndarray:
    """The (rows, width) features of a shard, a read-only map of its file, in the type that they are stored in.

    Raises `DataError` that names the file if it is missing, cut off, or of another shape or type.
    """
    file = matrix_file(folder, number)
    expected = f"({rows}, {width}) {dtype}"
    try:
        with file.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
            if read_header is None:
                raise DataError(f"{file}: is an .npy of version {version}, expected {expected}. {_REMEDY}")
            shape, fortran, found = read_header(stream)
            offset, size = stream.tell(), os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}), expected {expected}. {_REMEDY}") from None
    except ValueError:
        raise DataError(f"{file}: is no .npy file, expected {expected}. {_REMEDY}") from None
    if (shape, found, fortran) != ((rows, width), np.dtype(dtype), False):
        raise DataError(f"{file}: holds {shape} {found}, expected {expected}. {_REMEDY}")
    if size != (needed := offset + rows * width * found.itemsize):
        raise DataError(f"{file}: has {size:,} bytes, expected {needed:,}: it was cut off or extended. {_REMEDY}")
    return np.asarray(np.memmap(file, found, "r", offset, (rows, width)))


def read_columns(folder: Path, number: int, *, rows: int, wanted: tuple[str, ...] = ()) -> Columns:
    """The columns of a shard's `rows` images. Of the texts, only those `wanted`; other paths are None.

    Raises `DataError` that names the file if it is missing, damaged, or of another number of rows.
    """
    file = columns_file(folder, number)
    arrays = read_arrays(file, (*_NUMBERS, *wanted)).arrays
    numbers = {name: arrays[name] for name in _NUMBERS if name in arrays}
    texts = {name: _unpack(arrays[name]) for name in wanted if name in arrays}
    paths = texts.pop("paths", np.empty(rows, dtype=object))
    lengths = {len(column) for column in (paths, *numbers.values(), *texts.values())}
    if not {"pids", "camids"} <= numbers.keys() or lengths != {rows}:
        raise DataError(f"{file}: is not as it was written, expected the columns of {rows} images. {_REMEDY}")
    return Columns(numbers["pids"], numbers["camids"], paths, numbers.get("clothes"), texts)


def read_paths(folder: Path, number: int, which: np.ndarray, *, rows: int) -> list[str]:
    """The paths of the images at the rows `which` of a shard of so many `rows`; the others are not decoded."""
    file = columns_file(folder, number)
    packed = read_arrays(file, ("paths",)).arrays.get("paths", np.empty(0, dtype=np.uint8))
    ends = np.flatnonzero(packed == 0)
    if len(ends) != rows:
        raise DataError(f"{file}: is not as it was written, expected the columns of {rows} images. {_REMEDY}")
    starts = np.append(0, ends[:-1] + 1)
    return [os.fsdecode(packed[starts[row] : ends[row]].tobytes()) for row in which.tolist()]


def _pack(column: np.ndarray) -> np.ndarray:
    """(B,) uint8: the texts, byte for byte, with a zero byte behind each."""
    content = b"".join(os.fsencode(text.replace("\0", "")) + b"\0" for text in column.tolist())
    return np.frombuffer(content, dtype=np.uint8)


def _unpack(packed: np.ndarray) -> np.ndarray:
    texts = os.fsdecode(packed.tobytes()).split("\0")[:-1]
    column = np.empty(len(texts), dtype=object)
    column[:] = texts
    return column
