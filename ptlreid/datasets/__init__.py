"""Data sets by name, such as `market`, `synthetic-b` or the path of a folder: one file each in this package."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ptlreid import plugins
from ptlreid.datasets._about import About
from ptlreid.errors import DataError
from ptlreid.records import Splits


@dataclass(frozen=True)
class Found:
    """The part that knows a data set, and the variant that was asked for."""

    name: str
    module: ModuleType
    variant: str

    @property
    def about(self) -> About:
        about: About = self.module.ABOUT
        return about

    def folders(self, root: Path) -> list[Path]:
        """Where the data set may lie below `root`; the first is where `prepare` puts it."""
        return [root / folder.format(variant=self.variant) for folder in self.about.folders]


def names() -> list[str]:
    """Every name that a data set answers to, sorted."""
    return sorted(name for module in _modules() for name in module.ABOUT.names)


def find(name: str) -> Found:
    """The data set called `name`, which may end in `:variant`; `OptionError` with a near-miss hint otherwise."""
    base, _, variant = name.partition(":")
    for module in _modules():
        if base in module.ABOUT.names:
            variant = variant or module.ABOUT.names[base]
            if variant not in module.ABOUT.variants:
                raise plugins.unknown(f"variant of {base}", variant, module.ABOUT.variants)
            return Found(base, module, variant)
    raise plugins.unknown("data set", base, names())


def load(name: str, root: Path) -> Splits:
    """The splits of the data set called `name` below `root`, or of the folder that `name` is a path to.

    A folder is read in the layout of Market-1501. Raises `OptionError` for an unknown name and `DataError` for a
    data set that is not there or not in its layout.
    """
    if is_folder(name):
        return _module("market").read(Path(name)).renamed(Path(name).resolve().name)
    found = find(name)
    for folder in found.folders(root):
        if folder.is_dir():
            splits: Splits = found.module.read(folder, found.variant)
            return splits
    tried = ", ".join(str(folder) for folder in found.folders(root))
    raise DataError(
        f"{found.about.title} was not found: looked for {tried}. Name the folder above it with --root or "
        f"PTLREID_DATA, or make it with `ptlreid prepare {name}`."
    )


def is_folder(name: str) -> bool:
    """Whether a data set is named by a path: it holds a separator, or starts with a dot."""
    return "/" in name or "\\" in name or name.startswith(".")


def _modules() -> list[ModuleType]:
    return [_module(name) for name in plugins.names(sys.modules[__name__])]


def _module(name: str) -> ModuleType:
    return plugins.find(sys.modules[__name__], name, "data set")
