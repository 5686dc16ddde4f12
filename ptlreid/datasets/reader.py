"""The interface of a dataset's file: to describe it (`DatasetInfo`), read it (`Records`, `Fault`) and gather it.

docs/extending.md shows a dataset in one file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptlreid.errors import DataError
from ptlreid.files import unsynced_write
from ptlreid.image_files import IMAGE_SUFFIXES
from ptlreid.progress import Progress
from ptlreid.records import DISTRACTOR, JUNK, Records, Splits

__all__ = [
    "DISTRACTOR",
    "IMAGE_SUFFIXES",
    "JUNK",
    "DatasetInfo",
    "Fault",
    "FaultError",
    "Progress",
    "Records",
    "Reject",
    "Splits",
    "is_image",
    "is_stray",
    "link_or_copy",
    "link_or_copy_all",
    "link_or_copy_as",
    "locate",
    "refuse",
]

# What file managers leave behind.
_STRAYS = ("thumbs.db", ".ds_store", "desktop.ini")
_LEVELS = 4


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a dataset.

    `names`: each public name, aliases included, with its default variant, "" if there are none.
    `folders`: names tried below the root, in this order; `prepare` puts the dataset in the first.
    `terms`: what the data may be used for. `note`: for every user of the dataset to read.
    `variants`: accepted after a colon. `unlisted_variants`: accepted too, but too many to list. `full_variants`: for a
    variant that leaves out images of its folder, the variant that reads them all.
    `counts`: published counts by variant, such as `train_images`, `query_identities`, or `cameras` of all parts.
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
    unlisted_variants: frozenset[str] = frozenset()
    full_variants: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """A single fault of a dataset.

    `kind`: one word, for programs. `remedy`: what to do, in full sentences. `serious`: whether results cannot be
    trusted until it is fixed.
    """

    kind: str
    file: Path
    fault: str
    remedy: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}. {self.remedy}"


class FaultError(DataError):
    """A `DataError` that carries a fault, so that a check can list it with others."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


# Handles a file that a reader cannot use: raises, or collects the fault so that reading continues without the file.
Reject = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """The `Reject` of every command that needs the images: raises `FaultError`."""
    raise FaultError(fault)


def is_stray(name: str) -> bool:
    """Whether this is the name of a leftover of a file manager: `._0002_c1s1.jpg`, `Thumbs.db`, `__MACOSX`."""
    return name.startswith("._") or name.lower() in _STRAYS or name == "__MACOSX"


def is_image(path: Path) -> bool:
    """Whether the file has the name of an image and is not hidden; its content is not read."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def locate(source: Path, wanted: Sequence[str]) -> Path:
    """The folder that holds all of `wanted`: `source`, a folder up to 4 levels below, or the one above `source`.

    The one above counts only if `source` itself is one of `wanted`. Raises `DataError` if there is none.
    """
    above = [source.parent] if source.name in wanted else []
    for folder in (source, *above, *_walk_folders(source)):
        if all((folder / name).exists() for name in wanted):
            return folder
    remedy = "Give the dataset's archive, or the folder it was unpacked to, with --source."
    raise FaultError(Fault("layout", source, f"no folder in it holds {', '.join(wanted)}", remedy))


def link_or_copy_all(files: Iterable[Path], base: Path, target: Path, progress: Progress) -> None:
    """Link or copy `files`, which are below `base`, to the same paths below `target`; existing ones are kept."""
    link_or_copy_as({file.relative_to(base).as_posix(): file for file in files}, target, progress)


def link_or_copy_as(files: Mapping[str, Path], target: Path, progress: Progress) -> None:
    """Link or copy each file to its new path below `target`, written with `/`; existing ones are kept.

    Files on the same disk become hard links, which take no space. Raises `DataError` for a missing file.
    """
    with progress.task("link or copy files", len(files)) as advance:
        for done, (name, file) in enumerate(files.items(), start=1):
            link_or_copy(file, target / name)
            advance(done)


def link_or_copy(file: Path, target: Path) -> None:
    """Make `target` a hard link to `file`, or a copy, complete or not at all; an existing `target` is kept.

    If `file` is a symbolic link, the file it points to is used.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        raise FaultError(Fault("missing", file, "is listed but does not exist", "Unpack or copy the dataset again."))
    original = file.resolve()
    try:
        os.link(original, target)
    except OSError:  # another disk, or a file system without hard links
        with unsynced_write(target, original.stat().st_size) as temporary:
            shutil.copyfile(original, temporary)


def _walk_folders(folder: Path) -> Iterator[Path]:
    """The folders below `folder`, level by level, sorted."""
    level = [folder]
    for _ in range(_LEVELS):
        level = [inner for parent in level for inner in _list_folders(parent)]
        yield from level


def _list_folders(folder: Path) -> list[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:  # a folder that cannot be read is not the one that the user means
        return []
    return [Path(entry.path) for entry in entries if entry.is_dir() and not is_stray(entry.name)]
