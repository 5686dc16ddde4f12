"""Converts `cuhk-03.mat`, a MATLAB v7.3 file, to images.

It is HDF5, so every array is transposed: `labeled` and `detected` are (1, 5) references, one for each camera pair, to
(10, persons) references to images (3, width, height); images 1 to 5 are of view 1, 6 to 10 of view 2. `testsets` is
(1, 20) references to (2, 100) numbers: camera pair and person. An image that does not exist is an array of fewer
than three dimensions.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ptlreid.datasets.reader import Fault, FaultError
from ptlreid.file_kinds import identify
from ptlreid.files import atomic_write, unsynced_write
from ptlreid.progress import Progress

if TYPE_CHECKING:
    import h5py

MAT = "cuhk-03.mat"
TEST_SETS = "testsets.csv"
_MOST = 10_000  # persons of a camera pair, several times the largest
_COMPRESSION = 4  # files a tenth larger than at the best level, in a third of the time


def unpack_mat(mat: Path, target: Path, labelling: str, progress: Progress) -> None:
    """Write each image of one labelling in `mat` to `<labelling>/<pair>_<person>_<view>_<image>.png`.

    Existing files are kept. Raises `DataError` if `mat` is not the file of the release.
    """
    import h5py

    try:
        with h5py.File(mat, "r") as content:
            _write_test_sets(_read_test_sets(content), target / TEST_SETS)
            _write_images(content, labelling, target / labelling, progress)
    except _DAMAGED as error:
        fault = f"cannot be read as CUHK03: it is {identify(mat)} ({error})"
        remedy = f"Expected {MAT} of the CUHK03 release, MATLAB v7.3. Download it again."
        raise FaultError(Fault("layout", mat, fault, remedy)) from error


# What h5py and NumPy raise for damaged files; a damaged size may ask for any memory.
_DAMAGED = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, MemoryError)


def _read_test_sets(content: h5py.File) -> list[tuple[int, int, int]]:
    """(set, pair, person) of every test identity."""
    rows = []
    for number, reference in enumerate(content["testsets"][0], start=1):
        numbers = np.nan_to_num(np.asarray(content[reference], dtype=np.float64), posinf=0, neginf=0)
        if numbers.shape[:1] != (2,) or not ((numbers >= 1) & (numbers <= _MOST) & (numbers % 1 == 0)).all():
            raise ValueError(f"test set {number} is no list of camera pairs and persons")
        rows += [(number, int(pair), int(person)) for pair, person in numbers.T]
    return rows


def _write_test_sets(rows: Sequence[tuple[int, int, int]], file: Path) -> None:
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("set", "pair", "person"))
        writer.writerows(rows)


def _write_images(content: h5py.File, labelling: str, folder: Path, progress: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    existing = {path.name for path in folder.iterdir() if path.stat().st_size}  # a power cut leaves empty ones
    pairs = [np.asarray(content[reference]).T for reference in content[labelling][0]]  # (persons, 10) each
    done = 0
    with progress.task(f"write {labelling} images", sum(pair.size for pair in pairs)) as advance:
        for pair, images in enumerate(pairs, start=1):
            for (person, image), reference in np.ndenumerate(images):
                done += 1
                name = f"{pair}_{person + 1:03d}_{1 if image < 5 else 2}_{image + 1:02d}.png"
                if name not in existing:
                    _write_image(np.asarray(content[reference]), folder / name)
                advance(done)


def _write_image(transposed: np.ndarray, file: Path) -> None:
    if transposed.ndim != 3:  # no such image
        return
    if transposed.dtype != np.uint8 or len(transposed) != 3:
        raise ValueError(f"{file.stem} is no RGB image of 8 bits")
    image = Image.fromarray(np.ascontiguousarray(transposed.T))
    with unsynced_write(file) as temporary:
        image.save(temporary, format="PNG", compress_level=_COMPRESSION)
