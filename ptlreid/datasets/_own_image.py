"""One of the user's own images as it was found, the parts that a split may name, and the forms that are understood."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ptlreid.records import DISTRACTOR, JUNK, UNLABELLED

FORMS = (
    "Expected one folder per identity, or names such as 0002_c1s1_000451_03.jpg. For other names, give a --pattern "
    r"such as '(?P<pid>\d+)_(?P<camid>\d+)', or as --source a CSV with lines such as: path,pid,camid "
    "| crops/17.jpg,anna,door | crops/18.jpg,bob,hall. If the identities are not known, add --unlabelled"
)
UNLABELLED_FORMS = "Expected crops, in folders of cameras or with the cameras in their names"

# Pids with a meaning, however identities are named or numbered.
SPECIAL = {str(pid): pid for pid in (JUNK, DISTRACTOR)}
NO_IDENTITY = str(UNLABELLED)

# The parts of which images may have no identity, "" being that of images that were given none.
TRAINING = ("", "train", "train_all")

# What folders and the column `split` call a part, without capitals, separators and the words around it.
_PART_NAMES = {
    "train": ("train", "training"),
    "train_all": ("trainall", "trainval", "trainvalidation"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "query": ("query", "queries", "probe", "probes"),
    "gallery": ("gallery", "galleries"),
    "extra": ("multiquery", "gtbbox", "gtquery"),
}
_PARTS = {name: part for part, names in _PART_NAMES.items() for name in names}
_AROUND = r"boundingbox|bbox|images?|imgs?|crops?|set|split|data"


@dataclass(frozen=True)
class OwnImage:
    """One image. `origin`: its path in the source. `split`: a part as in `parse_part`, or "" if none was given."""

    file: Path
    origin: str
    identity: str
    camera: str
    split: str = ""


@cache
def parse_part(name: str) -> str:
    """The part that `name` stands for: train, train_all, val, test, query, gallery or extra; "" if it is no part.

    Capitals, separators and words such as `bounding_box_`, `image_` and `_set` make no difference. `extra`: what
    Market-1501's archive holds besides its three parts.
    """
    plain = re.sub(r"[\W_]+", "", name.lower())
    return _PARTS.get(plain) or _PARTS.get(re.sub(rf"^(?:{_AROUND})|(?:{_AROUND})$", "", plain), "")


def assign_numbers(values: Iterable[str]) -> dict[str, int]:
    """A number for each value: itself, if all are different numbers from 0, otherwise 1, 2, ... in order.

    Junk and distractors keep their numbers in any case.
    """
    known = sorted(set(values), key=_order)
    others = [value for value in known if value not in SPECIAL]
    own = {value: int(value) for value in others if re.fullmatch(r"[0-9]{1,19}", value) and int(value) < 2**63}
    if len(own) < len(others) or len(set(own.values())) < len(own):
        own = {value: number for number, value in enumerate(others, start=1)}
    return {value: SPECIAL.get(value, own.get(value, 0)) for value in known}


def _order(value: str) -> tuple[str, str]:
    """A sorting key that puts 2 before 10, in any name."""
    return re.sub("[0-9]+", lambda digits: digits[0].zfill(20), value), value
