"""The user's own images without identities in folders: which level, if any, names cameras.

Only training images may have no identity. Those of a test part are read as in `_image_tree`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

from ptlreid.datasets._image_tree import (
    drop_doubles,
    find_cameras,
    find_parts,
    find_reading,
    keep_levels,
    label,
    list_tree,
    name_cameras,
    parse_camera,
    read_tree,
    refuse_readings,
)
from ptlreid.datasets._left_out import LeftOut
from ptlreid.datasets._own_image import NO_IDENTITY, TRAINING, UNLABELLED_FORMS, OwnImage
from ptlreid.datasets._source_files import SourceFile
from ptlreid.errors import DataError

_FILES = "files"  # the layout where folders name nothing: file names name cameras, in all or in none
_MOST_LEVELS = 3  # of a layout


def read_camera_tree(source: Path, layout: str | None) -> tuple[list[OwnImage], str, list[LeftOut]]:
    """The images below `source`, how they were read, and what was left out, as `read_tree`.

    A `layout` without identities is that of the training images alone, below the folders of parts. Without one, a level
    names cameras if all its names are those of cameras, or of cameras of the test images. Raises `DataError` if two
    readings fit.
    """
    if layout and ("identity" in layout or "names" in layout):
        return read_tree(source, layout)  # identities of training images are dropped later
    images, left_out = list_tree(source, UNLABELLED_FORMS)
    found, reading, doubles = read_camera_files(source, images, layout)
    return found, reading, left_out + doubles


def read_camera_files(
    source: Path, images: list[SourceFile], layout: str | None
) -> tuple[list[OwnImage], str, list[LeftOut]]:
    """The same for files that are listed already, at least one. `source`: what messages call them."""
    images, doubles = drop_doubles(find_parts(source, images))
    training = [image for image in images if image.part in TRAINING]
    tested = [image for image in images if image.part not in TRAINING]
    found: list[OwnImage] = []
    readings = []
    if tested:
        tested, reading = find_reading(source, tested)
        found = label(tested, reading)
        readings = [f"{reading.layout} for testing"]
    if training:
        known = {image.camera for image in found}
        training, level = _follow(source, training, layout) if layout else _find_level(source, training, known)
        found += _without_identities(training, level)
        readings = [_name_layout(level) + " for training" * bool(tested), *readings]
    return sorted(found, key=lambda image: image.origin), " and ".join(readings), doubles


def _without_identities(images: list[SourceFile], level: int | None) -> list[OwnImage]:
    return [
        OwnImage(image.file, image.origin, NO_IDENTITY, camera, image.part)
        for image, camera in zip(images, find_cameras(images, level), strict=True)
    ]


def _follow(source: Path, images: list[SourceFile], layout: str) -> tuple[list[SourceFile], int | None]:
    """The images and the level of cameras by the given `layout`; levels below it do not matter."""
    names = [] if layout == _FILES else layout.split("/")
    return keep_levels(source, images, len(names), layout), names.index("camera") if names else None


def _find_level(source: Path, images: list[SourceFile], known: Collection[str]) -> tuple[list[SourceFile], int | None]:
    """The images without the folders around all, and the level that names cameras; None: the file names do, or none.

    `known`: cameras of the test images.
    """

    def is_named(names: list[str]) -> bool:
        return name_cameras(names) or set(names) <= set(known)

    while (levels := _list_levels(images)) and len(set(levels[0])) == 1 and not is_named(levels[0]):
        images = [image.without(0) for image in images]
    telling = [level for level, names in enumerate(levels) if len(set(names)) > 1]
    named = [level for level in telling if is_named(levels[level])] or [
        level for level, names in enumerate(levels) if is_named(names)
    ]
    if len(named) == 1:
        return images, named[0]
    if not named and any(parse_camera(image.file.name) for image in images):
        return images, None
    if named or telling:
        _refuse(source, images, [level for level in named or telling if level < _MOST_LEVELS], files=not named)
    flat = next((image for image in images if not image.folders), None)
    inner = next((image for image in images if image.folders), None)
    if flat and inner:
        raise DataError(
            f"{flat.file}: the name gives no camera, and it is in no folder, as others are, such as {inner.origin}: "
            f"expected each image in the folder of its camera. Move it, or choose --layout {_FILES} for one camera."
        )
    return images, None


def _refuse(source: Path, images: list[SourceFile], levels: list[int], *, files: bool) -> NoReturn:
    """Raise `DataError` that names the `levels` which may name cameras and, with `files`, that none may."""
    found = {}
    for level in levels:
        cameras = {image.folders[level] for image in images}
        found[_name_layout(level)] = f"{len(cameras):,} cameras such as {min(cameras)}"
    refuse_readings(source, found | ({_FILES: "one camera"} if files else {}))


def _name_layout(level: int | None) -> str:
    return _FILES if level is None else "*/" * level + "camera"


def _list_levels(images: list[SourceFile]) -> list[list[str]]:
    depth = min(len(image.folders) for image in images)
    return [[image.folders[level] for image in images] for level in range(depth)]
