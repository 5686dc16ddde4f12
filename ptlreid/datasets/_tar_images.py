"""Images in tar files of the WebDataset layout: members with one stem, such as `17.jpg` and `17.json`, are a sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from ptlreid.datasets._image_list import EMPTY, check_labels, unify_numbers
from ptlreid.datasets._left_out import LeftOut
from ptlreid.datasets._own_image import NO_IDENTITY, OwnImage
from ptlreid.datasets._source_files import SourceFile, find_name_fault
from ptlreid.errors import DataError
from ptlreid.records import UNKNOWN_CAMERA
from ptlreid.tar_members import SUFFIX, OpenTar, split_member

_COMPRESSED = re.compile(r".+\.(tar\.(gz|bz2|xz|zst|lz4|Z)|tgz|tbz2?|txz)")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_TARS = 100_000


def name_tars(source: Path) -> list[Path]:
    """The tar files that `source` stands for, which need not exist; none if it is no name of a tar file.

    As in a shell, `{000..123}` stands for each of these numbers, and `{day,night}` for both. `DataError` for a
    compressed tar file, and for a pattern of more than 100,000.
    """
    if _COMPRESSED.fullmatch(source.name):
        _refuse_compressed(source)
    if source.suffix != SUFFIX or source.is_dir():
        return []
    if source.is_file():
        return [source]
    names = [Path(name) for name in islice(_expand(str(source)), _MAX_TARS + 1)]
    if len(names) > _MAX_TARS:
        raise DataError(
            f"{source}: stands for more than {_MAX_TARS:,} tar files, expected at most as many. Correct the numbers in "
            "braces, or give the folder of the files."
        )
    return names


def list_tar(tar: Path, origin: str, folders: tuple[str, ...] = ()) -> tuple[list[SourceFile], list[LeftOut]]:
    """The images in a tar file, sorted by name, and what is left out: what belongs to no image, and hidden files.

    `origin`: what their origins begin with. `folders`: the names of folders that say something about them, to which
    those within the tar file are added; its own name says nothing, as samples come to it by number.
    """
    with open_tar(tar) as content:
        names = content.names()
    faults = {name: fault for name in names if (fault := find_name_fault(name.split("/")))}
    images = [name for name in names if name not in faults]
    keys = {_find_key(name) for name in images} if faults else set()
    left_out = [LeftOut(fault, f"{origin}/{name}") for name, fault in faults.items() if _find_key(name) not in keys]
    files = [SourceFile(tar / name, f"{origin}/{name}", (*folders, *name.split("/")[:-1])) for name in images]
    return files, left_out


def list_tars_in(folder: Path, others: Sequence[LeftOut]) -> tuple[list[SourceFile], list[LeftOut]]:
    """The images in the tar files below a folder without other images, sorted by path, and what is left out.

    `others`: all files that the folder has. `DataError` where one is a compressed tar file.
    """
    images: list[SourceFile] = []
    left_out: list[LeftOut] = []
    for item in others:
        if not item.reason.startswith("has the suffix") or not name_tars(folder / item.path):
            left_out.append(item)
            continue
        more, unused = list_tar(folder / item.path, item.path, tuple(item.path.split("/")[:-1]))
        images += more
        left_out += unused
    return sorted(images, key=lambda image: image.origin), left_out


def note_tars(others: Sequence[LeftOut]) -> list[LeftOut]:
    """What is left out of a folder that has loose images; of tar files there, how they would be read."""
    is_tar = f"has the suffix {SUFFIX},"
    reason = "is a tar file next to loose images, and read only if it is given itself"
    return [replace(one, reason=reason) if one.reason.startswith(is_tar) else one for one in others]


def label_by_samples(files: Sequence[SourceFile]) -> list[OwnImage]:
    """The files with identity and camera as their samples in tar files state them; none if no sample states any.

    They are `pid` and `camid` in a sample's `.json`, numbers or names; without a pid there, the number in its `.cls`. A
    file without a sample has neither. `DataError` for a `.json` that is none, and for a label that is no label.
    """
    labels = [label for tar, part in groupby(files, key=_find_tar) for label in _read_labels(tar, [*part])]
    if not any(pid or camid for pid, camid in labels):
        return []
    pids, camids = (unify_numbers([label[column] for label in labels]) for column in (0, 1))
    return [
        OwnImage(file.file, file.origin, pid or NO_IDENTITY, camid)
        for file, pid, camid in zip(files, pids, camids, strict=True)
    ]


@contextmanager
def open_tar(tar: Path | str) -> Iterator[OpenTar]:
    """The tar file at `tar`; `DataError` where it, or a member, cannot be read."""
    try:
        with OpenTar(tar) as content:
            yield content
    except OSError as error:
        raise DataError(
            f"{tar}: cannot be read ({error.strerror}): expected a tar file of images. Correct its name, or copy it "
            "there again."
        ) from None


def _read_labels(tar: str, files: list[SourceFile]) -> Iterator[tuple[str, str]]:
    """Identity and camera of each file, all of one tar file; "" where they are not known."""
    if not tar:
        yield from [("", "")] * len(files)
        return
    with open_tar(tar) as content:
        for file in files:
            key = _find_key(str(file.file)[len(tar) + 1 :].replace("\\", "/"))
            stated = _read_json(content, tar, f"{key}.json")
            pid, camid = (_as_label(f"{tar}/{key}.json", name, stated.get(name)) for name in ("pid", "camid"))
            if not pid and f"{key}.cls" in content:
                pid = _as_label(f"{tar}/{key}.cls", "pid", content.open(f"{key}.cls").read().decode(errors="replace"))
            camid = "" if camid == str(UNKNOWN_CAMERA) else camid
            check_labels(f"{tar}/{key}", pid, camid)
            yield pid, camid


def _read_json(content: OpenTar, tar: str, name: str) -> dict[str, Any]:
    if name not in content:
        return {}
    try:
        stated = json.loads(content.open(name).read())
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{tar}/{name}: is no JSON ({error}): expected an object such as {{"pid": 7, "camid": 2}}. Write it '
            "again, or choose --layout or --pattern, with which it is not read."
        ) from None
    return stated if isinstance(stated, dict) else {}


def _as_label(where: str, name: str, value: object) -> str:
    """A label as text; "" where it is not known."""
    text = "" if value is None else str(value).strip()
    if text in EMPTY:  # also NaN
        return ""
    if isinstance(value, bool | dict | list) or (isinstance(value, float) and not value.is_integer()):
        raise DataError(
            f"{where}: {name} = {json.dumps(value)}: expected a number without a fraction, or a name. Correct it, or "
            "choose --layout or --pattern, with which it is not read."
        )
    return text


def _find_key(name: str) -> str:
    """What the members of a sample share: the folders, and the name up to its first point."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _find_tar(file: SourceFile) -> str:
    found = split_member(file.file)
    return found[0] if found else ""


def _expand(text: str) -> Iterator[str]:
    """The texts that a pattern with braces stands for; itself if it has none."""
    braces = _BRACES.search(text)
    if not braces:
        yield text
        return
    for part in _parts_of(braces[1]):
        for rest in _expand(text[braces.end() :]):
            yield text[: braces.start()] + part + rest


def _parts_of(choice: str) -> Iterable[str]:
    """What the content of braces stands for: texts with commas between them, or numbers, up or down."""
    limits = _RANGE.fullmatch(choice)
    if not limits:
        return choice.split(",")
    first, last = int(limits[1]), int(limits[2])
    step = 1 if first <= last else -1
    return (str(number).zfill(len(limits[1])) for number in range(first, last + step, step))


def _refuse_compressed(tar: Path) -> None:
    raise DataError(
        f"{tar}: is a compressed tar file: expected one without compression, as images are read by their place in it. "
        "Unpack it (`gunzip`, `unxz`, `unzstd`), or give the images: they are compressed already."
    )
