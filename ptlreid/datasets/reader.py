"""The interface of a dataset's file: to describe it (`DatasetInfo`), read it (`Records`, `Fault`) and gather it.

docs/extending.md shows a dataset in one file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

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
    "FaultsError",
    "Progress",
    "Records",
    "Reject",
    "Splits",
    "find_layout",
    "is_folder",
    "is_image",
    "is_stray",
    "link_or_copy",
    "link_or_copy_all",
    "link_or_copy_as",
    "list_files",
    "list_folders",
    "locate",
    "refuse",
]

# What file managers leave behind.
_STRAYS = ("thumbs.db", ".ds_store", "desktop.ini")
_LEVELS = 4
_SHOWN = 20


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a dataset.

    `names`: each public name, aliases included, with its default variant, "" if there are none.
    `folders`: names tried below the root, in this order; `prepare` puts the dataset in the first.
    `terms`: what the data may be used for. `note`: for every user of the dataset to read.
    `variants`: accepted after a colon. `unlisted_variants`: accepted too, but too many to list. `full_variants`: for a
    variant that leaves out images of its folder, the variant that reads them all. `base_variants`: for a variant that
    shares the folder of another, that one, which takes the place of `{variant}` in `folders`.
    `counts`: published counts by variant, such as `train_images`, `query_identities`, or `cameras` of all parts.
    `paper_ap`: the definition of average precision in the paper's figures on this dataset: docs/evaluation.md.
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
    base_variants: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    paper_ap: Literal["step", "trapezoid"] = "step"


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

    def describe(self) -> dict[str, Any]:
        """The fault, for JSON."""
        return {**asdict(self), "file": str(self.file)}


class FaultError(DataError):
    """A `DataError` that carries a fault, so that a check can list it with others."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class FaultsError(DataError):
    """A `DataError` that carries every fault of a source; its message is bounded."""

    def __init__(self, source: Path, faults: list[Fault]) -> None:
        lines = [f"{source}: {len(faults):,} faults. Correct them, and run the command again; --json lists all."]
        lines += [f"  {fault}" for fault in faults[:_SHOWN]]
        lines += [f"  ... and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
        super().__init__("\n".join(lines) if len(faults) > 1 else str(faults[0]))
        self.faults = faults


# Handles a file that a reader cannot use: raises, or collects the fault so that reading continues without the file.
Reject = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """The `Reject` of every command that needs the images: raises `FaultError`."""
    raise FaultError(fault)


def _ignore(fault: Fault) -> None:
    """For a search: a folder that cannot be read is not the one that the user means."""


def is_stray(name: str) -> bool:
    """Whether this is the name of a leftover of a file manager: `._0002_c1s1.jpg`, `Thumbs.db`, `__MACOSX`."""
    return name.startswith("._") or name.lower() in _STRAYS or name == "__MACOSX"


def is_image(path: Path) -> bool:
    """Whether the file has the name of an image and is not hidden; its content is not read."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; False if that cannot be found out, where `Path.is_dir` may raise an error."""
    return os.path.isdir(path)  # noqa: PTH112


def list_files(folder: Path, reject: Reject) -> list[Path]:
    """The entries of `folder` that are not folders, sorted.

    None if it does not exist, which `find_layout` reports, or cannot be listed, which goes to `reject`.
    """
    return [path for path in _list_entries(folder, reject) if not is_folder(path)]


def list_folders(folder: Path, reject: Reject) -> list[Path]:
    """The folders in `folder`, sorted, without those that a file manager left; none as in `list_files`."""
    return [path for path in _list_entries(folder, reject) if is_folder(path) and not is_stray(path.name)]


def _list_entries(folder: Path, reject: Reject) -> list[Path]:
    if not is_folder(folder):
        return []
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        remedy = "Correct the folder and its permissions."
        reject(Fault("layout", folder, f"cannot be listed ({error.strerror or error})", remedy))
        return []


def locate(source: Path, wanted: Sequence[str]) -> Path:
    """The folder that holds all of `wanted`: `source`, a folder up to 4 levels below, or the one above `source`.

    The one above counts only if `source` itself is one of `wanted`. Raises `DataError` if there is none, and names
    what the folder that comes nearest lacks.
    """
    above = [source.parent] if source.name in wanted else []
    nearest, fewest = source, list(wanted)
    for folder in (source, *above, *_walk_folders(source)):
        missing = _list_missing(folder, wanted)
        if not missing:
            return folder
        if len(missing) < len(fewest):
            nearest, fewest = folder, missing
    remedy = "Give the dataset's archive, or the folder it was unpacked to, with --source."
    raise FaultError(Fault("layout", nearest, _describe_missing(nearest, fewest), remedy))


def find_layout(folder: Path, wanted: Sequence[str], reject: Reject, remedy: str) -> Path:
    """The folder that holds `wanted`: `folder`, or the one below or above it where more of them are.

    That one goes to `reject`, and so does what is missing; names with a suffix are files, all others folders. The one
    above counts only if `folder` itself is one of `wanted`.
    """
    if not _list_missing(folder, wanted):
        return folder
    above = [folder.parent] if folder.name in wanted else []
    place = min([folder, *above, *list_folders(folder, _ignore)], key=lambda place: len(_list_missing(place, wanted)))
    missing = _list_missing(place, wanted)
    if place in above:
        fault = _describe_missing(folder, _list_missing(folder, wanted))
        reject(Fault("nested", folder, fault, f"The layout is one level higher: use {place}."))
    elif place != folder:
        fault = _describe_missing(folder, _list_missing(folder, wanted))
        reject(Fault("nested", folder, fault, f"The layout is one level deeper: move what is in {place} to {folder}."))
    if missing:
        reject(Fault("layout", place, _describe_missing(place, missing), remedy))
    return place


def _list_missing(folder: Path, wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that are not in `folder` as files, if they have a suffix, or as folders."""
    paths = {name: folder / name for name in wanted}
    return [name for name, path in paths.items() if not (os.path.isfile(path) if path.suffix else is_folder(path))]  # noqa: PTH113


def _describe_missing(folder: Path, missing: Sequence[str]) -> str:
    if not is_folder(folder):
        return "is not a folder" if os.path.lexists(folder) else "does not exist"
    wrong = [name for name in missing if os.path.lexists(folder / name)]
    absent = ", ".join(name for name in missing if name not in wrong)
    faults = [f"no {absent} in it"] if absent else []
    return "; ".join([*faults, *(f"{name} is not a {'file' if Path(name).suffix else 'folder'}" for name in wrong)])


def link_or_copy_all(
    files: Iterable[Path], base: Path, target: Path, progress: Progress, reject: Reject
) -> dict[str, Path]:
    """Link or copy `files`, which are below `base`, to the same paths below `target`; see `link_or_copy_as`."""
    names = {file.relative_to(base).as_posix(): file for file in files}
    return link_or_copy_as(names, target, progress, reject)


def link_or_copy_as(
    files: Mapping[str, Path], target: Path, progress: Progress, reject: Reject = refuse
) -> dict[str, Path]:
    """Link or copy each file to its new path below `target`, written with `/`; existing ones are kept.

    Files on the same disk become hard links, which take no space. A missing file goes to `reject`; the others are
    returned.
    """
    made: dict[str, Path] = {}
    with progress.task("link or copy files", len(files)) as advance:
        for done, (name, file) in enumerate(files.items(), start=1):
            try:
                link_or_copy(file, target / name)
                made[name] = file
            except FaultError as error:
                reject(error.fault)
            advance(done)
    return made


def link_or_copy(file: Path, target: Path) -> None:
    """Make `target` a hard link to `file`, or a copy, complete or not at all; an existing link or copy is kept.

    A copy has the size and the time of its original, by which it is recognised. If `file` is a symbolic link, the file
    it points to is used.
    """
    if not file.is_file():
        raise FaultError(Fault("missing", file, "is listed but does not exist", "Unpack or copy the dataset again."))
    original = file.resolve()
    if target.exists():
        ours, theirs = target.stat(), original.stat()
        if os.path.samestat(ours, theirs) or (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns):
            return
        target.unlink()  # a power cut may leave a name without its content
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(original, target)
    except OSError:  # another disk, or a file system without hard links
        with unsynced_write(target, original.stat().st_size) as temporary:
            shutil.copyfile(original, temporary)
            os.utime(temporary, ns=(original.stat().st_atime_ns, original.stat().st_mtime_ns))


def _walk_folders(folder: Path) -> Iterator[Path]:
    """The folders below `folder`, level by level, sorted."""
    level = [folder]
    for _ in range(_LEVELS):
        level = [inner for parent in level for inner in list_folders(parent, _ignore)]
        yield from level
