"""The user's own images as listed in a CSV: path, identity, camera and, optionally, part."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ptlreid.datasets._own_image import FORMS, NO_IDENTITY, TRAINING, OwnImage, parse_part
from ptlreid.datasets.reader import DISTRACTOR, IMAGE_SUFFIXES, Fault, Reject, refuse
from ptlreid.errors import DataError
from ptlreid.files import open_regular
from ptlreid.records import UNKNOWN_CAMERA

_REQUIRED = ("path", "pid", "camid")
_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")  # also 7.0, as programs write columns with gaps
EMPTY = ("", "nan", "NaN", "None", "NULL", "<NA>")  # what programs write where there is nothing
_INT64 = 2**63


@dataclass(frozen=True)
class _Row:
    line: int
    image: OwnImage


def read_list(file: Path, reject: Reject = refuse, *, unlabelled: bool) -> tuple[list[OwnImage], list[str]]:
    """The images that the CSV lists, sorted by path, and notes for the user.

    Columns are separated by comma, semicolon or tab; capitals in the header make no difference. Identities that are
    all numbers are compared as numbers, so that 7, 007 and 7.0 are one. If `unlabelled`, training images need no pid,
    and it is not read. A missing image goes to `reject`; any other fault raises `DataError` with its line.
    """
    rows = _read_all(file, reject, unlabelled=unlabelled, bare=False)
    without = next((row for row in rows if not row.image.split), None)
    if without and any(row.image.split for row in rows):
        raise DataError(
            f"{file}, line {without.line}: has no split, but other rows have one. Fill in the column, or leave it out."
        )
    originals = _find_originals(rows)
    _refuse_doubles(file, rows, originals)
    pids = unify_numbers([row.image.identity for row in rows])
    camids = unify_numbers([row.image.camera for row in rows])
    images = [replace(row.image, identity=p, camera=c) for row, p, c in zip(rows, pids, camids, strict=True)]
    return sorted(images, key=lambda image: image.origin), _note_outside(file, originals)


def read_bare_list(file: Path) -> list[OwnImage]:
    """The images that the CSV lists, in its order: only a path is needed, and it may be there twice.

    Without a pid, an image has `NO_IDENTITY`, and without a camid no camera (""). Whether the image exists is not
    checked.
    """
    rows = _read_all(file, refuse, unlabelled=False, bare=True)
    pids = unify_numbers([row.image.identity for row in rows])
    camids = unify_numbers([row.image.camera for row in rows])
    return [replace(row.image, identity=p, camera=c) for row, p, c in zip(rows, pids, camids, strict=True)]


def _read_all(file: Path, reject: Reject, *, unlabelled: bool, bare: bool) -> list[_Row]:
    """Every row, at least one; any fault of the CSV is a `DataError`."""
    try:
        rows = list(_read_rows(file, reject, unlabelled=unlabelled, bare=bare))
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV ({error}). {FORMS}") from error
    if not rows:
        raise DataError(f"{file}: has no row. {FORMS}")
    return rows


def unify_numbers(values: list[str]) -> list[str]:
    """The values, in one form if all are numbers, so that 7, 007 and 7.0 are the same."""
    numbers = all(_NUMBER.fullmatch(value) for value in values if value)
    return [value and str(_to_number(value)) for value in values] if numbers else values


def read_text(file: Path) -> str:
    """The text in a list, as UTF-8 or UTF-16; `OSError` or `UnicodeError` if it cannot be read."""
    with open_regular(file) as stream:
        content = stream.read()
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def _read_rows(file: Path, reject: Reject, *, unlabelled: bool, bare: bool) -> Iterator[_Row]:
    lines = io.StringIO(read_text(file), newline="")
    required = ("path",) if bare else tuple(name for name in _REQUIRED if not (unlabelled and name == "pid"))
    names, separator = _read_header(file, lines.readline(), required)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    for row in reader:
        line = reader.line_num + 1
        if not any(value.strip() for value in row):
            continue
        if len(row) > len(names):
            raise DataError(
                f"{file}, line {line}: {len(row)} values, but the header names {len(names)} columns. Put a value "
                f"that contains {separator!r} in double quotes."
            )
        values = {name: value.strip() for name, value in zip(names, row, strict=False)}
        if unlabelled and parse_part(values.get("split", "")) in TRAINING:
            values["pid"] = NO_IDENTITY
        if bare and values.get("pid", "") in EMPTY:
            values["pid"] = NO_IDENTITY
        if bare and values.get("camid", "") in (*EMPTY, str(UNKNOWN_CAMERA)):
            values["camid"] = ""
        image = _read_row(file, line, values, ("path", "pid") if bare else _REQUIRED)
        if bare or (image.file.is_file() and image.file.suffix.lower() in IMAGE_SUFFIXES):
            yield _Row(line, image)
        else:
            fault = f"is not an existing image, but {file}, line {line}, names it"
            reject(Fault("missing", image.file, fault, "Give paths relative to the CSV's folder."))


def _read_header(file: Path, header: str, required: tuple[str, ...]) -> tuple[list[str], str]:
    """The names of the columns, without capitals, and the separator: the one that finds most of them."""
    found: dict[str, list[str]] = {}
    for separator in (",", ";", "\t"):
        fields = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        found[separator] = [field.strip().lower() for field in fields]
    separator = max(found, key=lambda separator: len({*_REQUIRED} & {*found[separator]}))
    names = found[separator]
    missing = [name for name in required if name not in names]
    if missing:
        raise DataError(f"{file}: no column {', '.join(missing)}. {FORMS}")
    twice = [name for name in (*_REQUIRED, "split") if names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: two columns are called {twice[0]}: expected one. Rename or remove the other.")
    return names, separator


def _read_row(file: Path, line: int, values: dict[str, str], required: tuple[str, ...]) -> OwnImage:
    path, pid, camid, split = (values.get(name, "") for name in (*_REQUIRED, "split"))
    empty = [name for name in required if values.get(name, "") in EMPTY]
    if empty:
        hint = ", or add --unlabelled if the identities of training images are not known" if empty == ["pid"] else ""
        raise DataError(f"{file}, line {line}: {', '.join(empty)} is empty. Fill it in, or remove the line{hint}.")
    part = "" if split in EMPTY else parse_part(split)
    if split not in EMPTY and not part:
        raise DataError(
            f"{file}, line {line}: split = {split!r}: expected train, val, test, query, gallery or nothing."
        )
    check_labels(f"{file}, line {line}", pid, camid)
    image = file.parent / path
    if not image.is_file() and "\\" in path:  # written on Windows
        path = path.replace("\\", "/")
        image = file.parent / path
    return OwnImage(image, path, pid, camid, part)


def check_labels(where: str, pid: str, camid: str) -> None:
    """Raise `DataError` for a number that no identity or camera has. `where`: what the message begins with."""
    for name, value, least in (("pid", pid, DISTRACTOR), ("camid", camid, 0)):
        if _NUMBER.fullmatch(value) and not least <= _to_number(value) < _INT64:
            raise DataError(f"{where}: {name} = {value}: expected a number from {least} to 2^63 - 1, or a name.")


def _to_number(value: str) -> int:
    """The number that `value` writes; 2^63 for any that is longer, as Python reads no more than 4,300 digits."""
    digits = value.partition(".")[0]
    return int(digits) if len(digits.lstrip("+-0")) < 20 else _INT64


def _find_originals(rows: list[_Row]) -> list[Path]:
    """The files that the rows lead to, whatever links and `..` are on the way."""
    resolve = cache(Path.resolve)
    files = [row.image.file for row in rows]
    return [file.resolve() if file.is_symlink() else resolve(file.parent) / file.name for file in files]


def _refuse_doubles(file: Path, rows: list[_Row], originals: list[Path]) -> None:
    """Raise `DataError` for an image that two lines name, by the same path or by another that leads to it."""
    first: dict[Path, _Row] = {}
    for row, original in zip(rows, originals, strict=True):
        earlier = first.setdefault(original, row)
        if earlier is not row:
            raise DataError(
                f"{file}, lines {earlier.line} and {row.line}: both name the image {row.image.origin}: expected each "
                "image once. Remove one of the lines."
            )


def _note_outside(file: Path, originals: list[Path]) -> list[str]:
    """A note on the images outside the CSV's folder, which may be meant or not."""
    folder = file.parent.resolve()
    outside = [original for original in originals if not original.is_relative_to(folder)]
    number = f"{len(outside):,} image{'s are' if len(outside) > 1 else ' is'}"
    return [f"{number} outside the folder of {file}: first {outside[0]}"] if outside else []
