"""Datasets by name, such as `market`, `synthetic-b` or the path of a folder: one file each in this package."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from ptlreid import contents, plugins
from ptlreid.datasets._union import combine
from ptlreid.datasets.reader import DatasetInfo, Fault, FaultError, FaultsError, Reject, refuse
from ptlreid.errors import DataError, OptionError
from ptlreid.names import UNLABELLED
from ptlreid.records import Splits

__all__ = ["UNLABELLED", "DatasetInfo", "DatasetRef", "Fault", "FaultError", "FaultsError", "find", "load", "names"]


@dataclass(frozen=True)
class DatasetRef:
    """A dataset by name, not read yet: its module in this package, and its variant.

    `path`: the folder, if the dataset was given by path. `unlabelled`: read without the identities of the training
    images.
    """

    name: str
    module: ModuleType
    variant: str
    path: Path | None = None
    unlabelled: bool = False

    @property
    def info(self) -> DatasetInfo:
        """The description of the dataset."""
        info: DatasetInfo = self.module.INFO
        return info

    @property
    def counts(self) -> Mapping[str, int]:
        """The published counts of this variant; empty for a path, as any images may be in that layout."""
        counts = {} if self.path else self.info.counts.get(self.variant, {})
        return {**counts, "train_identities": 0} if counts and self.unlabelled else counts

    def folders(self, root: Path) -> list[Path]:
        """Where the dataset may be below `root`; `prepare` uses the first."""
        if self.path:
            return [self.path]
        variant = self.info.base_variants.get(self.variant, self.variant)
        return [root / folder.format(name=self.name, variant=variant) for folder in self.info.folders]

    def folder(self, root: Path) -> Path:
        """Where the dataset is; `DataError` if it is not below `root`."""
        folders = self.folders(root)
        for folder in folders:
            if folder.is_dir() or self.path:
                return folder
        command = f"ptlreid prepare {self.name}"
        if self.variant != self.info.names.get(self.name, self.variant):  # not the default
            command += f":{self.variant}"
        if unfinished_folder(folders[0]).is_dir():
            raise DataError(
                f"{self.info.title} is incomplete: preparing it in {unfinished_folder(folders[0])} was interrupted. "
                f"Run the same `{command} --source ...` again to resume."
            )
        how = f"`{command}`"
        if hasattr(self.module, "gather"):
            how = f"`{command} --source FILE`, its archive or folder, from {self.info.source}"
        raise DataError(
            f"{self.info.title} was not found: expected it at {', '.join(map(str, folders))}. Give the folder of your "
            f"datasets with --root or PTLREID_DATA, or prepare it with {how}."
        )

    def read(self, folder: Path, *, all_images: bool = False, reject: Reject = refuse) -> Splits:
        """The splits in `folder`; faults in single files go to `reject`.

        With `all_images`, also those that the variant leaves out. From now on, digests of the images are kept in the
        folder's index: see `contents`.
        """
        contents.use_index(folder)
        variant = self.info.full_variants.get(self.variant, self.variant) if all_images else self.variant
        splits: Splits = self.module.read(folder, variant, reject)
        splits = splits.without_identities() if self.unlabelled else splits
        return splits.rename(self.name, source=str(self.path.resolve())) if self.path else splits


def names() -> list[str]:
    """Every name of every dataset, aliases included, sorted."""
    return sorted(name for module in _modules() for name in module.INFO.names)


def find(name: str, root: Path | None = None) -> DatasetRef:
    """The dataset called `name`, which may end in `:variant`, or be the path of a folder.

    Any of these may end in `:unlabelled`, after the variant. Own images that were prepared below `root` are found by
    name, too. Raises `OptionError` with a suggestion if there is none.
    """
    base = name.removesuffix(UNLABELLED)
    if base.endswith(UNLABELLED):
        raise OptionError(f"{name}: ends in {UNLABELLED} more than once: expected it once. Leave the others out.")
    return replace(_find_labelled(base, root), unlabelled=base != name)


def _find_labelled(name: str, root: Path | None) -> DatasetRef:
    if is_path(name):
        path = Path(name)
        return DatasetRef(path.resolve().name, _module("folder" if _holds_own_images(path) else "market"), "", path)
    base, _, variant = name.partition(":")
    for module in _modules():
        info = module.INFO
        if base in info.names:
            variant = variant or info.names[base]
            if variant not in info.variants and variant not in info.unlisted_variants:
                raise plugins.unknown_name(f"variant of {base}", variant, [*info.variants, UNLABELLED[1:]])
            return DatasetRef(base, module, variant)
    own = sorted(path.name for path in root.iterdir() if _holds_own_images(path)) if root and root.is_dir() else []
    if name in own:
        return DatasetRef(name, _module("folder"), "")
    if base in own:
        raise plugins.unknown_name(f"variant of {base}", variant, [UNLABELLED[1:]])
    error = plugins.unknown_name("dataset", base, [*names(), *own])
    raise OptionError(f"{error} The root {root} does not exist.") if root and not root.is_dir() else error


def load(name: str, root: Path) -> Splits:
    """The splits of the dataset called `name` below `root`, of a folder's path, or of several joined with `+`.

    A folder is read in the layout of Market-1501. Several datasets give the training images of all and no test set.
    If one of these is unlabelled, so are the images of all. Raises `OptionError` for an unknown name and `DataError`
    for a dataset that is missing or not in its layout.
    """
    folder = name.removesuffix(UNLABELLED)
    if "+" not in name or (is_path(folder) and Path(folder).is_dir()):
        dataset = find(name, root)
        return dataset.read(dataset.folder(root))
    parts = [find(part, root) for part in name.split("+")]
    union = combine(name.replace(UNLABELLED, ""), [part.read(part.folder(root)) for part in parts])
    if len(set(union.train.paths)) < len(union.train):
        raise OptionError(f"{name} contains the same images twice: expected different datasets. Give each once.")
    return union


def is_path(name: str) -> bool:
    """Whether the dataset is named by a path: the name holds a separator, or starts with a dot."""
    return "/" in name or "\\" in name or name.startswith(".")


def unfinished_folder(folder: Path) -> Path:
    """Where `prepare` builds the dataset of `folder` until it is complete; no reader looks there."""
    return folder.with_name(f".{folder.name}.part")


def _holds_own_images(path: Path) -> bool:
    return os.path.isfile(path / "split.csv")  # noqa: PTH113  # False for a folder that may not be read


def _modules() -> list[ModuleType]:
    return [_module(name) for name in plugins.names(sys.modules[__name__]) if name != "reader"]


def _module(name: str) -> ModuleType:
    return plugins.find(sys.modules[__name__], name, "dataset")
