"""The user's own images with their identities and cameras, from folders and file names or from a CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ptlreid.datasets import market
from ptlreid.datasets.reader import DISTRACTOR, IMAGE_SUFFIXES, is_image, is_stray
from ptlreid.errors import DataError

_PARTS = ("", "train", "test", "query", "gallery")
_CAMERA = re.compile(r"(?:^|[_\-. ])c(?:am(?:era)?)?[_\-]?(\d+)", re.IGNORECASE)
_FORMS = (
    "Expected one folder per identity, names such as 0002_c1s1_000451_03.jpg, Market-1501's layout, or a CSV with the "
    "columns path,pid,camid and, optionally, split."
)


@dataclass(frozen=True)
class OwnImage:
    """One image. `origin`: its path in the source. `split`: "" if none was given.

    `special`: whether pid -1 is junk and pid -2 a distractor.
    """

    file: Path
    origin: str
    identity: str
    camera: str
    split: str = ""
    special: bool = False


def find_images(source: Path) -> list[OwnImage]:
    """The images in `source`, a CSV or a folder, sorted; `DataError` if its layout is unknown."""
    if source.is_file():
        if source.suffix.lower() != ".csv":
            raise DataError(f"{source}: neither an archive nor a CSV. {_FORMS}")
        return _read_csv(source)
    folder = _skip_single_folders(source)
    if all((folder / part).is_dir() for part in market.PARTS):
        splits = {market.TRAIN: "train", market.QUERY: "query", market.GALLERY: "gallery"}
        return [image for part, split in splits.items() for image in _read_names(folder / part, source, split)]
    if any(is_image(path) for path in folder.iterdir()):
        return _read_names(folder, source, "")
    return _read_folders(folder, source)


def assign_numbers(values: Iterable[str], *, keep_special: bool) -> dict[str, int]:
    """A number for each value: the value itself if all are different numbers, otherwise 1, 2, ... in sorted order.

    `keep_special`: whether -2, -1 and 0 may be kept.
    """
    known = sorted(set(values))
    least = DISTRACTOR if keep_special else 1
    if all(re.fullmatch(r"-?[0-9]{1,18}", value) and int(value) >= least for value in known):
        numbers = {value: int(value) for value in known}
        if len(set(numbers.values())) == len(known):
            return numbers
    return {value: number for number, value in enumerate(known, start=1)}


def _skip_single_folders(source: Path) -> Path:
    """`source`, or the folder of identities in it if it contains nothing but one folder, as archives do."""
    folder = source
    while True:
        folders, images = _list_folders(folder), any(is_image(path) for path in folder.iterdir())
        if images or len(folders) != 1 or not (_list_folders(folders[0]) or folder == source):
            return folder
        folder = folders[0]


def _read_names(folder: Path, source: Path, split: str) -> list[OwnImage]:
    """Images named as in Market-1501, where 0000 is a distractor, except in training."""
    subfolders = _list_folders(folder)
    if any(is_image(path) for subfolder in subfolders for path in subfolder.iterdir()):
        raise DataError(f"{folder}: holds images, and folders of images such as {subfolders[0].name}. {_FORMS}")
    images = []
    for path in _list_images(folder):
        pid, camid = market.parse_name(path.name)
        identity = str(pid if pid or split == "train" else DISTRACTOR)
        images.append(OwnImage(path, _relative(path, source), identity, str(camid), split, special=True))
    return images


def _read_folders(folder: Path, source: Path) -> list[OwnImage]:
    """Images in one folder per identity, and in one folder per camera or with the camera in their names."""
    images = []
    for identity in _list_folders(folder):
        cameras = _list_folders(identity)
        flat = _list_images(identity)
        if cameras and flat:
            raise DataError(f"{identity}: holds images, and folders such as {cameras[0].name}. Keep one or the other.")
        images += [OwnImage(path, _relative(path, source), identity.name, _parse_camera(path)) for path in flat]
        for camera in cameras:
            files = _list_images(camera)
            images += [OwnImage(path, _relative(path, source), identity.name, camera.name) for path in files]
    if not images:
        raise DataError(f"{source}: holds no image ({', '.join(IMAGE_SUFFIXES)}). {_FORMS}")
    with_camera = [image for image in images if image.camera]
    if with_camera and len(with_camera) < len(images):
        without = next(image for image in images if not image.camera)
        raise DataError(
            f"{without.file}: the name gives no camera, but that of {with_camera[0].file.name} does. Name the camera "
            "in every file, as in _c2, or in none."
        )
    return images if with_camera else [OwnImage(image.file, image.origin, image.identity, "1") for image in images]


def _parse_camera(path: Path) -> str:
    match = _CAMERA.search(path.stem)
    return str(int(match[1])) if match else ""


def _read_csv(file: Path) -> list[OwnImage]:
    images = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            missing = {"path", "pid", "camid"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{file}: no column {', '.join(sorted(missing))}. {_FORMS}")
            for row in reader:
                images.append(_read_row(file, reader.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV ({error}). {_FORMS}") from error
    if not images:
        raise DataError(f"{file}: has no row. {_FORMS}")
    if len({bool(image.split) for image in images}) > 1:
        raise DataError(f"{file}: some rows have a split and others none. Fill in the column, or leave it out.")
    return sorted(images, key=lambda image: image.origin)


def _read_row(file: Path, line: int, row: dict[str, str]) -> OwnImage:
    values = {key: (row.get(key) or "").strip() for key in ("path", "pid", "camid", "split")}
    empty = [key for key in ("path", "pid", "camid") if not values[key]]
    if empty:
        raise DataError(f"{file}, line {line}: {', '.join(empty)} is empty. Fill it in, or remove the line.")
    if values["split"] not in _PARTS:
        raise DataError(
            f"{file}, line {line}: split = {values['split']!r}: expected train, test, query, gallery or nothing."
        )
    path = file.parent / values["path"]
    if not path.is_file() or path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(
            f"{file}, line {line}: {path} is not an existing image. Give paths relative to the CSV's folder."
        )
    return OwnImage(path, values["path"], values["pid"], values["camid"], values["split"], special=True)


def _list_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def _list_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_image(path) and not is_stray(path.name))


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()
