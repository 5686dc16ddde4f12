"""Market-1501, and every folder in its layout.

File names: `0002_c1s1_000451_03.jpg` is person 2, camera 1, sequence 1, frame 451, box 3.
"""

from __future__ import annotations

import re
from pathlib import Path

from ptlreid.datasets._about import About
from ptlreid.errors import DataError
from ptlreid.records import JUNK, Records, Splits

ABOUT = About(
    title="Market-1501",
    names={"market": "", "market1501": ""},
    folders=("market", "market1501", "Market-1501-v15.09.15", "Market-1501"),
    citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
    licence="Research use; see the terms of its authors.",
    source="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
    protocol="market",
    counts={
        "train_images": 12936,
        "train_identities": 751,
        "query_images": 3368,
        "query_identities": 750,
        "gallery_images": 19732,
    },
)

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"

_NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)(?!\d)")


def read(folder: Path, variant: str = "") -> Splits:
    """The splits of the Market-1501 layout in `folder`, files in sorted order.

    Junk (pid -1) and distractors (0) are in the gallery as the files name them. Raises `DataError` for a missing
    or empty part, and for an image whose name does not tell person and camera.
    """
    missing = [part for part in (TRAIN, QUERY, GALLERY) if not (folder / part).is_dir()]
    if missing:
        raise DataError(f"{folder}: no folder {', '.join(missing)}. {_where_else(folder)}")
    train = _part(folder / TRAIN)
    return Splits(
        name="market",
        train=train.select(train.pids > JUNK),
        query=_part(folder / QUERY),
        gallery=_part(folder / GALLERY),
        protocol=ABOUT.protocol,
    )


def identity(name: str) -> tuple[int, int]:
    """(pid, camid) from a file name; `DataError` when the name does not tell them."""
    match = _NAME.match(name)
    if match is None:
        raise DataError(
            f"{name}: the name does not tell person and camera. Expected Market-1501's form, such as "
            "0002_c1s1_000451_03.jpg; rename the file or take it out of the folder."
        )
    return int(match["pid"]), int(match["camid"])


def _part(folder: Path) -> Records:
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and not path.name.startswith(".")
    )
    if not paths:
        raise DataError(f"{folder}: holds no image. Expected files such as 0002_c1s1_000451_03.jpg.")
    pids, camids = zip(*(identity(path.name) for path in paths), strict=True)
    return Records.make(paths, list(pids), list(camids), source="market")


def _where_else(folder: Path) -> str:
    """Where the layout was found instead, one level too deep or too high, or what it looks like."""
    inside = [path.parent for path in sorted(folder.glob(f"*/{TRAIN}")) if path.is_dir()]
    if inside:
        return f"The layout lies one level deeper: use {inside[0]}."
    if (folder.parent / TRAIN).is_dir():
        return f"The layout lies one level higher: use {folder.parent}."
    return f"Expected Market-1501's layout: {TRAIN}/, {QUERY}/ and {GALLERY}/."
