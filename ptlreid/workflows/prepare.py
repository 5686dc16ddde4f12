"""`ptlreid prepare NAME --source`: build a dataset below the root from the user's archive or folder.

The dataset is built in a temporary folder, where an interrupted command resumes, and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptlreid import contents
from ptlreid.datasets import DatasetRef, Fault, FaultError, FaultsError, unfinished_folder
from ptlreid.datasets._image_list import read_bare_list
from ptlreid.datasets._source_files import list_images
from ptlreid.datasets._unpack import LISTS, is_archive, most_bytes, unpack
from ptlreid.datasets.reader import Reject, is_stray
from ptlreid.errors import DataError, OptionError
from ptlreid.files import unwritable
from ptlreid.image_check import check_images
from ptlreid.json_files import read_json, write_json
from ptlreid.locks import wait_for_lock
from ptlreid.progress import Progress
from ptlreid.schemas import Origin
from ptlreid.settings import OwnImagesSettings
from ptlreid.workflows.check import find_image_faults

MARKER = "prepared.json"

# Links or copies the images in one folder into another: source files by new name.
_Gather = Callable[[Path, Path, Reject], dict[str, Path]]


def prepare(dataset: DatasetRef, source: Path, root: Path, own: OwnImagesSettings | None, progress: Progress) -> bool:
    """Build the dataset from `source` below `root`; returns False if it exists already.

    `own`: the settings of the user's own images, None for a public dataset. Raises `DataError` if `source` does not
    contain the dataset, and `OptionError` if its folder exists but was made from another source: that folder is left
    alone.
    """
    folder, *others = dataset.folders(root)
    existing = next((one for one in (folder, *others) if one.exists()), folder)
    if (existing / MARKER).is_file():  # perhaps one of the other folders, from version 0.1
        folder = existing
    origin = {"data": folder.name, **_describe(source), **(own.model_dump(exclude={"name"}) if own else {})}
    if own and not own.unlabelled:
        origin["unlabelled"] = None  # datasets of earlier versions state nothing

    def gather(material: Path, target: Path, reject: Reject) -> dict[str, Path]:
        files: dict[str, Path] = dataset.module.gather(material, target, own or dataset.variant, progress, reject)
        return files

    if not folder.exists():
        with wait_for_lock(folder, progress):
            if not folder.exists():  # another process may have built it meanwhile
                _make(source, folder, origin, gather, progress, max_bytes=most_bytes(dataset.info.counts))
                return True
    _check_same(folder, origin)
    shutil.rmtree(unfinished_folder(folder), ignore_errors=True)  # left by a prepare that was killed after the rename
    return False


def _make(
    source: Path, folder: Path, origin: dict[str, Any], gather: _Gather, progress: Progress, *, max_bytes: int
) -> None:
    """Build the dataset in a temporary folder, and rename it to `folder`; after an error nothing is left.

    After a signal or a kill it stays, to be resumed. `max_bytes`: the most that an archive may hold.
    """
    temporary = unfinished_folder(folder)
    try:
        _begin(temporary, origin, progress)
        material = source
        if is_archive(source):
            material = temporary / "unpacked"
            unpack(source, material, progress, max_bytes)
        faults = _find_faults(gather, material, temporary / "dataset", progress)
        if faults:
            # Files of an archive are named by their paths in it, not by those in the temporary folder.
            named = [replace(fault, file=source / os.path.relpath(fault.file, material)) for fault in faults]
            raise FaultsError(source, faults if material == source else named)
        write_json(temporary / "dataset" / MARKER, origin)
        if hasattr(os, "sync"):
            os.sync()  # the files are on the disk before the rename
        (temporary / "dataset").rename(folder)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)  # what it took counts as free
        if isinstance(error, OSError):
            raise unwritable(temporary, error) from error
        raise
    shutil.rmtree(temporary, ignore_errors=True)


def _find_faults(gather: _Gather, material: Path, target: Path, progress: Progress) -> list[Fault]:
    """Link or copy the images in `material` into `target`, and decode each once: every file that cannot be used."""
    faults: list[Fault] = []
    try:
        files = gather(material, target, faults.append)
    except FaultError as error:
        return [*faults, error.fault]
    except DataError:
        if not faults:
            raise
        return faults  # without the files at fault, the others may make no dataset
    results = check_images([target / name for name in files], progress) if files else []
    return [*faults, *find_image_faults(files.values(), results)]


def _begin(temporary: Path, origin: dict[str, Any], progress: Progress) -> None:
    """Create the temporary folder; the files of an interrupted `prepare` are kept if its source was the same."""
    note = temporary / "made_of.json"
    if note.exists() and read_json(note, Origin, "Run the command again: it starts from the beginning.") == origin:
        progress.note(f"{temporary}: resuming an interrupted prepare")
    elif temporary.exists():
        shutil.rmtree(temporary)
    (temporary / "dataset").mkdir(parents=True, exist_ok=True)
    write_json(note, origin)


def _describe(source: Path) -> dict[str, Any]:
    """The source and a digest of the names, sizes and times of its files, and of the images of a CSV, which reveals a
    change in them.
    """
    if not source.exists():
        raise DataError(f"{source}: does not exist. Give an existing archive or folder with --source.")
    total = hashlib.blake2b(digest_size=16)
    for file in [source] if source.is_file() else _list_files(source):
        size, changed = contents.file_state(file)
        total.update(f"{file.relative_to(source)}\0{size}\0{changed}\n".encode(errors="replace"))
    return {"source": str(source.resolve()), "digest": total.hexdigest(), **_describe_listed(source)}


def _describe_listed(source: Path) -> dict[str, str]:
    """For a CSV, a digest of the sizes and times of the images that it lists; nothing for one that cannot be read."""
    if source.suffix.lower() not in LISTS or not source.is_file():
        return {}
    total = hashlib.blake2b(digest_size=16)
    with suppress(DataError):  # which is reported where the images are read
        for image in read_bare_list(source):
            size, changed = contents.file_state(image.file) if image.file.is_file() else (-1, -1)
            total.update(f"{size}\0{changed}\n".encode())
        return {"listed": total.hexdigest()}
    return {}


def _list_files(folder: Path) -> list[Path]:
    """The files below `folder`, and below links in it to folders, sorted.

    Without hidden ones and those that file managers leave, which are never read, and without the index of image digests
    that any command may write there.
    """
    images, others = list_images(folder)
    names = [image.origin for image in images] + [one.path for one in others if not one.path.endswith("/")]
    files = [folder / name for name in names if not _is_passed_over(name.rpartition("/")[2])]
    return sorted(file for file in files if file.is_file())


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or is_stray(name) or contents.INDEX in name


def _check_same(folder: Path, origin: dict[str, Any]) -> None:
    """Raise `OptionError` if `folder` was not made by `prepare`, or from another source."""
    if not (folder / MARKER).is_file():
        raise OptionError(
            f"{folder} exists and was not made from a --source, so that it is left as it is. Use it as it is (inspect "
            "it with `ptlreid check`), move it, or give another --name or --root."
        )
    recorded = read_json(folder / MARKER, Origin, f"Remove {folder} and run the command again.")
    if "listed" not in recorded:  # by an earlier version
        origin = {key: value for key, value in origin.items() if key != "listed"}
    changed = {key: value for key, value in origin.items() if recorded.get(key) != value}
    if set(changed) <= {"digest", "listed"} and changed:
        raise OptionError(
            f"{folder} was made from {origin['source']} before files there changed. Remove {folder} to make it again."
        )
    if changed:
        differences = [f"{key}: {recorded.get(key)!r} -> {value!r}" for key, value in changed.items()]
        raise OptionError(
            f"{folder} was made from another source ({'; '.join(differences)}). Remove that folder to make it again, "
            "or give another --root."
        )
