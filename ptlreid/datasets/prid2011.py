"""PRID2011, its version with one image of each person by camera, in ten random splits.

File names: `single_shot/cam_a/person_0001.png` is person 1 by camera A.
"""

from __future__ import annotations

import re
from pathlib import Path

from ptlreid.datasets._image_names import draw, match_images
from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import (
    JUNK,
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
_ALL = "all"  # the first draw, with the images of camera A that no draw uses
_COUNTS = {
    "train_images": 200,
    "train_identities": 100,
    "query_images": 100,
    "query_identities": 100,
    "gallery_images": 649,
    "gallery_identities": 649,
    "cameras": 2,
}

INFO = DatasetInfo(
    title="PRID2011",
    names={"prid2011": "0", "prid": "0"},
    variants=_VARIANTS,
    full_variants=dict.fromkeys(_VARIANTS, _ALL),
    folders=("prid2011", "prid_2011", "prid"),
    citation="Hirzer et al., Person Re-identification by Descriptive and Discriminative Classification, SCIA 2011",
    licence="None stated; made available for research.",
    terms="Research use.",
    source="https://www.tugraz.at/institute/icg/research/team-bischof/learning-recognition-surveillance/downloads/prid11",
    protocol="single-shot",
    counts=dict.fromkeys(_VARIANTS, _COUNTS),
)

SHARED = 200  # persons 1 to 200 are the same in both cameras; a higher number means another person in each
_CAMERAS = ("single_shot/cam_a", "single_shot/cam_b")
_NAME = re.compile(r"person_(\d{1,9})(?!\d)")


def read(folder: Path, variant: str = "0", reject: Reject = refuse) -> Splits:
    """The splits of draw number `variant`.

    Half of the persons in both cameras train. The other half are searched from camera A among all others in camera B,
    also those whom only B saw. A person of both cameras that one of them lacks goes to `reject`, and so does a name
    that gives no person.
    """
    folder = find_layout(folder, _CAMERAS, reject, "Copy it there, or prepare the dataset again.")
    seen_a, seen_b = (_read_camera(folder / name, reject) for name in _CAMERAS)
    shared = range(1, SHARED + 1)
    for pid in shared:
        for images, others, missing in ((seen_a, seen_b, _CAMERAS[1]), (seen_b, seen_a, _CAMERAS[0])):
            if pid in images and pid not in others and others:
                fault = f"has no counterpart in {missing}"
                reject(Fault("missing", images[pid], fault, "Unpack the dataset again, or remove the file."))
    both = draw(
        (pid for pid in shared if pid in seen_a and pid in seen_b), f"prid2011/{0 if variant == _ALL else variant}"
    )
    train, test = sorted(both[: len(both) // 2]), sorted(both[len(both) // 2 :])
    gallery = sorted(set(seen_b) - set(train))
    paths, pids, camids = [seen_b[pid] for pid in gallery], list(gallery), [2] * len(gallery)
    if variant == _ALL:
        unused = sorted(set(seen_a) - set(train) - set(test))
        paths += [seen_a[pid] for pid in unused]
        pids += [JUNK] * len(unused)
        camids += [1] * len(unused)
    return Splits(
        f"prid2011:{variant}",
        Records.make(
            [images[pid] for images in (seen_a, seen_b) for pid in train],
            [*train, *train],
            [1] * len(train) + [2] * len(train),
            "prid2011",
        ),
        Records.make([seen_a[pid] for pid in test], test, [1] * len(test), "prid2011"),
        Records.make(paths, pids, camids, "prid2011"),
        INFO.protocol,
    )


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the images of both cameras, found in `source` at any level, into `target`."""
    folder = locate(source, _CAMERAS)
    return gather_splits(folder, read(folder, _ALL, reject), target, progress, reject)


def _read_camera(folder: Path, reject: Reject) -> dict[int, Path]:
    return {int(match[1]): path for path, match in match_images(folder, _NAME, "person_0001.png", reject)}
