"""The user's own images with what their places or a CSV tell: who is on them, and which camera took them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ptlreid.datasets import market
from ptlreid.datasets._link_or_copy import IMAGE_SUFFIXES, is_image, is_stray
from ptlreid.errors import DataError
from ptlreid.records import JUNK

_PARTS = ("", "train", "test", "query", "gallery")
_CAMERA = re.compile(r"(?:^|[_\-. ])c(?:am(?:era)?)?[_\-]?(\d+)", re.IGNORECASE)
_FORMS = (
    "Expected a folder for each person, names such as 0002_c1s1_000451_03.jpg, Market-1501's layout, or a CSV with "
    "the columns path,pid,camid and, if you like, split."
)


@dataclass(frozen=True)
class OwnImage:
    """One image. `split`: "" where none was given. `special`: whether pid -1 is junk and pid 0 a distractor."""

    file: Path
    origin: str
    identity: str
    camera: str
    split: str = ""
    special: bool = False


def find_images(source: Path) -> list[OwnImage]:
    """The crops in `source`, a CSV or a folder, in sorted order; `DataError` when it has none of the known forms."""
    if source.is_file():
        if source.suffix.lower() != ".csv":
            raise DataError(f"{source}: neither an archive nor a CSV. {_FORMS}")
        return _of_csv(source)
    folder = _inside(source)
    if all((folder / part).is_dir() for part in market.PARTS):
        splits = {market.TRAIN: "train", market.QUERY: "query", market.GALLERY: "gallery"}
        return [crop for part, split in splits.items() for crop in _of_names(folder / part, source, split)]
    if any(is_image(path) for path in folder.iterdir()):
        return _of_names(folder, source, "")
    return _of_people(folder, source)


def assign_numbers(values: Iterable[str], *, keep_special: bool) -> dict[str, int]:
    """A number for each value: itself where all are different numbers, otherwise 1, 2, ... in sorted order.

    `keep_special`: whether -1 and 0 are numbers that may be kept.
    """
    known = sorted(set(values))
    least = JUNK if keep_special else 1
    if all(re.fullmatch(r"-?[0-9]{1,18}", value) and int(value) >= least for value in known):
        numbers = {value: int(value) for value in known}
        if len(set(numbers.values())) == len(known):
            return numbers
    return {value: number for number, value in enumerate(known, start=1)}


def _inside(source: Path) -> Path:
    """`source`, or the folder of people in it where it holds nothing but one folder, as archives do."""
    folder = source
    while True:
        folders, images = _folders(folder), any(is_image(path) for path in folder.iterdir())
        if images or len(folders) != 1 or not (_folders(folders[0]) or folder == source):
            return folder
        folder = folders[0]


def _of_names(folder: Path, source: Path, split: str) -> list[OwnImage]:
    """Crops whose names are those of Market-1501."""
    inside = _folders(folder)
    if inside and any(any(is_image(path) for path in one.iterdir()) for one in inside):
        raise DataError(f"{folder}: holds images, and folders of images such as {inside[0].name}. {_FORMS}")
    crops = []
    for path in _images(folder):
        pid, camid = market.identity(path.name)
        crops.append(OwnImage(path, _origin(path, source), str(pid), str(camid), split, special=True))
    return crops


def _of_people(folder: Path, source: Path) -> list[OwnImage]:
    """Crops in a folder for each person, and in folders for each camera or with names that tell it."""
    crops = []
    for person in _folders(folder):
        cameras = _folders(person)
        flat = _images(person)
        if cameras and flat:
            raise DataError(f"{person}: holds images, and folders such as {cameras[0].name}. Keep one or the other.")
        crops += [OwnImage(path, _origin(path, source), person.name, _camera(path)) for path in flat]
        for camera in cameras:
            files = _images(camera)
            crops += [OwnImage(path, _origin(path, source), person.name, camera.name) for path in files]
    if not crops:
        raise DataError(f"{source}: holds no image ({', '.join(IMAGE_SUFFIXES)}). {_FORMS}")
    told = [crop for crop in crops if crop.camera]
    if told and len(told) < len(crops):
        silent = next(crop for crop in crops if not crop.camera)
        raise DataError(
            f"{silent.file}: its name tells no camera, that of {told[0].file.name} does. Name the camera in every "
            "file, as in _c2, or in none."
        )
    return crops if told else [OwnImage(crop.file, crop.origin, crop.identity, "1") for crop in crops]


def _camera(path: Path) -> str:
    match = _CAMERA.search(path.stem)
    return str(int(match[1])) if match else ""


def _of_csv(file: Path) -> list[OwnImage]:
    crops = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            missing = {"path", "pid", "camid"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{file}: no column {', '.join(sorted(missing))}. {_FORMS}")
            for row in reader:
                crops.append(_of_row(file, reader.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV ({error}). {_FORMS}") from error
    if not crops:
        raise DataError(f"{file}: has no row. {_FORMS}")
    if len({bool(crop.split) for crop in crops}) > 1:
        raise DataError(f"{file}: some rows have a split and others none. Fill in the column, or leave it out.")
    return sorted(crops, key=lambda crop: crop.origin)


def _of_row(file: Path, line: int, row: dict[str, str]) -> OwnImage:
    values = {key: (row.get(key) or "").strip() for key in ("path", "pid", "camid", "split")}
    empty = [key for key in ("path", "pid", "camid") if not values[key]]
    if empty:
        raise DataError(f"{file}, line {line}: {', '.join(empty)} is empty. Fill it in, or remove the line.")
    if values["split"] not in _PARTS:
        raise DataError(
            f"{file}, line {line}: split is {values['split']!r}, expected train, test, query, gallery or nothing."
        )
    path = file.parent / values["path"]
    if not path.is_file() or path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{file}, line {line}: {path} is not an image that exists. Paths start at the CSV's folder.")
    return OwnImage(path, values["path"], values["pid"], values["camid"], values["split"], special=True)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_image(path) and not is_stray(path.name))


def _origin(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()
