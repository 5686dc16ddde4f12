"""`ptlreid prepare NAME --check`: everything that is wrong with a dataset, each with its file and its remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.datasets import DatasetRef, Fault, FaultError
from ptlreid.datasets._link_or_copy import is_image, is_stray
from ptlreid.errors import DataError
from ptlreid.progress import Progress
from ptlreid.records import DISTRACTOR, Records, Splits
from ptlreid.retrieval import protocols
from ptlreid.retrieval.protocols import Judge
from ptlreid.workflows.image_check import check_images

_AGAIN = "Get or unpack the dataset again, and prepare it from there."
_DECODING = {
    "missing": ("is listed, but cannot be read", _AGAIN),
    "empty": ("has no bytes", "Copy it again, or prepare the dataset again."),
    "truncated": ("ends before the image does", "Copy it again, or prepare the dataset again."),
    "undecodable": ("is no image that can be decoded", "Copy it again, or take it out of the dataset."),
}


@dataclass(frozen=True)
class Report:
    """What a check found: the numbers of each part, and the faults, serious ones first."""

    folder: Path
    parts: Mapping[str, Mapping[str, int]]
    faults: list[Fault]

    @property
    def num_serious(self) -> int:
        return sum(fault.serious for fault in self.faults)

    def describe(self) -> dict[str, Any]:
        """The report for JSON."""
        findings = [
            {
                "kind": fault.kind,
                "file": str(fault.file),
                "fault": fault.fault,
                "remedy": fault.remedy,
                "serious": fault.serious,
            }
            for fault in self.faults
        ]
        return {"folder": str(self.folder), **self.parts, "findings": findings, "serious": self.num_serious}


def check(found: DatasetRef, folder: Path, progress: Progress) -> Report:
    """The report on the dataset in `folder`; every image is decoded, and the files are left as they are."""
    faults: list[Fault] = []
    try:
        splits = found.read(folder, reject=lambda fault: None)
        whole = found.read(folder, whole=True, reject=faults.append)
    except FaultError as error:
        return Report(folder, {}, [error.fault])
    except (DataError, OSError, ValueError) as error:
        return Report(folder, {}, [Fault("layout", folder, f"cannot be read ({error})", _AGAIN)])
    shown = _Shown.of(whole)
    looks = check_images(shown.paths, progress)
    for path, one in zip(shown.paths, looks, strict=True):
        if one.state != "fine":
            fault, remedy = _DECODING[one.state]
            faults.append(Fault(one.state, path, f"{fault} ({one.error})" if one.error else fault, remedy))
    faults += _same_content(shown, [one.digest for one in looks])
    faults += _in_train_and_test(whole)
    faults += _without_match(splits)
    faults += _strays(folder, shown.paths, {fault.file for fault in faults})
    faults += _wrong_counts(found, folder, splits, whole)
    faults += _packs(folder, {path: one.digest for path, one in zip(shown.paths, looks, strict=True)}, progress)
    order = sorted(faults, key=lambda fault: (not fault.serious, fault.kind, str(fault.file), fault.fault))
    return Report(folder, {name: part.numbers() for name, part in _named(splits)}, order)


@dataclass(frozen=True)
class _Shown:
    """Every file once, with the person on it and whether training or testing uses it first."""

    paths: list[Path]
    pids: list[int]
    sides: list[str]

    @classmethod
    def of(cls, splits: Splits) -> _Shown:
        seen: dict[Path, tuple[int, str]] = {}
        for name, part in _named(splits):
            for path, pid in zip(part.paths, part.pids.tolist(), strict=True):
                seen.setdefault(path, (pid, "train" if name == "train" else "test"))
        return cls(list(seen), [pid for pid, _ in seen.values()], [side for _, side in seen.values()])


def _named(splits: Splits) -> Iterator[tuple[str, Records]]:
    yield from zip(("train", "query", "gallery"), splits.parts, strict=True)


def _same_content(shown: _Shown, digests: list[str]) -> Iterator[Fault]:
    """Files that hold the same bytes as one before them: serious where they are in training and test, or two people."""
    first: dict[str, int] = {}
    for number, digest in enumerate(digests):
        before = first.setdefault(digest, number) if digest else number
        if before == number:
            continue
        path, other = shown.paths[number], shown.paths[before]
        pids = shown.pids[number], shown.pids[before]
        if shown.sides[number] != shown.sides[before]:
            yield Fault("leak", path, f"is for testing and holds the same as {other}, for training", "Remove one.")
        elif min(pids) > DISTRACTOR and pids[0] != pids[1]:
            yield Fault("conflict", path, f"holds the same as {other}, as another person", "Remove the wrong one.")
        else:
            yield Fault("duplicate", path, f"holds the same as {other}", "Remove one, if you may.", serious=False)


def _in_train_and_test(splits: Splits) -> Iterator[Fault]:
    train = set(splits.train.pids.tolist())
    first: dict[int, Path] = {}
    for part in (splits.query, splits.gallery):
        for path, pid in zip(part.paths, part.pids.tolist(), strict=True):
            if pid > DISTRACTOR and pid in train:
                first.setdefault(pid, path)
    for pid, path in sorted(first.items()):
        yield Fault("overlap", path, f"shows person {pid}, who is in training too", "Keep each person in one part.")


def _without_match(splits: Splits) -> Iterator[Fault]:
    """Queries that no gallery image answers. Serious where that holds for all, as evaluation is refused then."""
    if not splits.has_test:
        return
    protocol = protocols.find_protocol(splits.protocol)
    judge = Judge(protocol, splits.gallery.pids, splits.gallery.camids)
    people = zip(splits.query.pids.tolist(), splits.query.camids.tolist(), strict=True)
    lonely = [row for row, (pid, camid) in enumerate(people) if not len(judge.verdict(pid, camid).matches)]
    cameras = np.unique(np.concatenate([splits.query.camids, splits.gallery.camids]))
    if len(lonely) == len(splits.query) and len(cameras) == 1:
        fault = f"every test image is by camera {cameras[0]}, and the protocol {splits.protocol} asks for two"
        remedy = "Name cameras as in 0002_c1s1_000451_03.jpg, or make it own data: `ptlreid prepare folder`."
        yield Fault("cameras", splits.query.paths[0].parent, fault, remedy)
        return
    for row in lonely:
        fault = f"has no match in the gallery under the protocol {splits.protocol}, and is left out of scores"
        remedy = "Check its name, or look for missing gallery images."
        yield Fault("no-match", splits.query.paths[row], fault, remedy, serious=len(lonely) == len(splits.query))


def _strays(folder: Path, paths: list[Path], reported: set[Path]) -> Iterator[Fault]:
    """Files that are no part of the dataset: what file managers leave, and whatever lies among the images."""
    used = {folder, *paths} | reported
    homes = {path.parent for path in paths}
    for at, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(at) / name for name in sorted(names)):
            if is_stray(path.name):
                yield Fault("stray", path, "was left by a file manager", "Remove it.", serious=False)
            elif path.parent in homes and path not in used:
                fault = "is in no list or part" if is_image(path) else "is no image"
                yield Fault("stray", path, f"{fault}, and is not used", "Remove it.", serious=False)


def _wrong_counts(found: DatasetRef, folder: Path, splits: Splits, whole: Splits) -> Iterator[Fault]:
    numbers = {f"{name}_{what}": count for name, part in _named(splits) for what, count in part.numbers().items()}
    numbers["cameras"] = len(np.unique(np.concatenate([part.camids for part in whole.parts])))
    for what, published in found.counts.items():
        if numbers[what] != published:
            words = what.replace("_", " ")
            fault = f"{numbers[what]:,} {words}, {published:,} were published"
            yield Fault("counts", folder, fault, _AGAIN + _looks_like(found, numbers))


def _packs(folder: Path, digests: Mapping[Path, str], progress: Progress) -> Iterator[Fault]:
    for file in sorted(folder.glob("packed-*.h5")):
        from ptlreid.workflows.pack import faults  # HDF5, for those who have packed

        yield from faults(file, digests, progress)


def _looks_like(found: DatasetRef, numbers: Mapping[str, int]) -> str:
    """Where the numbers are those of another variant, its name."""

    for variant, published in found.about.counts.items():
        if variant != found.variant and published and all(numbers[key] == value for key, value in published.items()):
            return f" These are the numbers of {found.name}:{variant}."
    return ""
