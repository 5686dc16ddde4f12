"""VehicleID: images of vehicles without cameras, with test sets of 800, 1600 and 2400 vehicles.

A line of a list is `0000001 12345`: the file `image/0000001.jpg` shows vehicle 12345.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from ptlreid.datasets._image_names import draw, read_lines
from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import (
    JUNK,
    DatasetInfo,
    Progress,
    Records,
    Reject,
    Splits,
    find_layout,
    is_image,
    list_files,
    locate,
    refuse,
)

_SIZES = {"800": 6532, "1600": 11395, "2400": 17638}  # test vehicles, and queries in each draw
_ALL = "all"  # every image, also those in no list
_COUNTS = {
    size: {
        "query_images": queries,
        "query_identities": int(size),
        "gallery_images": int(size),
        "gallery_identities": int(size),
    }
    for size, queries in _SIZES.items()
}
_DRAWS = {f"{size}-{number}": size for size in _SIZES for number in range(10)}

INFO = DatasetInfo(
    title="VehicleID",
    names={"vehicleid": "800"},
    variants=tuple(_SIZES),
    unlisted_variants=frozenset(_DRAWS),
    full_variants=dict.fromkeys((*_SIZES, *_DRAWS), _ALL),
    folders=("vehicleid", "VehicleID_V1.0", "VehicleID"),
    citation="Liu et al., Deep Relative Distance Learning: Tell the Difference Between Similar Vehicles, CVPR 2016",
    licence="None stated; given for research on request.",
    terms="Research use; see the authors' page.",
    source="https://www.pkuml.org/resources/pku-vehicleid.html",
    note="VehicleID shows vehicles: train with --height 256 --width 256.",
    protocol="any-image",
    counts={**_COUNTS, **{name: _COUNTS[size] for name, size in _DRAWS.items()}},
)

_IMAGES = "image"
_TRAIN = "train_test_split/train_list.txt"
_TEST = {size: f"train_test_split/test_list_{size}.txt" for size in _SIZES}
_LISTS = (_TRAIN, *_TEST.values())
_LINE = re.compile(r"(\d{1,18})\s+(\d{1,18})")


def read(folder: Path, variant: str = "800", reject: Reject = refuse) -> Splits:
    """The splits that the lists in `folder` name, in their order.

    `1600-3`: of the test set of 1600 vehicles draw number 3, from 0. The gallery has one random image of each vehicle,
    and the others are queries. A missing folder or list, and a line that gives no image and vehicle, go to `reject`.
    """
    folder = find_layout(folder, (_IMAGES, *_LISTS), reject, "Copy it there, or prepare the dataset again.")
    images = folder / _IMAGES
    train = _read_list(folder / _TRAIN, images, reject)
    if variant == _ALL:
        tests = [_read_list(folder / name, images, reject) for name in _TEST.values()]
        listed = dict.fromkeys(row for test in tests for row in test)
        used = {path for path, _ in (*train, *listed)}
        unused = [(path, JUNK) for path in list_files(images, reject) if is_image(path) and path not in used]
        query, gallery = list(listed), unused
    else:
        size = _DRAWS.get(variant, variant)
        query, gallery = _draw(
            _read_list(folder / _TEST[size], images, reject), variant if "-" in variant else f"{size}-0"
        )
    return Splits(
        f"vehicleid:{variant}", _make_records(train), _make_records(query), _make_records(gallery), INFO.protocol
    )


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the lists, and every image, found in `source` at any level, into `target`."""
    folder = locate(source, (_IMAGES, *_LISTS))
    lists = [folder / name for name in _LISTS]
    return gather_splits(folder, read(folder, _ALL, reject), target, progress, reject, lists=lists)


def _read_list(file: Path, images: Path, reject: Reject) -> list[tuple[Path, int]]:
    """The file and the vehicle of each line."""
    lines = read_lines(file, _LINE, "0000001 12345", reject)
    return [(images / f"{match[1]}.jpg", int(match[2])) for _, match in lines]


def _draw(test: list[tuple[Path, int]], seed: str) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Queries, and a gallery with one image of each vehicle, which depends on `seed` and the images of the vehicle."""
    by_vehicle = defaultdict(list)
    for path, pid in test:
        by_vehicle[pid].append(int(path.stem))
    chosen = {(pid, draw(numbers, f"vehicleid/{seed}")[0]) for pid, numbers in by_vehicle.items()}
    parts: tuple[list[tuple[Path, int]], list[tuple[Path, int]]] = ([], [])
    for path, pid in test:
        parts[(pid, int(path.stem)) in chosen].append((path, pid))
    return parts


def _make_records(rows: list[tuple[Path, int]]) -> Records:
    return Records.make([path for path, _ in rows], [pid for _, pid in rows], [1] * len(rows), "vehicleid")
