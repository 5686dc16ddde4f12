"""Arrays from HDF5 and .npz files of any program, read completely or refused with the reason; and matrices to .npy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from ptlreid.errors import DataError
from ptlreid.file_kinds import identify, printable
from ptlreid.hdf5_strings import check_heaps, check_lengths
from ptlreid.retrieval.memory_plan import free_memory_bytes

SUFFIXES = {".h5": "an HDF5 file", ".hdf5": "an HDF5 file", ".npz": "a NumPy archive (.npz)"}
_CHUNK_RECORD_BYTES = 8  # of an index of chunks, at least


def write_matrix(stream: BinaryIO, matrix: np.ndarray) -> None:
    """Write a matrix in C order as .npy, with the bytes of `np.save`, and an error if not all can be written.

    For a file, `np.save` writes by C's own buffers, and passes over an error when these are emptied at the end.
    """
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(matrix))
    stream.write(matrix.reshape(-1).view(np.uint8).data)


@dataclass(frozen=True)
class Arrays:
    """The arrays of a file that were asked for, by name, and `names`, of everything in it.

    `attributes`: those of an HDF5 file that are texts.
    """

    arrays: dict[str, np.ndarray]
    names: list[str]
    attributes: Mapping[str, str] = field(default_factory=dict)


def read_arrays(file: Path, wanted: Collection[str], *, mapped: Collection[str] = ()) -> Arrays:
    """The arrays called `wanted` in `file`, a regular file with one of the `SUFFIXES`; others are not read.

    Those called `mapped` may be read-only maps of the file, which take no memory of their own.
    Nothing in the file is run, and no other file is opened. Raises `DataError` where the file is damaged or of another
    kind, an array does not fit into memory, or rows of it were never written.
    """
    try:
        return _read_npz(file, wanted) if file.suffix == ".npz" else _read_hdf5(file, wanted, mapped)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except Exception as error:  # noqa: BLE001 - on damaged files, NumPy, zipfile and HDF5 raise exceptions of any kind
        raise DataError(
            f"{file}: not a complete feature file ({_explain(file, error)}). Write it again; paths are strings, not "
            "Python objects."
        ) from None


def _explain(file: Path, error: Exception) -> str:
    """Why a file could not be read: it is of another kind, or what the library reports."""
    try:
        kind = identify(file)
    except OSError:
        kind = SUFFIXES[file.suffix]
    if not kind.startswith(SUFFIXES[file.suffix]):
        return f"it is {kind}"
    if isinstance(error, MemoryError):
        return "an array in it does not fit into memory"
    if "pickle" in str(error):
        return "it holds Python objects, which are not loaded"
    return printable(" ".join(str(error).split())) or type(error).__name__


def _read_npz(file: Path, wanted: Collection[str]) -> Arrays:
    arrays = {}
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
        sizes = {member.filename.removesuffix(".npy"): member.file_size for member in content.zip.infolist()}
        for name in wanted:
            if name not in content.files:
                continue
            _check_memory(name, sizes[name])
            array = content[name]
            if not isinstance(array, np.ndarray):
                raise DataError(f"{name} is not an array: expected a member written by np.savez. Write the file again.")
            arrays[name] = array
        return Arrays(arrays, content.files)


def _read_hdf5(file: Path, wanted: Collection[str], mapped: Collection[str]) -> Arrays:
    arrays = {}
    check_heaps(file, _find_piece(file, mapped))
    with h5py.File(file, "r", locking=False) as content:
        names = [name if isinstance(name, str) else repr(name) for name in content]  # bytes if not UTF-8
        for name in wanted:
            if name not in names:
                continue
            if isinstance(content.get(name, getlink=True), h5py.ExternalLink):
                raise _elsewhere(name)
            dataset = content[name]
            if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
                raise DataError(f"{name} is not an array: expected a dataset of numbers. Write the file again.")
            if dataset.dtype.kind == "O" and h5py.check_string_dtype(dataset.dtype) is None:
                raise DataError(f"{name} holds {dataset.dtype}: expected numbers or strings. Write the file again.")
            _check_memory(name, dataset.dtype.itemsize * max(math.prod(dataset.shape), math.prod(dataset.chunks or ())))
            _check_written(name, dataset, file.stat().st_size)
            if dataset.dtype.kind == "O":
                check_lengths(file, dataset)
            arrays[name] = _map(file, dataset) if name in mapped else np.asarray(dataset)
        attributes = {name: value for name, value in content.attrs.items() if isinstance(value, str)} if mapped else {}
    return Arrays(arrays, names, attributes)


def _find_piece(file: Path, mapped: Collection[str]) -> range:
    """Where in the file the one of these arrays is that is in one piece there; nowhere for none or several."""
    if len(mapped) != 1:
        return range(0)
    (name,) = mapped
    with h5py.File(file, "r", locking=False) as content:
        dataset = content.get(name)
        offset = dataset.id.get_offset() if isinstance(dataset, h5py.Dataset) else None
        return range(0) if offset is None else range(offset, offset + dataset.id.get_storage_size())


def _map(file: Path, dataset: h5py.Dataset) -> np.ndarray:
    """The array in place in the file; a copy where it is not in one piece there, or is empty."""
    offset = dataset.id.get_offset()
    if offset is None or not dataset.size:
        return np.asarray(dataset)
    return np.asarray(np.memmap(file, dataset.dtype, "r", offset, dataset.shape))


def _check_memory(name: str, num_bytes: int) -> None:
    """Raises `DataError` for an array larger than the free memory: most often its size is damaged."""
    free = free_memory_bytes()
    if num_bytes > free:
        raise DataError(
            f"{name} takes {num_bytes / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are free: expected an array "
            "that fits. If the file should be smaller than that, it is damaged: write it again."
        )


def _check_written(name: str, dataset: h5py.Dataset, file_bytes: int) -> None:
    """Raises `DataError` where rows were never written: HDF5 would fill them with zeros."""
    if dataset.is_virtual or dataset.external:
        raise _elsewhere(name)
    if not math.prod(dataset.shape):
        return
    if dataset.chunks is None:
        if not dataset.id.get_storage_size():
            raise _unwritten(name, 0)
        return
    counts = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    expected = math.prod(counts)
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if expected * min(_CHUNK_RECORD_BYTES, chunk_bytes) > file_bytes:  # too many to be there, or to be counted
        raise _unwritten(name, None)
    present: set[tuple[int, ...]] = set()

    def collect(chunk: h5py.h5d.StoreInfo) -> bool | None:
        present.add(chunk.chunk_offset)
        return True if len(present) > expected else None  # stops

    dataset.id.chunk_iter(collect)
    for indices in itertools.product(*map(range, counts)):
        offset = tuple(index * chunk for index, chunk in zip(indices, dataset.chunks, strict=True))
        if offset not in present:
            raise _unwritten(name, offset[0])


def _unwritten(name: str, row: int | None) -> DataError:
    where = "" if row is None else f", the first of them row {row}"
    return DataError(f"{name} has rows without data{where}: they were never written. Write the file again.")


def _elsewhere(name: str) -> DataError:
    return DataError(
        f"{name} is in another file (an external link, external storage or a virtual dataset), where rows may be "
        "missing: expected the rows in this file. Copy them, for example with h5py."
    )
