"""Market-1501, and every folder in its layout.

File names: `0002_c1s1_000451_03.jpg` is person 2, camera 1, sequence 1, frame 451, box 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import (
    DISTRACTOR,
    DatasetInfo,
    Fault,
    FaultError,
    Progress,
    Records,
    Reject,
    Splits,
    find_layout,
    is_folder,
    is_image,
    list_files,
    locate,
    refuse,
)

INFO = DatasetInfo(
    title="Market-1501",
    names={"market": "", "market1501": ""},
    folders=("market", "market1501", "Market-1501-v15.09.15", "Market-1501"),
    citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
    licence="None stated; made available for research.",
    terms="Research use; see the authors' page. The people in it were filmed on a campus.",
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

_NAME = re.compile(r"(?P<pid>-1|\d{1,18})_c(?P<camid>\d{1,18})(?!\d)")
_EXAMPLE = "0002_c1s1_000451_03.jpg"
_REMEDY = "Copy or prepare the dataset again; images in another layout become a dataset with `ptlreid prepare folder`."


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits of the Market-1501 layout in `folder`, files in sorted order.

    Distractors, which are named 0000, get pid -2. A missing or empty part goes to `reject`, and so does an image whose
    name does not give pid and camera.
    """
    splits = read_layout(folder, reject)
    return replace(splits, query=_mark_distractors(splits.query), gallery=_mark_distractors(splits.gallery))


def read_layout(folder: Path, reject: Reject, parts: Sequence[str] = PARTS) -> Splits:
    """The splits as `read` gives them, but with pids as the files name them: 0000 is an identity.

    `parts`: the folders of training images, queries and gallery.
    """
    folder = find_layout(folder, parts, reject, _REMEDY)
    train, query, gallery = (_read_part(folder / part, reject) for part in parts)
    return Splits("market", train.select(train.pids >= 0), query, gallery, INFO.protocol)


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the images of the layout, found in `source` at any level, into `target`."""
    folder = locate(source, PARTS)
    return gather_splits(folder, read_layout(folder, reject), target, progress, reject)


def parse_name(name: str) -> tuple[int, int]:
    """(pid, camid) from a file name; `DataError` if the name does not give them."""
    match = _NAME.match(name)
    if match is None:
        remedy = f"Expected a name as in Market-1501, such as {_EXAMPLE}. Rename the file, or remove it."
        raise FaultError(Fault("name", Path(name), "the name gives no pid and camera", remedy))
    return int(match["pid"]), int(match["camid"])


def _mark_distractors(records: Records) -> Records:
    return replace(records, pids=np.where(records.pids == 0, DISTRACTOR, records.pids))


def _read_part(folder: Path, reject: Reject) -> Records:
    paths: list[Path] = []
    labels: list[tuple[int, int]] = []
    faults: list[Fault] = []
    for path in filter(is_image, list_files(folder, faults.append)):
        try:
            labels.append(parse_name(path.name))
            paths.append(path)
        except FaultError as error:
            faults.append(replace(error.fault, file=path))
    if is_folder(folder) and not paths and not faults:
        faults.append(Fault("layout", folder, "holds no image", f"Expected files such as {_EXAMPLE}."))
    for fault in faults:
        reject(fault)
    return Records.make(paths, [pid for pid, _ in labels], [camid for _, camid in labels], source="market")
