"""Features as files for other programs: a NumPy archive, a matrix with a CSV, Arrow, Parquet. HDF5: `feature_files`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.files import atomic_write
from ptlreid.retrieval.array_files import write_matrix
from ptlreid.retrieval.types import Features

HDF5 = (".h5", ".hdf5")
TABLES = (".arrow", ".feather", ".parquet")  # the first two are the same format
SUFFIXES = (*HDF5, ".npz", ".npy", *TABLES)
_HEADER = b"row,path,pid,camid"  # how the CSV next to an .npy begins
_TABLE_ROWS = 1 << 16  # of a batch in an Arrow file


def check_format(file: Path) -> None:
    """Raise `OptionError` for a suffix of no format, for Arrow or Parquet without the package for it, and for an .npy
    whose CSV would replace one of another program.
    """
    if file.suffix not in SUFFIXES:
        raise OptionError(
            f"--out {file}: unknown file format, expected a name that ends in {', '.join(SUFFIXES)}, or a folder. "
            "Rename it."
        )
    if file.suffix in TABLES:
        _import_pyarrow(file)
    if file.suffix == ".npy" and not _may_replace(listing := file.with_suffix(".csv")):
        raise OptionError(
            f"--out {file}: {listing}, the list of its rows, exists already and is of another program: expected none. "
            "Choose another name."
        )


def _may_replace(listing: Path) -> bool:
    """Whether there is no CSV yet, or one that `export` wrote."""
    if not listing.exists():
        return True
    try:
        with listing.open("rb") as stream:
            return stream.read(len(_HEADER)) == _HEADER
    except OSError:
        return False


def files_of(file: Path) -> list[Path]:
    """The files that `export` writes for `file`."""
    return [file, file.with_suffix(".csv")] if file.suffix == ".npy" else [file]


def export(file: Path, features: Features, names: Mapping[str, np.ndarray], *, dtype: str) -> None:
    """Writes the features, as `dtype`, to `file` in the format of its suffix other than HDF5's, atomically.

    `names`: further columns of text by name, (N,) object arrays of str. The CSV next to an .npy has a line for each of
    its rows. Both are complete before either takes the place of an older one, the CSV first.
    """
    matrix = features.matrix.astype(dtype, copy=False)
    columns = {"path": features.paths, "pid": features.pids, "camid": features.camids}
    columns |= {} if features.clothes is None else {"clothes": features.clothes}
    if file.suffix == ".npz":
        arrays: dict[str, Any] = {"features": matrix, "pids": features.pids, "camids": features.camids}
        arrays |= {} if features.clothes is None else {"clothes": features.clothes}
        arrays |= {name: column.astype(str) for name, column in {"paths": features.paths, **names}.items()}
        with atomic_write(file, matrix.nbytes) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)
    elif file.suffix == ".npy":
        singular = {"identities": "identity", "cameras": "camera"}
        with atomic_write(file, matrix.nbytes) as temporary:
            with temporary.open("wb") as stream:
                write_matrix(stream, np.ascontiguousarray(matrix))
            _write_csv(file.with_suffix(".csv"), columns | {singular[name]: column for name, column in names.items()})
    else:
        _write_table(file, matrix, columns | dict(names))


def _write_csv(file: Path, columns: Mapping[str, np.ndarray]) -> None:
    with (
        atomic_write(file) as temporary,
        # Names of files that are not UTF-8 are written byte for byte.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(("row", *columns))
        values = [column.tolist() for column in columns.values()]
        writer.writerows(zip(range(len(values[0])), *values, strict=True))


def _write_table(file: Path, matrix: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
    """Write an Arrow IPC file, whose features can be mapped into memory, or Parquet, which is compressed."""
    pyarrow, parquet = _import_pyarrow(file)
    flat = pyarrow.array(np.ascontiguousarray(matrix).reshape(-1))
    try:
        arrays = {name: pyarrow.array(column.tolist()) for name, column in columns.items()}
    except UnicodeEncodeError as error:
        name = error.object.encode("utf-8", "backslashreplace").decode()
        raise DataError(
            f"{file}: {name} is not UTF-8, which all texts in a {file.suffix} are. Rename the image or its folder, or "
            "write .h5, .npz or .npy."
        ) from None
    arrays["feature"] = pyarrow.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    table = pyarrow.table(arrays)
    with atomic_write(file, matrix.nbytes) as temporary:
        if file.suffix == ".parquet":
            parquet.write_table(table, temporary)
            return
        with temporary.open("wb") as stream, pyarrow.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=_TABLE_ROWS)


def _import_pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise OptionError(
            f"--out {file}: needs the package pyarrow, which is not installed. Install it with "
            "`pip install 'ptlreid[parquet]'`, or write .h5, .npz or .npy."
        ) from None
    return pyarrow, parquet
