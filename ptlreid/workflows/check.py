"""`ptlreid check`: the faults of a dataset, each with its file and its remedy."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import contents
from ptlreid.datasets import DatasetRef, Fault, FaultError
from ptlreid.datasets._left_out import FILE as LEFT_OUT
from ptlreid.datasets._left_out import count_left_out
from ptlreid.datasets.reader import is_image, is_stray
from ptlreid.errors import DataError
from ptlreid.image_check import ImageCheck, check_images
from ptlreid.progress import Progress
from ptlreid.records import Records, Splits
from ptlreid.retrieval import protocols
from ptlreid.retrieval.protocols import Judge

_PREPARE_AGAIN = "Download or unpack the dataset again, and prepare it from there."
_MISREAD = (
    "If folders or names were read otherwise than you mean them, prepare the dataset again; if not, it needs more "
    "identities to train and to test."
)
_LAYOUT = {"layout", "nested", "variant"}
_DECODING = {
    "missing": ("is listed but cannot be read", _PREPARE_AGAIN),
    "empty": ("is empty", "Download or copy it again."),
    "truncated": ("is truncated", "Download or copy it again."),
    "undecodable": ("cannot be decoded as an image", "Copy it again, or remove it from the dataset."),
}


@dataclass(frozen=True)
class Report:
    """The result of a check: the counts of each part, and the faults, serious ones first.

    `data`: the name of the dataset, with its variant.
    """

    data: str
    folder: Path
    parts: Mapping[str, Mapping[str, int]]
    faults: list[Fault]

    @property
    def num_serious(self) -> int:
        """Number of serious faults."""
        return sum(fault.serious for fault in self.faults)

    def describe(self) -> dict[str, Any]:
        """The report, for JSON."""
        findings = [fault.describe() for fault in self.faults]
        return {"folder": str(self.folder), **self.parts, "findings": findings, "serious": self.num_serious}


def check(dataset: DatasetRef, folder: Path, progress: Progress) -> Report:
    """The report on the dataset in `folder`. Every image is read and decoded; no file is changed."""
    faults: list[Fault] = []
    try:
        splits = dataset.read(folder, reject=lambda fault: None)
        everything = dataset.read(folder, all_images=True, reject=faults.append)
    except FaultError as error:
        return Report(dataset.name, folder, {}, [*faults, error.fault])
    except (DataError, OSError, ValueError, LookupError, csv.Error) as error:
        unreadable = Fault("layout", folder, f"cannot be read ({type(error).__name__}: {error})", _PREPARE_AGAIN)
        return Report(dataset.name, folder, {}, [*faults, unreadable])
    images = _list_images(everything)
    paths = [image.path for image in images]
    results = check_images(paths, progress)
    faults += find_image_faults(paths, results)
    digests = [result.digest for result in results]
    faults += _find_equal_content(images, digests)
    faults += _find_stale_digests(paths, digests)
    faults += _find_overlap(everything)
    faults += [Fault("identities", folder, sign, _MISREAD) for sign in splits.find_misreadings()]
    faults += _find_queries_without_match(splits)
    faults += _find_strays(folder, paths, {fault.file for fault in faults})
    faults += _find_left_out(dataset, folder, {path.parent for path in paths} | {fault.file for fault in faults})
    if not any(fault.kind in _LAYOUT for fault in faults):  # otherwise, what is missing is reported already
        faults += _compare_counts(dataset, folder, splits, everything)
    faults += _check_packs(folder, dict(zip(paths, digests, strict=True)), progress)
    order = sorted(faults, key=lambda fault: (not fault.serious, fault.kind, str(fault.file), fault.fault))
    return Report(splits.name, folder, {name: part.count() for name, part in _name_parts(splits)}, order)


def find_image_faults(paths: Iterable[Path], results: Iterable[ImageCheck]) -> Iterator[Fault]:
    """Files that cannot be used as images; `results`: of `check_images`."""
    for path, result in zip(paths, results, strict=True):
        if result.state != "fine":
            fault, remedy = _DECODING[result.state]
            yield Fault(result.state, path, f"{fault} ({result.error})" if result.error else fault, remedy)


@dataclass(frozen=True)
class _Image:
    """One image file: its identity, and whether training or testing uses it first."""

    path: Path
    pid: int
    side: str


def _list_images(splits: Splits) -> list[_Image]:
    """Every file once, even if several parts list it."""
    images: dict[Path, _Image] = {}
    for name, part in _name_parts(splits):
        for path, pid in zip(part.paths, part.pids.tolist(), strict=True):
            images.setdefault(path, _Image(path, pid, "train" if name == "train" else "test"))
    return list(images.values())


def _name_parts(splits: Splits) -> Iterator[tuple[str, Records]]:
    yield from zip(("train", "query", "gallery"), splits.parts, strict=True)


def _find_equal_content(images: list[_Image], digests: list[str]) -> Iterator[Fault]:
    """Files with the same bytes as an earlier one: serious if one of two is for training, or if identities differ."""
    first: dict[str, _Image] = {}
    known: dict[str, _Image] = {}  # the first with an identity
    for image, digest in zip(images, digests, strict=True):
        other = first.setdefault(digest, image) if digest else image
        if digest and image.pid >= 0 and known.setdefault(digest, image).pid != image.pid:
            other = known[digest]
        if other is image:
            continue
        if image.side != other.side:
            fault = f"is a test image with the same bytes as the training image {other.path}"
            yield Fault("leak", image.path, fault, "Remove one.")
        elif min(image.pid, other.pid) >= 0 and image.pid != other.pid:
            fault = f"has the same bytes as {other.path}, which is of another identity"
            yield Fault("conflict", image.path, fault, "Remove the wrong one.")
        else:
            fault = f"has the same bytes as {other.path}"
            yield Fault("duplicate", image.path, fault, "Remove one, if that is allowed.", serious=False)


def _find_stale_digests(paths: list[Path], digests: list[str]) -> Iterator[Fault]:
    """Files that changed unnoticed since they were indexed, so that earlier results are from other images."""
    for path, index in contents.find_stale(paths, digests):
        fault = f"its bytes changed although its size and times did not, and {index} holds the old digest"
        yield Fault("index", path, fault, f"Restore the image, or remove {index} to use it as it is.")


def _find_overlap(splits: Splits) -> Iterator[Fault]:
    """Identities that are in both the training and the test set."""
    train = set(splits.train.pids.tolist())
    first: dict[int, Path] = {}
    for part in (splits.query, splits.gallery):
        for path, pid in zip(part.paths, part.pids.tolist(), strict=True):
            if pid >= 0 and pid in train:
                first.setdefault(pid, path)
    for pid, path in sorted(first.items()):
        yield Fault("overlap", path, f"is of identity {pid}, which is also in training", "Keep each in one set.")


def _find_queries_without_match(splits: Splits) -> Iterator[Fault]:
    """Queries without a match in the gallery: serious if no query has one, as evaluation is then impossible."""
    if not splits.has_test:
        return
    protocol = protocols.find_protocol(splits.protocol)
    judge = Judge(protocol, splits.query, splits.gallery)
    unmatched = [row for row in range(len(splits.query)) if not len(judge.verdict(row).matches)]
    cameras = np.unique(np.concatenate([splits.query.camids, splits.gallery.camids]))
    if len(unmatched) == len(splits.query) and len(cameras) == 1:
        fault = f"every test image is from camera {cameras[0]}, and the protocol {splits.protocol} requires two cameras"
        remedy = "Name cameras as in 0002_c1s1_000451_03.jpg, or prepare it as own images: `ptlreid prepare folder`."
        yield Fault("cameras", splits.query.paths[0].parent, fault, remedy)
        return
    for row in unmatched:
        fault = f"has no match in the gallery under the protocol {splits.protocol} and is left out of the scores"
        remedy = "Check its file name, and whether gallery images are missing."
        yield Fault("no-match", splits.query.paths[row], fault, remedy, serious=len(unmatched) == len(splits.query))


def _find_strays(folder: Path, paths: list[Path], reported: set[Path]) -> Iterator[Fault]:
    """Files that are not part of the dataset: leftovers of file managers, and unused files in image folders."""
    used = {folder, folder / contents.INDEX, *paths} | reported
    image_folders = {path.parent for path in paths}
    for at, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(at) / name for name in sorted(names)):
            if is_stray(path.name):
                yield Fault("stray", path, "was left by a file manager", "Remove it.", serious=False)
            elif path.parent in image_folders and path not in used:
                fault = "is in no list or split" if is_image(path) else "is not an image"
                yield Fault("stray", path, f"{fault} and is not used", "Remove it.", serious=False)


def _find_left_out(dataset: DatasetRef, folder: Path, known: set[Path]) -> Iterator[Fault]:
    """Files that `prepare` left out, by reason, and images in folders of which no variant of the dataset uses any."""
    for reason, number in count_left_out(folder).items():
        fault = f"{number:,} {'file' if number == 1 else 'files'} left out by `ptlreid prepare`: each {reason}"
        yield Fault("left-out", folder, fault, f"{folder / LEFT_OUT} lists them.", serious=False)
    for variant in dataset.info.variants:
        splits = replace(dataset, variant=variant).read(folder, reject=lambda fault: None)
        known = known | {path.parent for part in splits.parts for path in part.paths}
    unreadable: list[OSError] = []
    for at, folders, names in os.walk(folder, onerror=unreadable.append):
        folders.sort()
        images = sorted(name for name in names if is_image(Path(name)))
        if images and Path(at) not in known:
            fault = f"no part uses its {len(images):,} {'image' if len(images) == 1 else 'images'}, such as {images[0]}"
            yield Fault("left-out", Path(at), fault, "Move them into a part, or leave them there.", serious=False)
    for error in unreadable:
        fault = f"cannot be listed ({error.strerror})"
        if Path(error.filename) not in known:
            yield Fault("layout", Path(error.filename), fault, "Correct the folder and its permissions.")


def _compare_counts(dataset: DatasetRef, folder: Path, splits: Splits, everything: Splits) -> Iterator[Fault]:
    numbers = {f"{name}_{what}": count for name, part in _name_parts(splits) for what, count in part.count().items()}
    numbers["cameras"] = len(np.unique(np.concatenate([part.camids for part in everything.parts])))
    for what, published in dataset.counts.items():
        if numbers[what] != published:
            words = what.replace("_", " ")
            fault = f"{numbers[what]:,} {words}, {published:,} published"
            yield Fault("counts", folder, fault, _PREPARE_AGAIN + _name_matching_variant(dataset, numbers))


def _check_packs(folder: Path, digests: Mapping[Path, str], progress: Progress) -> Iterator[Fault]:
    for file in sorted(folder.glob("packed-*.h5")):
        from ptlreid.workflows.pack import faults  # imports HDF5, only needed for packs

        yield from faults(file, digests, progress)


def _name_matching_variant(dataset: DatasetRef, numbers: Mapping[str, int]) -> str:
    """A sentence that names the other variant with these counts; "" if there is none."""
    for variant, published in dataset.info.counts.items():
        if variant != dataset.variant and published and all(numbers[key] == value for key, value in published.items()):
            return f" These are the counts of {dataset.name}:{variant}."
    return ""
