"""CUHK03 from its `cuhk-03.mat`: the split into 767 and 700 identities, or the 20 test sets of the release.

File names: `1_001_2_06.png` is camera pair 1, person 1 of that pair, view 2, image 6. The view is the camera.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

from ptlreid.datasets._cuhk03_mat import MAT, TEST_SETS, unpack_mat
from ptlreid.datasets.reader import (
    DatasetInfo,
    Fault,
    Progress,
    Records,
    Reject,
    Splits,
    find_layout,
    is_folder,
    list_files,
    locate,
    refuse,
)

LABELLINGS = ("labeled", "detected")
_NUMBERED = {f"{labelling}-classic-{number}": labelling for labelling in LABELLINGS for number in range(1, 21)}
_NAME = re.compile(r"([1-5])_(\d{1,4})_([12])_\d+")
_CLASSIC = {"train_identities": 1367, "query_identities": 100, "gallery_identities": 100, "cameras": 2}
_NEW = {
    "train_identities": 767,
    "query_images": 1400,
    "query_identities": 700,
    "gallery_identities": 700,
    "cameras": 2,
}

INFO = DatasetInfo(
    title="CUHK03",
    names={"cuhk03": "labeled"},
    variants=("labeled", "detected", "classic", "labeled-classic", "detected-classic"),
    unlisted_variants=frozenset(_NUMBERED),
    base_variants={"classic": "labeled", **{f"{name}-classic": name for name in LABELLINGS}, **_NUMBERED},
    folders=("cuhk03-{variant}", "cuhk03"),  # version 0.1 put both labellings in the second
    citation=(
        "Li et al., DeepReID: Deep Filter Pairing Neural Network for Person Re-identification, CVPR 2014; 767/700: "
        "Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017"
    ),
    licence="None stated; made available for research.",
    terms="Academic research only; not to be passed on.",
    source="https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html",
    protocol="market; cuhk03-classic for the test sets of the release",
    counts={
        "labeled": {**_NEW, "train_images": 7368, "gallery_images": 5328},
        "detected": {**_NEW, "train_images": 7365, "gallery_images": 5332},
        "classic": _CLASSIC,
        **{f"{labelling}-classic": _CLASSIC for labelling in LABELLINGS},
        **dict.fromkeys(_NUMBERED, _CLASSIC),
    },
)


def read(folder: Path, variant: str = "labeled", reject: Reject = refuse) -> Splits:
    """The splits of the prepared `folder`.

    `labeled`, `detected`: 767 and 700 identities. `labeled-classic-7`: the seventh test set of the release; without
    a number, the first. There, every test image is both a query and in the gallery, from which the protocol samples one
    image of each identity from the other camera. An image of the split that the folder lacks, a missing folder or list
    and a damaged list go to `reject`.
    """
    labelling = INFO.base_variants.get(variant, variant)
    command = f"`ptlreid prepare cuhk03:{labelling} --source FILE`"
    remedy = f"Remove the dataset's folder and prepare it again: {command}, with {MAT}."
    classic = labelling != variant
    folder = find_layout(folder, (labelling, *([TEST_SETS] if classic else [])), reject, remedy)
    if classic:
        number = int(variant.rpartition("-")[2]) if variant in _NUMBERED else 1
        test = _read_test_set(folder / TEST_SETS, number, reject, remedy)
        return _read_classic(folder / labelling, test, variant)
    images = folder / labelling
    existing = {path.stem for path in list_files(images, reject) if path.suffix == ".png"}
    rows = [row for row in read_new_split() if row["labelling"] == labelling] if is_folder(images) else []
    parts = {}
    for part in ("train", "query", "gallery"):
        listed = [row for row in rows if row["split"] == part]
        for row in (row for row in listed if row["file"] not in existing):
            reject(Fault("missing", images / f"{row['file']}.png", "is in the split but does not exist", remedy))
        parts[part] = _make_records(images, [row for row in listed if row["file"] in existing])
    return Splits(f"cuhk03:{variant}", parts["train"], parts["query"], parts["gallery"], "market")


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Write the images of one labelling of the `cuhk-03.mat` in `source` into `target`, as PNG, and its test sets."""
    mat = source if source.is_file() else locate(source, (MAT,)) / MAT
    unpack_mat(mat, target, INFO.base_variants.get(variant, variant), progress)
    return {}  # no image file of the source is used as it is


@cache
def read_new_split() -> list[dict[str, str]]:
    """The rows of the 767/700 split that is part of this package: labelling, split, pid, camid, file."""
    packed = resources.files("ptlreid.datasets").joinpath("data/cuhk03_767_700.csv.gz").read_bytes()
    return list(csv.DictReader(gzip.decompress(packed).decode("utf-8").splitlines()))


def _read_test_set(file: Path, number: int, reject: Reject, remedy: str) -> set[tuple[int, int]]:
    """(pair, person) of each identity of a test set; none if the file lacks it, which goes to `reject`."""
    if not file.is_file():  # reported with the layout
        return set()
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = [(int(row["set"]), int(row["pair"]), int(row["person"])) for row in csv.DictReader(stream)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        rows = []
    test = {(pair, person) for which, pair, person in rows if which == number}
    if not test:
        reject(Fault("layout", file, f"does not give test set {number}", remedy))
    return test


def _read_classic(images: Path, test: set[tuple[int, int]], variant: str) -> Splits:
    rows = list(_list_images(images))
    # Any distinct numbers would do: pids are 1, 2, ... by camera pair, then by person in it.
    pids = {person: pid for pid, person in enumerate(sorted({person for person, _, _ in rows}), start=1)}

    def select_records(of_test: bool) -> Records:
        chosen = [row for row in rows if (row[0] in test) == of_test]
        paths = [path for _, _, path in chosen]
        return Records.make(paths, [pids[person] for person, _, _ in chosen], [view for _, view, _ in chosen], "cuhk03")

    tested = select_records(True)  # one object for both parts: its features are extracted once
    return Splits(f"cuhk03:{variant}", select_records(False), tested, tested, "cuhk03-classic")


def _list_images(images: Path) -> Iterator[tuple[tuple[int, int], int, Path]]:
    """((pair, person), view, file) of every image, sorted by file."""
    for path in sorted(images.glob("*.png")):
        match = _NAME.fullmatch(path.stem)
        if match:  # `ptlreid check` lists the others
            pair, person, view = map(int, match.groups())
            yield (pair, person), view, path


def _make_records(images: Path, rows: list[dict[str, str]]) -> Records:
    paths = [images / f"{row['file']}.png" for row in rows]
    return Records.make(paths, [int(row["pid"]) for row in rows], [int(row["camid"]) for row in rows], "cuhk03")
