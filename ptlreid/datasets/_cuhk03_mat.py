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
from ptlreid.files import atomic_write, unsynced_write
from ptlreid.progress import Progress

if TYPE_CHECKING:
    import h5py

MAT = "cuhk-03.mat"
TEST_SETS = "testsets.csv"
_COMPRESSION = 4  # files a tenth larger than at the best level, in a third of the time


def unpack_mat(mat: Path, target: Path, labellings: Sequence[str], progress: Progress) -> None:
    """Write each image of `mat` to `<labelling>/<pair>_<person>_<view>_<image>.png`; existing files are kept.

    Raises `DataError` if `mat` is not the file of the release.
    """
    import h5py

    try:
        with h5py.File(mat, "r") as content:
            _write_test_sets(content, target / TEST_SETS)
            for labelling in labellings:
                _write_images(content, labelling, target / labelling, progress)
    except (OSError, KeyError, ValueError, TypeError) as error:
        remedy = f"Expected {MAT} of the CUHK03 release, MATLAB v7.3. Download it again."
        raise FaultError(Fault("layout", mat, f"cannot be read as CUHK03 ({error})", remedy)) from error


def _write_test_sets(content: h5py.File, file: Path) -> None:
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("set", "pair", "person"))
        for number, reference in enumerate(content["testsets"][0], start=1):
            for pair, person in np.asarray(content[reference]).T.astype(int).tolist():
                writer.writerow((number, pair, person))


def _write_images(content: h5py.File, labelling: str, folder: Path, progress: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    existing = {path.name for path in folder.iterdir()}
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
    image = Image.fromarray(np.ascontiguousarray(transposed.T))
    with unsynced_write(file) as temporary:
        image.save(temporary, format="PNG", compress_level=_COMPRESSION)
