"""The image files in a folder at any depth, and what is not taken as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptlreid.datasets._left_out import LeftOut, describe_left_out, write_left_out
from ptlreid.datasets.reader import IMAGE_SUFFIXES, Reject, Splits, is_stray, link_or_copy_all
from ptlreid.errors import DataError
from ptlreid.progress import Progress


@dataclass(frozen=True)
class SourceFile:
    """An image file. `folders`: the names of the folders that say something about it, from the outermost.

    `part`: what one of the folders named as its part, "" if none did.
    """

    file: Path
    origin: str
    folders: tuple[str, ...]
    part: str = ""

    def without(self, level: int, part: str | None = None) -> SourceFile:
        """The same file without the folder at `level`, with another `part` if that is given."""
        rest = self.folders[:level] + self.folders[level + 1 :]
        return replace(self, folders=rest, part=self.part if part is None else part)


def list_images(source: Path) -> tuple[list[SourceFile], list[LeftOut]]:
    """The images below `source`, sorted, and all other files, with a hidden folder as one of them.

    Links to folders are followed, but a folder that was read already is left out. Raises `DataError` for a folder
    that cannot be read.
    """
    images: list[SourceFile] = []
    left_out: list[LeftOut] = []
    links: list[tuple[Path, tuple[str, ...]]] = []
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[Path, tuple[str, ...]]] = [(source, ())]
    while waiting or links:
        folder, names = (waiting or links).pop()
        identity, entries = _list_entries(folder)
        if identity in seen:
            left_out.append(LeftOut("is a link to a folder that is read under another name", "/".join((*names, ""))))
            continue
        seen.add(identity)
        for entry in entries:
            path, inner = Path(entry.path), (*names, entry.name)
            if entry.is_dir() and not _is_hidden(entry.name):
                (links if entry.is_symlink() else waiting).append((path, inner))
            elif reason := _find_reason(entry):
                left_out.append(LeftOut(reason, "/".join(inner) + "/" * entry.is_dir()))
            else:
                images.append(SourceFile(path, "/".join(inner), names))
    return sorted(images, key=lambda image: image.origin), left_out


@dataclass(frozen=True)
class Listing:
    """`images`: the paths below a folder of the images that `list_images` finds, sorted, with `/`.

    `others`: of all other files that are not hidden. `entries`: by folder, "" or a path with `/` at its end, all names.
    """

    images: list[str]
    others: list[str]
    entries: dict[str, list[str]]


def list_names(source: Path) -> Listing | None:
    """What is below `source`, by names alone, which is ten times as fast as `list_images`.

    None where that is not enough: for a link to a folder, and for a folder that cannot be read.
    """
    listing = Listing([], [], {})
    waiting = [""]
    try:
        while waiting:
            prefix = waiting.pop()
            with os.scandir(f"{source}/{prefix}") as found:
                entries = sorted(found, key=lambda entry: entry.name)
            listing.entries[prefix] = [entry.name for entry in entries]
            for entry in entries:
                name = entry.name
                if entry.is_dir():
                    if entry.is_symlink():
                        return None
                    waiting += [] if _is_hidden(name) else [f"{prefix}{name}/"]
                elif not _is_hidden(name):
                    is_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
                    (listing.images if is_image else listing.others).append(prefix + name)
    except OSError:
        return None
    listing.images.sort()
    return listing


def keep_unused(source: Path, used: Iterable[Path], target: Path, progress: Progress) -> None:
    """Write the list of the files below `source` that are not `used` into `target`, with a note for each reason."""
    known = set(used)
    images, left_out = list_images(source)
    unused = [LeftOut("is in no part of the dataset", image.origin) for image in images if image.file not in known]
    items = [item for item in left_out if source / item.path not in known] + unused
    write_left_out(target, items)
    for line in describe_left_out(items):
        progress.note(line)


def gather_splits(
    folder: Path, splits: Splits, target: Path, progress: Progress, reject: Reject, *, lists: Sequence[Path] = ()
) -> dict[str, Path]:
    """Link or copy the images of `splits` and the `lists` that name them, all below `folder`, to the same places.

    Gives the images as `link_or_copy_all`; what is not used is listed in `target`.
    """
    link_or_copy_all(lists, folder, target, progress, reject)
    paths = [path for part in splits.parts for path in part.paths]
    keep_unused(folder, [*lists, *paths], target, progress)
    return link_or_copy_all(paths, folder, target, progress, reject)


def skip_common_folders(images: list[SourceFile], *, keep: int) -> list[SourceFile]:
    """The images without the folders that all of them are in, but with at least `keep` of their folders."""
    while min(len(image.folders) for image in images) > keep and len({image.folders[0] for image in images}) == 1:
        images = [image.without(0) for image in images]
    return images


def _list_entries(folder: Path) -> tuple[tuple[int, int], list[os.DirEntry[str]]]:
    """What is the same for every name of a folder, and its entries."""
    try:
        status = folder.stat()
        return (status.st_dev, status.st_ino), sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({error.strerror}): expected a folder of images. Give yourself access, or move "
            "it out of the source."
        ) from error


def _find_reason(entry: os.DirEntry[str]) -> str:
    """Why this is not taken as an image; "" if it is."""
    return find_name_fault([entry.name]) or ("" if entry.is_file() else "is not a regular file")


def find_name_fault(parts: Sequence[str]) -> str:
    """Why a file is not taken as an image, by its name, the last of `parts`, and its folders'; "" if it is."""
    if any(map(_is_hidden, parts)):
        return "is hidden, or was left by a file manager"
    suffix = os.path.splitext(parts[-1])[1].lower()  # noqa: PTH122 - a tenth of the time of Path
    if suffix not in IMAGE_SUFFIXES:
        return f"has the suffix {suffix}, which is none of an image that can be read" if suffix else "has no suffix"
    return ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_stray(name)
