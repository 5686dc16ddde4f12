"""What every dataset says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """The facts of one dataset.

    `names`: each public name (aliases included) with the variant it stands for, "" where there are none.
    `variants`: what may follow a colon; `also`: what else may, too many to list. `whole`: for a variant that leaves
    images of its folder aside, the variant that reads them all.
    `folders`: names tried below the root, in this order; the first is where `prepare` puts the dataset.
    `counts`: published numbers by variant, such as `train_images`, `query_identities`, or `cameras` of all parts.
    `note`: what everyone who uses the dataset should be told.
    """

    title: str
    names: Mapping[str, str]
    folders: tuple[str, ...]
    citation: str
    licence: str
    source: str
    protocol: str
    terms: str = ""
    note: str = ""
    variants: tuple[str, ...] = ("",)
    also: frozenset[str] = frozenset()
    whole: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
