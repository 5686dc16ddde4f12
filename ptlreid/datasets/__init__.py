"""Datasets by name, such as `market`, `synthetic-b` or the path of a folder: one file each in this package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ptlreid import contents, plugins
from ptlreid.datasets._about import DatasetInfo
from ptlreid.datasets._faults import Fault, FaultError, Reject, refuse
from ptlreid.datasets._union import combine
from ptlreid.errors import DataError, OptionError
from ptlreid.records import Splits

__all__ = ["DatasetRef", "Fault", "FaultError", "find", "load", "names"]


@dataclass(frozen=True)
class DatasetRef:
    """The part that knows a dataset, and the variant that was asked for. `path`: where it was named by its folder."""

    name: str
    module: ModuleType
    variant: str
    path: Path | None = None

    @property
    def about(self) -> DatasetInfo:
        """The facts of the dataset."""
        about: DatasetInfo = self.module.ABOUT
        return about

    @property
    def counts(self) -> Mapping[str, int]:
        """The published counts of this variant; none for a folder, which may be anything in that layout."""
        return {} if self.path else self.about.counts.get(self.variant, {})

    def folders(self, root: Path) -> list[Path]:
        """Where the dataset may lie below `root`; the first is where `prepare` puts it."""
        if self.path:
            return [self.path]
        return [root / folder.format(name=self.name, variant=self.variant) for folder in self.about.folders]

    def folder(self, root: Path) -> Path:
        """Where the dataset lies; `DataError` when it is not below `root`."""
        folders = self.folders(root)
        for folder in folders:
            if folder.is_dir() or self.path:
                return folder
        if part_of(folders[0]).is_dir():
            raise DataError(
                f"{self.about.title} was not prepared to the end: {part_of(folders[0])} is half of it. Run the same "
                f"`ptlreid prepare {self.name} --source ...` again, which goes on from there."
            )
        raise DataError(
            f"{self.about.title} was not found: looked for {', '.join(map(str, folders))}. Name the folder above it "
            f"with --root or PTLREID_DATA, or make it with `ptlreid prepare {self.name}`."
        )

    def read(self, folder: Path, *, whole: bool = False, reject: Reject = refuse) -> Splits:
        """The splits in `folder`; what cannot be used goes to `reject`. `whole`: with images the variant leaves out."""
        variant = self.about.whole.get(self.variant, self.variant) if whole else self.variant
        contents.use_index(folder)
        splits: Splits = self.module.read(folder, variant, reject)
        return splits.renamed(self.name, source=str(self.path.resolve())) if self.path else splits


def names() -> list[str]:
    """Every name that a dataset answers to, sorted."""
    return sorted(name for module in _modules() for name in module.ABOUT.names)


def find(name: str, root: Path | None = None) -> DatasetRef:
    """The dataset called `name`, which may end in `:variant`, or be the path of a folder.

    Below `root`, own images that were prepared answer to their name as well. Raises `OptionError` with a near-miss
    hint when there is none.
    """
    if is_folder(name):
        path = Path(name)
        return DatasetRef(path.resolve().name, _module("folder" if _is_own(path) else "market"), "", path)
    base, _, variant = name.partition(":")
    for module in _modules():
        if base in module.ABOUT.names:
            variant = variant or module.ABOUT.names[base]
            if variant not in module.ABOUT.variants and variant not in module.ABOUT.also:
                raise plugins.unknown_name(f"variant of {base}", variant, module.ABOUT.variants)
            return DatasetRef(base, module, variant)
    own = sorted(path.name for path in root.iterdir() if _is_own(path)) if root and root.is_dir() else []
    if name in own:
        return DatasetRef(name, _module("folder"), "")
    told = plugins.unknown_name("dataset", base, [*names(), *own])
    raise OptionError(f"{told} Looked below {root}, which does not exist.") if root and not root.is_dir() else told


def load(name: str, root: Path) -> Splits:
    """The splits of the dataset called `name` below `root`, of a folder's path, or of several joined with `+`.

    A folder is read in the layout of Market-1501. Several have the training images of all and no test set. Raises
    `OptionError` for an unknown name and `DataError` for a dataset that is not there or not in its layout.
    """
    if "+" not in name or (is_folder(name) and Path(name).is_dir()):
        found = find(name, root)
        return found.read(found.folder(root))
    parts = [find(part, root) for part in name.split("+")]
    union = combine(name, [part.read(part.folder(root)) for part in parts])
    if len(set(union.train.paths)) < len(union.train):
        raise OptionError(f"{name} names the same images twice. Give each dataset once.")
    return union


def is_folder(name: str) -> bool:
    """Whether a dataset is named by a path: it holds a separator, or starts with a dot."""
    return "/" in name or "\\" in name or name.startswith(".")


def part_of(folder: Path) -> Path:
    """Where a dataset is made before it gets its name: no reader ever looks there."""
    return folder.with_name(f".{folder.name}.part")


def _is_own(path: Path) -> bool:
    return (path / "split.csv").is_file()


def _modules() -> list[ModuleType]:
    return [_module(name) for name in plugins.names(sys.modules[__name__])]


def _module(name: str) -> ModuleType:
    return plugins.find(sys.modules[__name__], name, "dataset")
