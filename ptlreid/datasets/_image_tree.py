"""The user's own images in folders and by names as in Market-1501: how a tree is read.

Folders are levels, the outermost first. One of them may name parts, one identities, one cameras; the others are `*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from ptlreid.datasets import market
from ptlreid.datasets._left_out import LeftOut
from ptlreid.datasets._own_image import FORMS, OwnImage, parse_part
from ptlreid.datasets._source_files import SourceFile, list_images, skip_common_folders
from ptlreid.datasets.reader import DISTRACTOR, IMAGE_SUFFIXES
from ptlreid.errors import DataError

_CAMERA_IN_NAME = re.compile(
    r"(?:^|[_\-. ])c(?:am(?:era)?)?[_\-]?(\d+)|(?<=\d)c(\d+)(?=t\d)",  # the latter as in MARS: 0001C1T0001F001
    re.IGNORECASE,
)
_CAMERA_FOLDER = re.compile(r"(?:c|cam|camera|view)[_\-. ]?(?:\d+|[a-z])|(?:cam|camera|view)[_\-. ].+", re.IGNORECASE)
_MARKET_NAME = re.compile(r"(?:-1|\d{4,})_c\d+(?:s\d|_|f)", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """One way to read folders: the levels that name identities and cameras; None: the file names do."""

    identity: int | None
    camera: int | None = None

    @property
    def layout(self) -> str:
        """The layout as the option `--layout` names it, without parts."""
        if self.identity is None:
            return "names"
        names = ["*"] * (1 + max(self.identity, self.camera or 0))
        names[self.identity] = "identity"
        if self.camera is not None:
            names[self.camera] = "camera"
        return "/".join(names)


def read_tree(source: Path, layout: str | None) -> tuple[list[OwnImage], str, list[LeftOut]]:
    """The images below `source`, how they were read, and what was left out.

    Without a `layout`, the levels are recognised by their names. Raises `DataError` if two readings fit, or none.
    """
    images, left_out = list_tree(source)
    found, reading, doubles = read_files(source, images, layout)
    return found, reading, left_out + doubles


def read_files(source: Path, images: list[SourceFile], layout: str | None) -> tuple[list[OwnImage], str, list[LeftOut]]:
    """The same for files that are listed already, at least one. `source`: what messages call them."""
    if layout:
        images, reading = _follow_layout(source, images, layout)
    else:
        images, reading = find_reading(source, find_parts(source, images))
    images, doubles = drop_doubles(images)
    parts = "split/" if images[0].part else ""
    return label(images, reading), parts + reading.layout, doubles


def list_tree(source: Path, forms: str = FORMS) -> tuple[list[SourceFile], list[LeftOut]]:
    """The images below `source`, at least one, and what was left out."""
    images, left_out = list_images(source)
    if not images:
        others = f", but other files, such as {left_out[0].path}" if left_out else ""
        raise DataError(f"{source}: holds no image ({', '.join(IMAGE_SUFFIXES)}){others}. {forms}")
    return images, left_out


def parse_camera(name: str) -> str:
    """The camera in a file name, such as 2 in `17_c2.jpg`; "" if there is none."""
    match = _CAMERA_IN_NAME.search(name.rpartition(".")[0])
    return str(int(match[1] or match[2])) if match else ""


def _follow_layout(source: Path, images: list[SourceFile], layout: str) -> tuple[list[SourceFile], Reading]:
    """The images and their reading by the given `layout`; levels below it do not matter."""
    names = layout.split("/")
    if names[0] == "split":
        names = names[1:]
        images = find_parts(source, images)
        if not images[0].part:
            raise DataError(
                f"{source}: no folder is called train, val, test, query or gallery, as the layout {layout} expects. "
                "Rename the folders, or choose another --layout."
            )
    levels = 0 if names == ["names"] else len(names)
    images = keep_levels(source, images, levels, layout)
    if not levels:
        return images, Reading(None)
    return images, Reading(names.index("identity"), names.index("camera") if "camera" in names else None)


def keep_levels(source: Path, images: list[SourceFile], levels: int, layout: str) -> list[SourceFile]:
    """The images without the folders that all are in, each in at least as many folders as `layout` has `levels`."""
    images = skip_common_folders(images, keep=levels)
    shallow = next((image for image in images if len(image.folders) < levels), None)
    if shallow:
        raise DataError(
            f"{source}: {shallow.origin} is in too few folders: expected the layout {layout} for every image. Move it, "
            "or choose another --layout."
        )
    return images


def find_parts(source: Path, images: list[SourceFile]) -> list[SourceFile]:
    """The images with the parts that folders name, if they do, and without these folders and those around them."""
    depth = min(len(image.folders) for image in images)
    levels = [{image.folders[level] for image in images} for level in range(depth)]
    around = next((level for level, names in enumerate(levels) if len(names) > 1 or parse_part(min(names))), depth)
    inner = [replace(image, folders=image.folders[around:]) for image in images]
    within = [image for image in inner if image.folders and parse_part(image.folders[0])]
    if 0 < len(within) < len(images):
        other = next(image for image in inner if not (image.folders and parse_part(image.folders[0])))
        raise DataError(
            f"{source}: {within[0].origin} is in a folder called like a part of a split, but {other.origin} is not: "
            "expected all images in parts, or none. Move the others, or rename the folder if it is an identity's."
        )
    for level, names in enumerate(levels[around:]):
        if all(map(parse_part, names)):
            return [_take_part(image, level) for image in inner]
    return images


def _take_part(image: SourceFile, level: int) -> SourceFile:
    """The image without the folders at `level` that name its part, of which the innermost counts: `test/query`."""
    while len(image.folders) > level and (part := parse_part(image.folders[level])):
        image = image.without(level, part)
    return image


def drop_doubles(images: list[SourceFile]) -> tuple[list[SourceFile], list[LeftOut]]:
    """The images without those of `train` and `val` that are in `train_all` under the same name, and these."""
    everything = {(*image.folders, image.file.name) for image in images if image.part == "train_all"}
    double = [image.part in ("train", "val") and (*image.folders, image.file.name) in everything for image in images]
    kept = [image for image, other in zip(images, double, strict=True) if not other]
    left_out = [image.origin for image, other in zip(images, double, strict=True) if other]
    return kept, [LeftOut("is in the folder of all training images, too", origin) for origin in left_out]


def find_reading(source: Path, images: list[SourceFile]) -> tuple[list[SourceFile], Reading]:
    """The images without the folders that all are in, and the one reading that fits."""
    unnamed = next((image for image in images if not _parse_name(image)), None)
    images = skip_common_folders(images, keep=1 if unnamed else 0)
    levels = [
        [image.folders[level] for image in images] for level in range(min(len(image.folders) for image in images))
    ]
    if levels and (unnamed or not _names_decide(source, images, levels)):
        return images, _read_levels(source, images, levels)
    if unnamed:
        inner = next((image for image in images if image.folders), None)
        fault = f"; others are in folders such as {inner.folders[0]}" if inner else ""
        raise DataError(f"{unnamed.file}: the name gives no pid and camera{fault}. {FORMS}")
    return images, Reading(None)


def _names_decide(source: Path, images: list[SourceFile], levels: list[list[str]]) -> bool:
    """Whether the file names, which are all as in Market-1501, name the identities in place of the folders.

    Frames are numbered like that, too: `anna/17_c2.jpg`. Raises `DataError` if both readings are likely.
    """
    pids = [(_parse_name(image) or (0, 0))[0] for image in images]
    if any(_match(level, pids) for level in levels) or all(name_cameras(level) for level in levels):
        return True
    if all(_MARKET_NAME.match(image.file.name) for image in images):
        _refuse_two(source, images, Reading(None), Reading(0))
    return False


def _read_levels(source: Path, images: list[SourceFile], levels: list[list[str]]) -> Reading:
    """The reading of folders of which every image is in as many as there are `levels`."""
    telling = [level for level, names in enumerate(levels) if len(set(names)) > 1]
    cameras = [level for level in telling if name_cameras(levels[level])]
    others = [level for level in telling if level not in cameras]
    file_cameras = [parse_camera(image.file.name) for image in images]
    if len(telling) < 2:
        if cameras:
            raise DataError(
                f"{source}: folders such as {levels[cameras[0]][0]} name cameras, and none names identities. {FORMS}"
            )
        deep = next((image for image in images if len(image.folders) > len(levels)), None)
        if deep and not all(file_cameras):
            raise DataError(
                f"{source}: some images are in a folder of {deep.folders[0]}, such as {deep.folders[len(levels)]}, and "
                "others are not. Keep one or the other, or choose --layout identity if these are no cameras."
            )
        return Reading(telling[0] if telling else 0)
    if len(cameras) == 1 and others:
        before = [level for level in others if level < cameras[0]]
        if len(before) > 1:
            _refuse_two(source, images, Reading(before[0], cameras[0]), Reading(before[-1], cameras[0]))
        return Reading((before or others)[0], cameras[0])
    first, second = telling[:2]
    number = [len(set(levels[level])) for level in (first, second)]
    if _match(levels[second], file_cameras):
        return Reading(first, second)
    shared = len(set(zip(levels[first], levels[second], strict=True))) > number[1]
    if all(file_cameras) or not shared:
        _refuse_two(source, images, Reading(first), Reading(second))
    if number[1] >= number[0]:  # cameras are usually fewer than identities
        _refuse_two(source, images, Reading(first, second), Reading(second, first))
    return Reading(first, second)


def name_cameras(names: list[str]) -> bool:
    """Whether all of these names of folders are those of cameras, such as `cam1`, `camera_door` or `view-b`."""
    return all(_CAMERA_FOLDER.fullmatch(name) for name in set(names))


def _match(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether two labels of the same images divide them equally."""
    return len(set(some)) == len(set(others)) == len(set(zip(some, others, strict=True))) > 1


def _refuse_two(source: Path, images: list[SourceFile], *readings: Reading) -> NoReturn:
    parts = "split/" if images[0].part else ""
    layouts = [parts + reading.layout for reading in readings]
    found = {}
    for reading, layout in zip(readings, layouts, strict=True):
        labelled = label(images, reading)
        pids, camids = {image.identity for image in labelled}, {image.camera for image in labelled}
        found[layout] = f"{len(pids):,} identities such as {min(pids)}, {len(camids):,} cameras"
    refuse_readings(source, found)


def refuse_readings(source: Path, found: Mapping[str, str]) -> NoReturn:
    """Raise `DataError` that names every layout that fits, with what it finds."""
    readings = [f"{layout} ({what})" for layout, what in found.items()]
    raise DataError(
        f"{source}: can be read as {' or as '.join(readings)}: expected one reading. Choose with --layout "
        f"{' or --layout '.join(found)}."
    )


def label(images: list[SourceFile], reading: Reading) -> list[OwnImage]:
    """The images with identity and camera, as `reading` says."""
    if reading.identity is None:
        return [_label_by_name(image) for image in images]
    return [
        OwnImage(image.file, image.origin, image.folders[reading.identity], camera, image.part)
        for image, camera in zip(images, find_cameras(images, reading.camera), strict=True)
    ]


def find_cameras(images: list[SourceFile], level: int | None) -> list[str]:
    """The cameras that folders at `level` name; without one those in the file names, or one for all images."""
    if level is not None:
        return [image.folders[level] for image in images]
    cameras = [parse_camera(image.file.name) for image in images]
    if any(cameras) and not all(cameras):
        without, named = images[cameras.index("")], images[[bool(camera) for camera in cameras].index(True)]
        raise DataError(
            f"{without.file}: the name gives no camera, but that of {named.file.name} does. Name the camera in every "
            "file, as in _c2, or in none."
        )
    return cameras if any(cameras) else ["1"] * len(images)


def _label_by_name(image: SourceFile) -> OwnImage:
    """The image as named in Market-1501, where 0000 is a distractor, except in training."""
    labels = _parse_name(image)
    if not labels:
        raise DataError(f"{image.file}: the name gives no pid and camera. {FORMS}")
    identity = labels[0] if labels[0] or image.part.startswith("train") else DISTRACTOR
    return OwnImage(image.file, image.origin, str(identity), str(labels[1]), image.part)


def _parse_name(image: SourceFile) -> tuple[int, int] | None:
    """(pid, camid) from a name as in Market-1501; None for another name."""
    try:
        return market.parse_name(image.file.name)
    except DataError:
        return None
