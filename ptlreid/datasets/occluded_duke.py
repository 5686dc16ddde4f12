"""Occluded-Duke: images of DukeMTMC-reID in another split, whose queries are all occluded.

File names: `0001_c2_f0046182.jpg` is person 1, camera 2, frame 46182.
"""

from __future__ import annotations

from pathlib import Path

from ptlreid.datasets import market
from ptlreid.datasets.reader import DatasetInfo, Reject, Splits, refuse

INFO = DatasetInfo(
    title="Occluded-Duke",
    names={"occluded-duke": ""},
    folders=("occluded-duke", "Occluded_Duke", "Occluded-DukeMTMC-reID"),
    citation="Miao et al., Pose-Guided Feature Alignment for Occluded Person Re-identification, ICCV 2019",
    licence="That of DukeMTMC-reID, whose images it consists of.",
    terms="DukeMTMC-reID was withdrawn in 2019 over doubts that the people in it had consented. Do not pass copies on.",
    source="the authors publish a list of files (https://github.com/lightas/Occluded-DukeMTMC-Dataset), to be applied "
    "to a copy of DukeMTMC-reID that you already have",
    note="Occluded-Duke consists of images of DukeMTMC-reID, which was withdrawn by its authors in 2019. Consider "
    "whether your work needs it.",
    protocol="market",
    counts={
        "": {
            "train_images": 15618,
            "train_identities": 702,
            "query_images": 2210,
            "query_identities": 519,
            "gallery_images": 17661,
            "gallery_identities": 1110,
            "cameras": 8,
        }
    },
)

gather = market.gather


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits of the copy in `folder`; faults as in `market.read`. 0000 is an identity here."""
    return market.read_layout(folder, reject).rename("occluded-duke")
