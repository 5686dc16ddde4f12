"""Files of a dataset found in what the user has, and put in their place: linked where possible, copied otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ptlreid.datasets._faults import Fault, FaultError
from ptlreid.errors import PtlreidError
from ptlreid.progress import Progress

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

# What file managers leave behind.
_STRAYS = ("thumbs.db", ".ds_store", "desktop.ini")
_LEVELS = 4


def is_stray(name: str) -> bool:
    """Whether a file manager left the file or folder of this name: `._0002_c1s1.jpg`, `Thumbs.db`, `__MACOSX`."""
    return name.startswith("._") or name.lower() in _STRAYS or name == "__MACOSX"


def is_image(path: Path) -> bool:
    """Whether the file's name is that of an image, hidden ones left out; its content is not looked at."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def locate(source: Path, wanted: Sequence[str]) -> Path:
    """The folder that holds all of `wanted`: `source`, some levels below it, or one above where it is one of them.

    Raises `DataError` when there is none.
    """
    above = [source.parent] if source.name in wanted else []
    for folder in (source, *above, *_below(source)):
        if all((folder / name).exists() for name in wanted):
            return folder
    remedy = "Give the dataset's archive, or the folder it was unpacked to, with --source."
    raise FaultError(Fault("layout", source, f"no folder in it holds {', '.join(wanted)}", remedy))


def link_or_copy_all(files: Iterable[Path], base: Path, target: Path, progress: Progress) -> None:
    """Put `files`, which lie below `base`, at the same places below `target`; what is there already is left."""
    link_or_copy_as({file.relative_to(base).as_posix(): file for file in files}, target, progress)


def link_or_copy_as(files: dict[str, Path], target: Path, progress: Progress) -> None:
    """Put each file at its new place below `target`, a path with `/`; what is there already is left.

    Hard links on the same disk, which cost no room, copies otherwise. Raises `DataError` for a file that is missing.
    """
    with progress.task("place files", len(files)) as advance:
        for done, (name, file) in enumerate(files.items(), start=1):
            link_or_copy(file, target / name)
            advance(done)


def link_or_copy(file: Path, place: Path) -> None:
    """`file` at `place`, whole or not at all. A link's own file is taken, so that nothing points elsewhere."""
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        raise FaultError(Fault("missing", file, "is listed, but not there", "Unpack or copy the dataset again."))
    whole = file.resolve()
    try:
        os.link(whole, place)
    except OSError:  # another disk, or a file system without hard links
        _copy(whole, place)


def _copy(file: Path, place: Path) -> None:
    aside = place.with_name(f".{place.name}.part")
    try:
        shutil.copyfile(file, aside)
        aside.replace(place)
    except OSError as error:
        advice = "Check that the disk has room, then run the command again: it goes on from here."
        raise PtlreidError(f"{place}: cannot be written ({error.strerror or error}). {advice}") from error


def _below(folder: Path) -> Iterator[Path]:
    """The folders below `folder`, level by level, sorted."""
    level = [folder]
    for _ in range(_LEVELS):
        level = [folder for parent in level for folder in _folders_in(parent)]
        yield from level


def _folders_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:  # what may not be read is not what the user means
        return []
    return [Path(entry.path) for entry in entries if entry.is_dir() and not is_stray(entry.name)]
