"""What every data set says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class About:
    """The facts of one data set.

    `names`: each public name (aliases included) with the variant it stands for, "" where there are none.
    `variants`: what may follow a colon. `folders`: names tried below the root, in this order.
    `counts`: published numbers of images and identities, by split.
    """

    title: str
    names: Mapping[str, str]
    folders: tuple[str, ...]
    citation: str
    licence: str
    source: str
    protocol: str
    variants: tuple[str, ...] = ("",)
    counts: Mapping[str, int] = field(default_factory=dict)
