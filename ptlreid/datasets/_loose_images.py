"""Images that are used where they are, without `prepare`: from folders, tar files, lists, a CSV or as single files.

Nothing about them has to be known. Identities and cameras are those that a CSV, folders or file names give, read as
`prepare` reads them; where nothing gives them, they are unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptlreid.datasets._camera_tree import read_camera_files
from ptlreid.datasets._image_list import read_bare_list, read_text
from ptlreid.datasets._image_tree import parse_camera, read_files
from ptlreid.datasets._left_out import LeftOut, describe_left_out
from ptlreid.datasets._name_pattern import match_files
from ptlreid.datasets._own_image import NO_IDENTITY, OwnImage, assign_numbers
from ptlreid.datasets._source_files import SourceFile, list_images
from ptlreid.datasets._tar_images import label_by_samples, list_tar, list_tars_in, name_tars, note_tars
from ptlreid.datasets.reader import IMAGE_SUFFIXES, Records
from ptlreid.errors import DataError
from ptlreid.file_kinds import identify
from ptlreid.records import UNKNOWN_CAMERA
from ptlreid.tar_members import split_member

STANDARD_INPUT = "-"
_LISTS = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class LooseImages:
    """N images in the order of their source: sorted in a folder or tar file, as listed in a list.

    `name`: what the source is called. `folder`: the folder or tar file that all are in, if one was given. `records`:
    pid -1 where the identity is unknown, camid `UNKNOWN_CAMERA` where the camera is; their source is `name`.
    `identities`, `cameras`: (N,) object arrays of str, what the source calls them, "" where unknown. `notes`: on how
    the source was read.
    """

    name: str
    folder: Path | None
    records: Records
    identities: np.ndarray
    cameras: np.ndarray
    notes: Sequence[str] = ()

    def select(self, rows: np.ndarray) -> LooseImages:
        """The images at `rows`: indices in the order given, or a boolean mask."""
        kept = self.records.select(rows), self.identities[rows], self.cameras[rows]
        return LooseImages(self.name, self.folder, *kept, self.notes)


def find_loose_images(
    sources: Sequence[str],
    *,
    layout: str | None,
    pattern: str | None,
    listed: Sequence[Path] = (),
    labelled: bool = True,
) -> LooseImages:
    """The images of all `sources`, at least one: folders, tar files, lists, a CSV alone, images; `-` is `listed`.

    `layout`, `pattern`: see `find_images`; where they are given, they must fit. Otherwise, images that no reading fits
    have no identities and cameras, and a note says why. Not `labelled`: names and folders are not read. Raises
    `DataError` for a source without images.
    """
    name, folder = _name_source(sources), Path(sources[0]) if len(sources) == 1 else None
    first = folder if folder is not None and folder.is_file() and folder.suffix.lower() in _LISTS else None
    if first is not None and _is_csv(first):
        if layout or pattern:
            raise DataError(
                f"{first}: --{'layout' if layout else 'pattern'} is for folders: a CSV states all. Leave it out."
            )
        return _number(name, None, read_bare_list(first), [])
    files: list[SourceFile] = []
    left_out: list[LeftOut] = []
    for source in sources:
        more, others = _list_source(source, listed, alone=len(sources) == 1)
        files += more
        left_out += others
    if not files:
        raise DataError(
            f"{sources[0]}: holds no image ({', '.join(IMAGE_SUFFIXES)}), expected at least one. Give the folder, the "
            "list, the tar files or the files of your images."
        )
    unknown = [OwnImage(file.file, file.origin, NO_IDENTITY, "") for file in files]
    images, notes = _label(Path(name), files, layout, pattern) if labelled else (unknown, [])
    is_folder = folder is not None and sources[0] != STANDARD_INPUT and (folder.is_dir() or folder in name_tars(folder))
    return _number(name, folder if is_folder else None, images, [*notes, *describe_left_out(left_out)])


def _name_source(sources: Sequence[str]) -> str:
    """A name for features of these sources: that of a single folder or list."""
    if len(sources) > 1 or sources[0] == STANDARD_INPUT or Path(sources[0]).suffix.lower() in IMAGE_SUFFIXES:
        return "images"
    path = Path(sources[0]).resolve()
    return path.name if path.is_dir() else path.stem


def _list_source(source: str, listed: Sequence[Path], *, alone: bool) -> tuple[list[SourceFile], list[LeftOut]]:
    """The images of one source. `alone`: the folder that it is says nothing about them."""
    path = Path(source)
    if source == STANDARD_INPUT:
        return _list_all(listed, listed)
    if path.is_dir():
        images, left_out = list_images(path)
        images, left_out = (images, note_tars(left_out)) if images else list_tars_in(path, left_out)
        if alone:
            return images, left_out
        outer = _folders(path / "image")
        return [SourceFile(one.file, str(one.file), (*outer, *one.folders)) for one in images], left_out
    if path.is_file() and path.suffix.lower() in _LISTS:
        if _is_csv(path):
            raise DataError(f"{source}: a CSV states all of its images: expected it alone. Leave the others out.")
        lines = [Path(line) for line in _read_lines(path)]
        return _list_all([path.parent / line for line in lines], lines)
    if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES and not name_tars(path):
        raise DataError(
            f"{source}: {identify(path)}: expected a folder, a tar file, an image ({', '.join(IMAGE_SUFFIXES)}) or a "
            f"list of images ({', '.join(_LISTS)}). Give one of them."
        )
    return _list_all([path], [path], alone=alone)


def _list_all(
    files: Sequence[Path], origins: Sequence[Path], *, alone: bool = False
) -> tuple[list[SourceFile], list[LeftOut]]:
    """The files, and of tar files the images in them. `origins`: the same as the source calls them."""
    images: list[SourceFile] = []
    left_out: list[LeftOut] = []
    for file, origin in zip(files, origins, strict=True):
        tars, before = name_tars(file), len(str(file)) - len(str(origin))
        for tar in tars:
            more, others = list_tar(tar, str(tar)[before:], () if alone else _folders(origin))
            images += more
            left_out += others
        if not tars:
            member = split_member(file)
            folders = [one for one in _folders(origin) if not member or one != Path(member[0]).name]
            images.append(SourceFile(file, str(origin), tuple(folders)))
    return images, left_out


def _folders(path: Path) -> tuple[str, ...]:
    return tuple(part for part in path.parent.parts if part not in (path.anchor, ".", ".."))


def _is_csv(file: Path) -> bool:
    """Whether the first line of a list names columns."""
    head = next(iter(_read_lines(file)), "").lower()
    return "path" in (column.strip(" \"'") for column in re.split("[,;\t]", head))


def _read_lines(file: Path) -> list[str]:
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"{file}: cannot be read as a list ({error}). Write one path a line, in UTF-8, relative to its folder."
        ) from None
    return [line.strip() for line in lines if line.strip()]


def place_at_site(images: LooseImages, source: str, numbers: Mapping[str, int]) -> LooseImages:
    """The images as taken by the cameras of a dataset. `source`: what its records call it. `numbers`: of its cameras.

    Without `numbers`, cameras that are called by a number have that number. Others are unknown.
    """
    decimal = (name for name in set(images.cameras) if name.isdecimal() and len(name) < 19)  # that fit into int64
    named = dict(numbers) or {name: int(name) for name in decimal}
    camids = np.array([named.get(name, UNKNOWN_CAMERA) for name in images.cameras], dtype=np.int64)
    sources = np.full(len(camids), source, dtype=object)
    return replace(images, records=replace(images.records, camids=camids, sources=sources))


def parse_listed(content: bytes) -> list[Path]:
    """The paths on standard input: one a line or, as `find -print0` writes them, between zero bytes."""
    parts = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [Path(os.fsdecode(part)) for part in parts if part.strip()]


def _label(
    source: Path, files: list[SourceFile], layout: str | None, pattern: str | None
) -> tuple[list[OwnImage], list[str]]:
    """The files with the identities and cameras that a reading gives, in their order, and notes on the reading."""
    if pattern:
        found, reading = match_files(source, files, pattern, unlabelled="(?P<pid>" not in pattern), "names by --pattern"
    elif layout:
        named = "identity" in layout or "names" in layout
        found, reading, _ = (read_files if named else read_camera_files)(source, files, layout)
    else:
        found, reading = _find_labels(source, files)
    read = {(image.file, image.origin): image for image in found}  # lists in two folders may have equal lines
    unknown = [OwnImage(file.file, file.origin, NO_IDENTITY, "") for file in files]
    images = [read.get((image.file, image.origin), image) for image in unknown]
    if not _name_cameras(files, reading, pattern):
        images = [OwnImage(one.file, one.origin, one.identity, "") for one in images]
    identities = _count(len({image.identity for image in images} - {NO_IDENTITY}), "identity", "identities")
    cameras = _count(len({image.camera for image in images} - {""}), "camera", "cameras")
    return images, [f"{source}: {_count(len(files), 'image', 'images')}, read as {reading}: {identities}, {cameras}"]


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}" if number else f"no {several}"


def _name_cameras(files: Sequence[SourceFile], reading: str, pattern: str | None) -> bool:
    """Whether the reading names cameras: one that does not gives all images the camera 1."""
    if pattern:
        return "(?P<camid" in pattern
    return "camera" in reading or any(parse_camera(file.file.name) for file in files)


def _find_labels(source: Path, files: list[SourceFile]) -> tuple[list[OwnImage], str]:
    """The files as their samples in tar files or the one reading that fits labels them; none, with the reason."""
    if found := label_by_samples(files):
        return found, "the identities and cameras of samples in tar files (--layout files for none)"
    try:
        found, reading, _ = read_files(source, files, None)
        return found, f"{reading} (--layout files for none)"
    except DataError as error:
        reason = str(error)
    try:
        found, reading, _ = read_camera_files(source, files, None)
        return found, reading
    except DataError:
        return [], f"files alone ({reason.split(': expected', maxsplit=1)[0].rstrip('.')})"


def _number(name: str, folder: Path | None, images: Sequence[OwnImage], notes: Sequence[str]) -> LooseImages:
    """The images with a number for each identity and each camera."""
    pids = assign_numbers(image.identity for image in images)
    camids = {**assign_numbers(image.camera for image in images if image.camera), "": UNKNOWN_CAMERA}
    records = Records.make(
        [image.file for image in images],
        [pids[image.identity] for image in images],
        [camids[image.camera] for image in images],
        source=name,
    )
    identities, cameras = np.empty(len(images), dtype=object), np.empty(len(images), dtype=object)
    identities[:] = ["" if image.identity == NO_IDENTITY else image.identity for image in images]
    cameras[:] = [image.camera for image in images]
    return LooseImages(name, folder, records, identities, cameras, notes)
