"""VIPeR: pairs of images by two cameras, in ten random halves.

File names: `cam_a/000_45.bmp` is person 0 by camera A, seen from 45 degrees.
"""

from __future__ import annotations

import re
from pathlib import Path

from ptlreid.datasets._image_names import draw, match_images
from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import (
    DatasetInfo,
    Fault,
    Progress,
    Records,
    Reject,
    Splits,
    find_layout,
    locate,
    refuse,
)

_VARIANTS = tuple(map(str, range(10)))
_COUNTS = {
    "train_images": 632,
    "train_identities": 316,
    "query_images": 316,
    "query_identities": 316,
    "gallery_images": 316,
    "gallery_identities": 316,
    "cameras": 2,
}

INFO = DatasetInfo(
    title="VIPeR",
    names={"viper": "0"},
    variants=_VARIANTS,
    folders=("viper", "VIPeR"),
    citation=(
        "Gray, Brennan and Tao, Evaluating Appearance Models for Recognition, Reacquisition, and Tracking, PETS 2007"
    ),
    licence="None stated; made available for research.",
    terms="Research use.",
    source="https://vision.soe.ucsc.edu/node/178",
    protocol="single-shot",
    counts=dict.fromkeys(_VARIANTS, _COUNTS),
)

_CAMERAS = ("cam_a", "cam_b")
_NAME = re.compile(r"(\d{1,9})_\d+")


def read(folder: Path, variant: str = "0", reject: Reject = refuse) -> Splits:
    """The splits of draw number `variant`: half of the persons train, the others are searched from camera A in B.

    A person without an image by both cameras goes to `reject`, and so does a name that gives no person.
    """
    folder = find_layout(folder, _CAMERAS, reject, "Copy it there, or prepare the dataset again.")
    by_camera = [
        [(int(match[1]), path) for path, match in match_images(folder / name, _NAME, "000_45.bmp", reject)]
        for name in _CAMERAS
    ]
    seen = [{pid for pid, _ in images} for images in by_camera]
    for images, others, missing in zip(by_camera, reversed(seen), reversed(_CAMERAS), strict=True):
        for path in (path for pid, path in images if pid not in others and any(seen)):
            fault = f"has no counterpart in {missing}"
            reject(Fault("missing", path, fault, "Unpack the dataset again, or remove the file."))
    both = draw(seen[0] & seen[1], f"viper/{variant}")
    train, test = set(both[: len(both) // 2]), set(both[len(both) // 2 :])

    def select(cameras: tuple[int, ...], pids: set[int]) -> Records:
        rows = [(path, pid, camera) for camera in cameras for pid, path in by_camera[camera - 1] if pid in pids]
        paths = [path for path, _, _ in rows]
        return Records.make(paths, [pid for _, pid, _ in rows], [camera for _, _, camera in rows], "viper")

    return Splits(f"viper:{variant}", select((1, 2), train), select((1,), test), select((2,), test), INFO.protocol)


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the images of both cameras, found in `source` at any level, into `target`."""
    folder = locate(source, _CAMERAS)
    return gather_splits(folder, read(folder, variant, reject), target, progress, reject)
