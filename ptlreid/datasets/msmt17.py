"""MSMT17, V1 and V2 (faces masked), read from its list files.

A line of a list is `0000/0000_000_01_0303morning_0008_0.jpg 0`: a file below the part's folder, and a pid that counts
from 0 within the part. The third field of a file's name is the camera.
"""

from __future__ import annotations

import re
from pathlib import Path

from ptlreid.datasets._source_files import gather_splits
from ptlreid.datasets.reader import (
    DatasetInfo,
    Fault,
    FaultError,
    Progress,
    Records,
    Reject,
    Splits,
    find_layout,
    is_folder,
    locate,
    refuse,
)

_TEST = {"query_images": 11659, "query_identities": 3060, "gallery_images": 82161, "gallery_identities": 3060}
_TRAIN = {"train_images": 30248, "train_identities": 1041, **_TEST, "cameras": 15}
_WITH_VAL = {**_TRAIN, "train_images": 32621}

INFO = DatasetInfo(
    title="MSMT17",
    names={"msmt17": "v1"},
    variants=("v1", "v1-val", "v2", "v2-val"),
    full_variants={"v1": "v1-all", "v2": "v2-all"},  # with the validation images if their list is there
    folders=("msmt17-v{variant[1]}", "MSMT17_V{variant[1]}", "msmt17", "MSMT17"),
    citation="Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-Identification, CVPR 2018",
    licence="Licence agreement, to be signed before the download.",
    terms="Academic research only; not to be passed on. V2, with masked faces, replaces V1.",
    source="https://www.pkuvmc.com/dataset.html",
    protocol="market",
    counts={"v1": _TRAIN, "v2": _TRAIN, "v1-val": _WITH_VAL, "v2-val": _WITH_VAL},
    paper_ap="trapezoid",  # its evaluation code calls Market-1501's first routine
)

# The folders of training and of test images.
_FOLDERS = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}
_VAL = "list_val.txt"
_LISTS = ("list_train.txt", "list_query.txt", "list_gallery.txt")
# Both parts number pids from 0. Here they are 1 .. 1,041 and 1,042 .. 4,101, so that they share none.
_FIRST_TRAIN, _FIRST_TEST = 1, 1042

_LINE = re.compile(r"(?P<file>(?:[^/]+/)*\d+_\d+_(?P<camid>\d{1,18})_[^/]*) (?P<pid>\d{1,18})")


def read(folder: Path, variant: str = "v1", reject: Reject = refuse) -> Splits:
    """The splits that the list files in `folder` name, in their order; `-val` trains on `list_val.txt` as well.

    The other version, a missing folder or list, and a line that does not give file, pid and camera go to `reject`.
    """
    folder, version = _find_layout(folder, variant, reject)
    train_folder, test_folder = (folder / name for name in _FOLDERS[version])
    train = _read_list(folder / "list_train.txt", reject)
    if variant.endswith(("-val", "-all")):
        train += _read_list(folder / _VAL, reject)
    return Splits(
        name=f"msmt17:{variant}",
        train=_make_records(train_folder, train, _FIRST_TRAIN),
        query=_make_records(test_folder, _read_list(folder / "list_query.txt", reject), _FIRST_TEST),
        gallery=_make_records(test_folder, _read_list(folder / "list_gallery.txt", reject), _FIRST_TEST),
        protocol=INFO.protocol,
    )


def gather(source: Path, target: Path, variant: str, progress: Progress, reject: Reject) -> dict[str, Path]:
    """Link or copy the lists and every image they name into `target`; with the validation images if they are there."""
    version = variant.partition("-")[0]
    try:
        folder = locate(source, _list_wanted(version, variant))
    except FaultError:
        _refuse_other_version(source, version)
        raise
    splits = read(folder, variant if variant.endswith("-val") else f"{version}-all", reject)
    lists = [folder / name for name in (*_LISTS, _VAL) if (folder / name).is_file()]
    return gather_splits(folder, splits, target, progress, reject, lists=lists)


def _read_list(file: Path, reject: Reject) -> list[re.Match[str]]:
    """The valid lines of a list; the others go to `reject`."""
    matches: list[re.Match[str]] = []
    if not file.is_file():  # reported with the layout
        return matches
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = _LINE.fullmatch(line.strip())
        if match and ".." not in match["file"].split("/"):
            matches.append(match)
        elif line.strip():
            remedy = (
                f"Expected a line such as `0000/0000_000_01_0303morning_0008_0.jpg 0` as line {number}. Unpack the "
                "list again."
            )
            reject(Fault("name", file, f"{line.strip()!r} does not give file, pid and camera", remedy))
    return matches


def _make_records(folder: Path, lines: list[re.Match[str]], first_pid: int) -> Records:
    paths = [folder / line["file"] for line in lines]
    pids = [first_pid + int(line["pid"]) for line in lines]
    return Records.make(paths, pids, [int(line["camid"]) for line in lines], source="msmt17")


def _find_layout(folder: Path, variant: str, reject: Reject) -> tuple[Path, str]:
    """The folder with lists and images, and the version that it holds; what is missing or wrong goes to `reject`."""
    version = variant.partition("-")[0]
    other = "v2" if version == "v1" else "v1"
    places = {name: find_layout(folder, (*_FOLDERS[name], *_LISTS), lambda fault: None, "") for name in _FOLDERS}
    images = {name: [is_folder(place / part) for part in _FOLDERS[name]] for name, place in places.items()}
    if sum(images[other]) > sum(images[version]):
        reject(_describe_other_version(places[other], other))
        version = other
    place = find_layout(folder, _list_wanted(version, variant), reject, "Copy it there, or prepare the dataset again.")
    return place, version


def _list_wanted(version: str, variant: str) -> tuple[str, ...]:
    return (*_FOLDERS[version], *_LISTS, *([_VAL] if variant.endswith("-val") else []))


def _refuse_other_version(source: Path, version: str) -> None:
    """Raise `DataError` if MSMT17's other version is in `source`, or below it."""
    other = "v2" if version == "v1" else "v1"
    try:
        folder = locate(source, (*_FOLDERS[other], *_LISTS))
    except FaultError:
        return
    raise FaultError(_describe_other_version(folder, other))


def _describe_other_version(folder: Path, version: str) -> Fault:
    """The fault that `folder` holds `version`, which was not asked for."""
    wanted = "V1" if version == "v2" else "V2"
    remedy = f"Use the name msmt17:{version}, or get {wanted}."
    return Fault("variant", folder, f"is MSMT17 {version.upper()}, not {wanted}", remedy)
