"""PRCC: persons in the same clothes before cameras A and B, and in others before camera C.

File names: `rgb/train/001/A_cropped_rgb001.jpg`, and `rgb/test/A/002/cropped_rgb001.jpg` of test persons.
"""

from __future__ import annotations

import re
from pathlib import Path

from ptlreid.datasets._image_names import match_images
from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import DatasetInfo, Progress, Records, Reject, Splits, find_layout, locate, refuse

_COUNTS = {
    "train_images": 17896,
    "train_identities": 150,
    "query_identities": 71,
    "gallery_identities": 71,
    "cameras": 3,
}
_QUERY = {"same": "B", "changed": "C"}
_ALL = "all"  # training with the validation images, queries of both settings

INFO = DatasetInfo(
    title="PRCC",
    names={"prcc": "changed"},
    variants=tuple(_QUERY),
    full_variants=dict.fromkeys(_QUERY, _ALL),
    folders=("prcc", "PRCC"),
    citation="Yang et al., Person Re-identification by Contour Sketch under Moderate Clothing Change, TPAMI 2021",
    licence="None stated; made available for research.",
    terms="Research use; see the authors' page.",
    source="https://www.isee-ai.cn/~yangqize/clothing.html",
    protocol="single-shot",
    counts=dict.fromkeys(_QUERY, _COUNTS),
)

_TRAIN, _VAL, *_TEST = _FOLDERS = ("rgb/train", "rgb/val", "rgb/test/A", "rgb/test/B", "rgb/test/C")
_CAMERAS = "ABC"
_TRAIN_NAME = re.compile(r"(?P<pid>\d{1,18})/(?P<camera>[ABC])_")
_TEST_NAME = re.compile(r"(?P<pid>\d{1,18})/")


def read(folder: Path, variant: str = "changed", reject: Reject = refuse) -> Splits:
    """The splits in `folder`: queries by camera B (`same` clothes) or C (`changed`), the gallery by camera A.

    The validation images, other ones of the training persons, are left out. A missing or empty folder and a name that
    gives no person or camera go to `reject`.
    """
    folder = find_layout(folder, _FOLDERS, reject, "Copy it there, or prepare the dataset again.")
    train = _read_train(folder / _TRAIN, reject)
    gallery, same, changed = (_read_test(folder / name, number, reject) for number, name in enumerate(_TEST, start=1))
    query = {"same": same, "changed": changed, _ALL: same.join(changed)}[variant]
    if variant == _ALL:
        train = train.join(_read_train(folder / _VAL, reject))
    return Splits(f"prcc:{variant}", train, query, gallery, INFO.protocol)


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the images in colour, found in `source` at any level, into `target`; not sketches and contours."""
    folder = locate(source, _FOLDERS)
    return gather_splits(folder, read(folder, _ALL, reject), target, progress, reject)


def _read_train(folder: Path, reject: Reject) -> Records:
    images = match_images(folder, _TRAIN_NAME, "001/A_cropped_rgb001.jpg", reject, inner=True)
    return _make_records(images, [1 + _CAMERAS.index(match["camera"]) for _, match in images])


def _read_test(folder: Path, camid: int, reject: Reject) -> Records:
    images = match_images(folder, _TEST_NAME, "001/cropped_rgb001.jpg", reject, inner=True)
    return _make_records(images, [camid] * len(images))


def _make_records(images: list[tuple[Path, re.Match[str]]], camids: list[int]) -> Records:
    """Clothes 1 by cameras A and B, 2 by C."""
    clothes = [1 + (camid == len(_CAMERAS)) for camid in camids]
    pids = [int(match["pid"]) for _, match in images]
    return Records.make([path for path, _ in images], pids, camids, "prcc", clothes)
