"""Files of features, of this program and of others: HDF5 or .npz with `features`, `pids`, `camids` and `paths`.

docs/file-formats.md describes them. `read` takes what any program wrote, checks it, and names the file and the row
that is at fault; `write` makes the HDF5 form.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from ptlreid.errors import DataError
from ptlreid.files import atomic_write
from ptlreid.retrieval.types import Features

_NEEDED = ("features", "pids", "camids")
_CHUNK_BYTES = 1 << 20


def read(file: Path) -> Features:
    """The features in `file`, as float32: float16 and float64 are converted, integers of any width become int64.

    `paths` may be missing: an image is then called after its row. Raises `DataError` naming the file, and what in it
    is not as it should be.
    """
    columns = _columns(file)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        held = ", ".join(sorted(columns)) or "nothing"
        raise DataError(
            f"{file}: not a whole feature file: has no {' and no '.join(missing)}, it holds {held}. "
            f"Save {', '.join(_NEEDED)} under these names."
        )
    size = len(columns["features"]) if columns["features"].ndim else 0
    paths = _texts(columns["paths"]) if "paths" in columns else [f"{file.name}#{row}" for row in range(size)]
    names = np.empty(len(paths), dtype=object)
    names[:] = paths
    matrix = _floats(file, columns["features"])
    pids, camids = (_integers(file, name, columns[name]) for name in ("pids", "camids"))
    try:
        return Features(matrix, pids, camids, names)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def write(file: Path, features: Features, attributes: Mapping[str, str], *, dtype: str = "float32") -> None:
    """Write the features, as `dtype`, and the `attributes` to the HDF5 `file`, aside and renamed.

    Rows lie in chunks of about 1 MiB.
    """
    size, width = features.matrix.shape
    rows = max(1, min(size, _CHUNK_BYTES // (width * np.dtype(dtype).itemsize)))
    with atomic_write(file) as temporary, h5py.File(temporary, "w") as content:
        chunked = {"chunks": (rows, width)} if size else {}
        content.create_dataset("features", data=features.matrix, dtype=dtype, **chunked)
        content["pids"], content["camids"] = features.pids, features.camids
        content.create_dataset("paths", data=features.paths, dtype=h5py.string_dtype())
        content.attrs.update(attributes)


def _columns(file: Path) -> dict[str, np.ndarray]:
    """The arrays in `file` by name; `DataError` when it cannot be read."""
    if file.suffix not in (".h5", ".hdf5", ".npz"):
        raise DataError(f"{file}: of no known kind. Give features as HDF5 (.h5, .hdf5) or NumPy's .npz.")
    if not file.is_file():
        raise DataError(f"{file}: no such file. Give a file of features.")
    known = (*_NEEDED, "paths")
    try:
        if file.suffix == ".npz":
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
                return {name: content[name] for name in content.files if name in known}
        with h5py.File(file, "r") as content:
            return {name: np.asarray(content[name]) for name in content if name in known}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file}: not a whole feature file ({reason}). Make it again; paths are strings, not Python objects."
        ) from None


def _floats(file: Path, matrix: np.ndarray) -> np.ndarray:
    if matrix.dtype.kind != "f":
        raise DataError(f"{file}: features are {matrix.dtype}, expected float32 (or float16, float64). Convert them.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused by row
        return matrix.astype(np.float32, copy=False)


def _integers(file: Path, name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind not in "iu":
        raise DataError(f"{file}: {name} are {column.dtype}, expected whole numbers (int64). Convert them.")
    return column.astype(np.int64, copy=False)


def _texts(column: np.ndarray) -> list[str]:
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in column.ravel().tolist()]
