"""The user's own images, turned into a dataset by `ptlreid prepare folder` and used by the name given there."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ptlreid.datasets._left_out import count_left_out, describe_left_out, write_left_out
from ptlreid.datasets._own_image import OwnImage, assign_numbers
from ptlreid.datasets._own_images import Found, find_images
from ptlreid.datasets._split import PARTS, choose_protocol, split_images
from ptlreid.datasets.reader import (
    DatasetInfo,
    Fault,
    FaultError,
    Progress,
    Records,
    Reject,
    Splits,
    link_or_copy_as,
    refuse,
)
from ptlreid.errors import DataError
from ptlreid.files import atomic_write
from ptlreid.json_files import read_json, write_json
from ptlreid.records import UNLABELLED
from ptlreid.schemas import Rules
from ptlreid.settings import OwnImagesSettings

__all__ = ["INFO", "count_left_out", "gather", "read", "read_cameras"]

INFO = DatasetInfo(
    title="Own images",
    names={"folder": ""},
    folders=("{name}",),
    citation="Yours",
    licence="Yours",
    terms="Use images of people only where they, the law and the terms of the data allow it.",
    source="ptlreid prepare folder --source FOLDER --name NAME",
    protocol="market; any-camera if no identity was seen by two cameras",
)

SPLIT = "split.csv"
RULES = "rules.json"
IDENTITIES, CAMERAS = "identities.csv", "cameras.csv"
_COLUMNS = ("path", "pid", "camid", "split", "origin")
_SHOWN = 20
_FEW = 20  # images of a camera: more than most folders of an identity hold
_Row = tuple[str, int, int, str, str]  # in the order of the columns


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits listed in `split.csv` of `folder`, with the protocol of `rules.json`, named after the folder.

    Training images have no identities if `rules.json` says so. A listed image that does not exist goes to `reject`.
    Raises `DataError` for a row that `prepare` did not write.
    """
    name = folder.resolve().name
    remedy = f"Expected {','.join(_COLUMNS)}. Remove {folder} and prepare it again."
    parts: dict[str, tuple[list[Path], list[int], list[int]]] = {part: ([], [], []) for part in PARTS}
    try:
        with (folder / SPLIT).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeError, csv.Error) as error:
        raise FaultError(Fault("layout", folder / SPLIT, f"cannot be read as CSV ({error})", remedy)) from error
    for line, row in enumerate(rows, start=2):
        try:
            paths, pids, camids = parts[row["split"]]
            path, pid, camid = PurePosixPath(row["path"]), np.int64(row["pid"]), np.int64(row["camid"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise FaultError(Fault("name", folder / SPLIT, f"line {line} is not a row of a split", remedy)) from None
        if path.is_absolute() or ".." in path.parts:
            raise FaultError(Fault("name", folder / SPLIT, f"line {line} names a file outside {folder}", remedy))
        if not (folder / path).is_file():
            fault = f"is in {SPLIT} but does not exist"
            reject(Fault("missing", folder / path, fault, "Restore it, or prepare again."))
            continue
        paths.append(folder / path)
        pids.append(int(pid))
        camids.append(int(camid))
    rules = read_json(folder / RULES, Rules, f"Remove {folder} and prepare it again.")
    if rules.get("images", len(rows)) != len(rows):
        fault = f"lists {len(rows):,} images, but `prepare` wrote {rules['images']}"
        raise FaultError(Fault("layout", folder / SPLIT, fault, remedy))
    train, query, gallery = (Records.make(*parts[part], source=name) for part in PARTS)
    if rules.get("unlabelled"):
        return Splits(name, train, query, gallery, rules["protocol"]).without_identities()
    return Splits(name, train.select(train.pids >= 0), query, gallery, rules["protocol"])


def gather(
    source: Path, target: Path, settings: OwnImagesSettings, progress: Progress, reject: Reject
) -> dict[str, Path]:
    """Link or copy the images in `source` into `target`, named after pid and camera, and write split and rules.

    The same images and the same seed give the same bytes of `split.csv`. Raises `DataError` for a name that is not
    UTF-8, as in some old archives.
    """
    layout, pattern, unlabelled = settings.layout, settings.pattern, settings.unlabelled
    found = find_images(source, layout=layout, pattern=pattern, unlabelled=unlabelled, reject=reject)
    images = found.images
    _check_encoding(images)
    pids = assign_numbers(image.identity for image in images)
    camids = assign_numbers(image.camera for image in images)
    labelled = [(pids[image.identity], camids[image.camera], image.split) for image in images]
    parts = split_images(labelled, seed=settings.seed, test_share=settings.test_share)
    rows = [
        (_make_name(number, pid, camid, image), pid, camid, part, image.origin)
        for number, (image, (pid, camid, _), part) in enumerate(zip(images, labelled, parts, strict=True), start=1)
    ]
    _note_reading(found, rows, camids, progress)
    if unlabelled:
        _note_cameras(rows, camids, progress)
    originals = {row[0]: image.file for row, image in zip(rows, images, strict=True)}
    files = link_or_copy_as(originals, target, progress, reject)
    with atomic_write(target / SPLIT) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    _write_names(target / IDENTITIES, "pid", pids)
    _write_names(target / CAMERAS, "camid", camids)
    write_left_out(target, found.left_out)
    protocol = choose_protocol([(pid, camid, part) for _, pid, camid, part, _ in rows])
    rules = {"protocol": protocol, "seed": settings.seed, "test_share": settings.test_share, "images": len(rows)}
    write_json(target / RULES, {**rules, "unlabelled": True} if unlabelled else rules)
    if protocol == "any-camera":
        progress.note("No identity was seen by two cameras: matches by the same camera count (protocol any-camera).")
    return files


def _note_reading(found: Found, rows: list[_Row], camids: Mapping[str, int], progress: Progress) -> None:
    """Say how the source was understood, and what was left out."""
    progress.note(f"read as {found.reading}: {_describe_rows(rows)}")
    if any(name != str(number) for name, number in camids.items()):
        names = [f"{number} = {name}" for name, number in camids.items()]
        progress.note(f"cameras: {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}")
    for line in (*found.notes, *describe_left_out(found.left_out)):
        progress.note(line)


def _note_cameras(rows: list[_Row], camids: Mapping[str, int], progress: Progress) -> None:
    """Say what is doubtful about the cameras of images without identities."""
    camids_of_train = [camid for _, _, camid, part, _ in rows if part == "train"]
    train, images = set(camids_of_train), len(camids_of_train)
    if len(train) > 1 and images < _FEW * len(train):
        progress.note(
            f"{images:,} training images by {len(train):,} cameras: on average, fewer than {_FEW} of each. If folders "
            "of something else were taken for cameras, choose another --layout"
        )
    if len(train) == 1:
        progress.note(
            "all training images are of one camera. If there are more, name them by folders (--layout camera), in the "
            "file names (_c2) or with --pattern"
        )
    new = [name for name, camid in camids.items() if camid not in train]
    if new:
        progress.note(f"cameras of test images without a training image: {', '.join(new[:_SHOWN])}")


def _describe_rows(rows: list[_Row]) -> str:
    """Numbers of identities and cameras, which show a tree that was misread at once."""
    train = {pid for _, pid, _, part, _ in rows if part == "train"}
    test = {pid for _, pid, _, part, _ in rows if part != "train" and pid >= 0}
    cameras = len({camid for _, _, camid, _, _ in rows})
    both = f" ({len(train & test):,} in both)" if train & test else ""
    trained = f"{len(train):,} training"
    if train == {UNLABELLED}:
        trained = f"{sum(part == 'train' for _, _, _, part, _ in rows):,} training images without identities"
    return f"{trained} and {len(test):,} test identities{both}, {cameras:,} {'camera' if cameras == 1 else 'cameras'}"


def read_cameras(folder: Path) -> dict[str, int]:
    """The numbers of the cameras of own images in `folder`, by what the source called them; none for other datasets."""
    if not (folder / CAMERAS).is_file():
        return {}
    with (folder / CAMERAS).open(encoding="utf-8", newline="") as stream:
        return {row["name"]: int(row["camid"]) for row in csv.DictReader(stream)}


def _write_names(file: Path, column: str, numbers: Mapping[str, int]) -> None:
    """What the source calls the identities or cameras, by their numbers here."""
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((column, "name"))
        writer.writerows((number, name) for name, number in numbers.items())


def _check_encoding(images: list[OwnImage]) -> None:
    for image in images:
        try:
            image.origin.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{str(image.file)!r}: the name is not UTF-8, the encoding of {SPLIT}. Rename the file or folder, "
                "for example with `convmv -f latin1 -t utf8 -r --notest FOLDER`, and prepare again."
            ) from None


def _make_name(number: int, pid: int, camid: int, image: OwnImage) -> str:
    identity = f"{pid:04d}" if pid >= 0 else str(pid)
    return f"images/{identity}_c{camid}_{number:06d}{image.file.suffix.lower()}"
