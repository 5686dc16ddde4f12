"""VeRi-776, images of vehicles.

File names: `0001_c001_00016450_0.jpg` is vehicle 1, camera 1, frame 16450.
"""

from __future__ import annotations

from pathlib import Path

from ptlreid.datasets import market
from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import DatasetInfo, Progress, Reject, Splits, locate, refuse

INFO = DatasetInfo(
    title="VeRi-776",
    names={"veri": "", "veri776": ""},
    folders=("veri", "veri776", "VeRi", "VeRi-776"),
    citation=(
        "Liu et al., A Deep Learning-Based Approach to Progressive Vehicle Re-identification for Urban Surveillance, "
        "ECCV 2016"
    ),
    licence="None stated; given on request, for non-commercial purposes.",
    terms="Non-commercial use; see the authors' page.",
    source="https://vehiclereid.github.io/VeRi/",
    note="VeRi-776 shows vehicles: train with --height 256 --width 256.",
    protocol="market",
    counts={  # not of training vehicles: of 776 in the paper, fast-reid counts 775
        "": {
            "train_images": 37778,
            "query_images": 1678,
            "query_identities": 200,
            "gallery_images": 11579,
            "gallery_identities": 200,
            "cameras": 20,
        }
    },
)

_PARTS = ("image_train", "image_query", "image_test")


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits in `folder`, files in sorted order; faults as in `market.read`."""
    return market.read_layout(folder, reject, _PARTS).rename("veri")


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the images of the three parts, found in `source` at any level, into `target`."""
    folder = locate(source, _PARTS)
    return gather_splits(folder, read(folder, variant, reject), target, progress, reject)
