"""The user's own images, made a dataset by `ptlreid prepare folder` and used by the name it was given there."""

from __future__ import annotations

import csv
from pathlib import Path

from ptlreid.datasets._about import DatasetInfo
from ptlreid.datasets._faults import Fault, FaultError, Reject, refuse
from ptlreid.datasets._link_or_copy import link_or_copy_as
from ptlreid.datasets._own_images import OwnImage, assign_numbers, find_images
from ptlreid.datasets._split import PARTS, draw_split, protocol_for
from ptlreid.errors import DataError
from ptlreid.files import atomic_write, read_json, write_json
from ptlreid.progress import Progress
from ptlreid.records import DISTRACTOR, Records, Splits
from ptlreid.settings import OwnImagesSettings

ABOUT = DatasetInfo(
    title="Own images",
    names={"folder": ""},
    folders=("{name}",),
    citation="Yours",
    licence="Yours",
    terms="Use images of people only where they, the law and the terms of the data allow it.",
    source="ptlreid prepare folder --source FOLDER --name NAME",
    protocol="market; any-camera where no person was seen by two cameras",
)

SPLIT = "split.csv"
RULES = "rules.json"
_COLUMNS = ("path", "pid", "camid", "split", "origin")


def read(folder: Path, variant: str = "", reject: Reject = refuse) -> Splits:
    """The splits that `split.csv` in `folder` tells, under the protocol of `rules.json`, named after the folder.

    A listed image that is not there goes to `reject`. Raises `DataError` when a row is not what `prepare` wrote.
    """
    name = folder.resolve().name
    with (folder / SPLIT).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    parts: dict[str, tuple[list[Path], list[int], list[int]]] = {part: ([], [], []) for part in PARTS}
    for line, row in enumerate(rows, start=2):
        try:
            paths, pids, camids = parts[row["split"]]
            path, pid, camid = folder / row["path"], int(row["pid"]), int(row["camid"])
        except (KeyError, TypeError, ValueError):
            remedy = f"Expected {','.join(_COLUMNS)}; remove {folder} and prepare it again."
            raise FaultError(Fault("name", folder / SPLIT, f"line {line} is not a row of a split", remedy)) from None
        if not path.is_file():
            reject(Fault("missing", path, f"is in {SPLIT}, but not there", "Restore it, or prepare again."))
            continue
        paths.append(path)
        pids.append(pid)
        camids.append(camid)
    train, query, gallery = (Records.make(*parts[part], source=name) for part in PARTS)
    protocol = read_json(folder / RULES)["protocol"]
    return Splits(name, train.select(train.pids > DISTRACTOR), query, gallery, protocol)


def gather(source: Path, target: Path, config: OwnImagesSettings, progress: Progress) -> None:
    """Put the crops in `source` into `target` with names that tell person and camera, their split and its rules.

    The same crops and the same seed give the same bytes of `split.csv`. Raises `DataError` for a name that is not
    Unicode, as some old archives have them.
    """
    crops = find_images(source)
    _check_names(crops)
    pids = assign_numbers((crop.identity for crop in crops), keep_special=crops[0].special)
    camids = assign_numbers((crop.camera for crop in crops), keep_special=False)
    labelled = [(pids[crop.identity], camids[crop.camera], crop) for crop in crops]
    parts = draw_split([(pid, camid, crop.split) for pid, camid, crop in labelled], config.seed, config.test_share)
    names = [_name(number, *one) for number, one in enumerate(labelled, start=1)]
    link_or_copy_as(dict(zip(names, (crop.file for crop in crops), strict=True)), target, progress)
    with atomic_write(target / SPLIT) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for name, (pid, camid, crop), part in zip(names, labelled, parts, strict=True):
            writer.writerow((name, pid, camid, part, crop.origin))
    if any(name != str(number) for name, number in camids.items()):
        progress.note(f"cameras: {', '.join(f'{number} = {name}' for name, number in camids.items())}")
    judged = [(pid, camid, part) for (pid, camid, _), part in zip(labelled, parts, strict=True)]
    protocol = protocol_for(judged)
    write_json(target / RULES, {"protocol": protocol, "seed": config.seed, "test_share": config.test_share})
    if protocol == "any-camera":
        progress.note("No person was seen by two cameras: matches in the same camera count (protocol any-camera).")


def _check_names(crops: list[OwnImage]) -> None:
    for crop in crops:
        try:
            crop.origin.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{str(crop.file)!r}: the name is not UTF-8, which {SPLIT} is written in. Rename the file or folder, "
                "as with `convmv -f latin1 -t utf8 -r --notest FOLDER`, and prepare again."
            ) from None


def _name(number: int, pid: int, camid: int, crop: OwnImage) -> str:
    person = f"{pid:04d}" if pid >= 0 else str(pid)
    return f"images/{person}_c{camid}_{number:06d}{crop.file.suffix.lower()}"
