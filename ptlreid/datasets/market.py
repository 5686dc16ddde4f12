"""Market-1501, and every folder in its layout.

File names: `0002_c1s1_000451_03.jpg` is person 2, camera 1, sequence 1, frame 451, box 3.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ptlreid.datasets._about import DatasetInfo
from ptlreid.datasets._faults import Fault, FaultError, Reject, refuse
from ptlreid.datasets._link_or_copy import is_image, link_or_copy_all, locate
from ptlreid.progress import Progress
from ptlreid.records import JUNK, Records, Splits

ABOUT = DatasetInfo(
    title="Market-1501",
    names={"market": "", "market1501": ""},
    folders=("market", "market1501", "Market-1501-v15.09.15", "Market-1501"),
    citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
    licence="None stated; made available for research.",
    terms="Research use; the page of its authors says more. The people on it were filmed on a campus.",
    source="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
    protocol="market",
    counts={
        "": {
            "train_images": 12936,
            "train_identities": 751,
            "query_images": 3368,
            "query_identities": 750,
            "gallery_images": 19732,
            "gallery_identities": 750,
            "cameras": 6,
        }
    },
)

TRAIN, QUERY, GALLERY = PARTS = ("bounding_box_train", "query", "bounding_box_test")

_NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)(?!\d)")


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits of the Market-1501 layout in `folder`, files in sorted order.

    Junk (pid -1) and distractors (0) are in the gallery as the files name them. Raises `DataError` for a missing
    or empty part; an image whose name does not tell person and camera goes to `reject`.
    """
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        kind, remedy = _where_else(folder)
        raise FaultError(Fault(kind, folder, f"no folder {', '.join(missing)}", remedy))
    train = _part(folder / TRAIN, reject)
    return Splits(
        name="market",
        train=train.select(train.pids > JUNK),
        query=_part(folder / QUERY, reject),
        gallery=_part(folder / GALLERY, reject),
        protocol=ABOUT.protocol,
    )


def gather(source: Path, target: Path, variant: str, progress: Progress) -> None:
    """Put the images of the layout that lies in `source`, at any level, into `target`."""
    folder = locate(source, PARTS)
    splits = read(folder)
    link_or_copy_all([*splits.train.paths, *splits.query.paths, *splits.gallery.paths], folder, target, progress)


def identity(name: str) -> tuple[int, int]:
    """(pid, camid) from a file name; `DataError` when the name does not tell them."""
    match = _NAME.match(name)
    if match is None:
        remedy = (
            "Expected Market-1501's form, such as 0002_c1s1_000451_03.jpg; rename the file or take it out of the "
            "folder."
        )
        raise FaultError(Fault("name", Path(name), "the name does not tell person and camera", remedy))
    return int(match["pid"]), int(match["camid"])


def _part(folder: Path, reject: Reject) -> Records:
    paths: list[Path] = []
    told: list[tuple[int, int]] = []
    for path in sorted(path for path in folder.iterdir() if is_image(path)):
        try:
            told.append(identity(path.name))
            paths.append(path)
        except FaultError as error:
            reject(replace(error.fault, file=path))
    if not paths:
        remedy = "Expected files such as 0002_c1s1_000451_03.jpg."
        raise FaultError(Fault("layout", folder, "holds no image", remedy))
    return Records.make(paths, [pid for pid, _ in told], [camid for _, camid in told], source="market")


def _where_else(folder: Path) -> tuple[str, str]:
    """(kind of fault, remedy): the layout one level too deep or too high, or what it looks like."""
    inside = [path.parent for path in sorted(folder.glob(f"*/{TRAIN}")) if path.is_dir()]
    if inside:
        return "nested", f"The layout lies one level deeper: use {inside[0]}."
    if (folder.parent / TRAIN).is_dir():
        return "nested", f"The layout lies one level higher: use {folder.parent}."
    return "layout", f"Expected Market-1501's layout: {TRAIN}/, {QUERY}/ and {GALLERY}/."
