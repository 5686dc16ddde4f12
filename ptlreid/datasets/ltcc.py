"""LTCC, persons filmed over months in several clothes.

File names: `train/144_1_c11_011239.png` is person 144 in its clothes 1, camera 11, frame 11239.
"""

from __future__ import annotations

import re
from pathlib import Path

from ptlreid.datasets._image_names import match_images
from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import DatasetInfo, Progress, Records, Reject, Splits, find_layout, locate, refuse

INFO = DatasetInfo(
    title="LTCC",
    names={"ltcc": ""},
    folders=("ltcc", "LTCC_ReID", "LTCC"),
    citation="Qian et al., Long-Term Cloth-Changing Person Re-identification, ACCV 2020",
    licence="None stated; given for research.",
    terms="Academic research; see the authors' page.",
    source="https://naiq.github.io/LTCC_Perosn_ReID.html",
    protocol="market; choose cloth-changing with --protocol",
    counts={
        "": {
            "train_images": 9576,
            "train_identities": 77,
            "query_images": 493,
            "query_identities": 75,
            "gallery_images": 7050,
            "gallery_identities": 75,
            "cameras": 12,
        }
    },
)

_PARTS = ("train", "query", "test")
_NAME = re.compile(r"(?P<pid>\d{1,18})_(?P<clothes>\d{1,18})_c(?P<camid>\d{1,18})_")


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits in `folder`, files in sorted order; the clothes of an identity keep their numbers.

    A missing or empty folder, and a name that does not give person, clothes and camera, go to `reject`.
    """
    folder = find_layout(folder, _PARTS, reject, "Copy it there, or prepare the dataset again.")
    train, query, gallery = (_read_part(folder / part, reject) for part in _PARTS)
    return Splits("ltcc", train, query, gallery, "market")


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the images of the three parts, found in `source` at any level, into `target`."""
    folder = locate(source, _PARTS)
    return gather_splits(folder, read(folder, variant, reject), target, progress, reject)


def _read_part(folder: Path, reject: Reject) -> Records:
    images = match_images(folder, _NAME, "144_1_c11_011239.png", reject)
    pids, clothes, camids = ([int(match[group]) for _, match in images] for group in ("pid", "clothes", "camid"))
    return Records.make([path for path, _ in images], pids, camids, "ltcc", clothes)
