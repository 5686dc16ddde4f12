"""`ptlreid prepare NAME --source`: what the user has, an archive or a folder, to a dataset below the root.

Everything is made in a folder aside, which a rerun goes on with, and gets its name when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptlreid.datasets import DatasetRef, part_of
from ptlreid.datasets._unpack import is_archive, unpack
from ptlreid.errors import DataError, OptionError, PtlreidError
from ptlreid.files import read_json, write_json
from ptlreid.locks import wait_for_lock
from ptlreid.progress import Progress
from ptlreid.settings import OwnImagesSettings

MARKER = "prepared.json"


def prepare(found: DatasetRef, source: Path, root: Path, own: OwnImagesSettings | None, progress: Progress) -> bool:
    """Make the dataset from `source`, below `root`; whether anything had to be made.

    `own`: the settings of own images, None for a dataset with a name of its own. Raises `DataError` when `source` is
    not what the dataset is made of, and `OptionError` when its folder exists and was made of something else: nothing
    in it is touched.
    """
    folder = found.folders(root)[0]
    made_of = {"data": folder.name, **_describe(source), **(own.model_dump(exclude={"name"}) if own else {})}

    def gather(material: Path, target: Path) -> None:
        found.module.gather(material, target, own or found.variant, progress)

    if not folder.exists():
        with wait_for_lock(folder, progress):
            if not folder.exists():  # nor was made meanwhile
                _make(source, folder, made_of, gather, progress)
                return True
    _check_same(folder, made_of)
    shutil.rmtree(part_of(folder), ignore_errors=True)  # of a prepare that was stopped at the very end
    return False


def _make(
    source: Path, folder: Path, made_of: dict[str, Any], gather: Callable[[Path, Path], None], progress: Progress
) -> None:
    """The dataset of `source` in `folder`: put into a folder aside by `gather(material, target)`, and named."""
    part = part_of(folder)
    try:
        _begin(part, made_of, progress)
        material = source
        if is_archive(source):
            material = part / "unpacked"
            unpack(source, material, progress)
        gather(material, part / "whole")
        write_json(part / "whole" / MARKER, made_of)
        _name(part / "whole", folder)
    except DataError:
        shutil.rmtree(part, ignore_errors=True)  # another source is needed: nothing here to go on with
        raise
    except OSError as error:
        advice = "Check that the disk has room and may be written to, then run the command again: it goes on from here."
        raise PtlreidError(f"{part}: cannot be written ({error.strerror or error}). {advice}") from error
    shutil.rmtree(part, ignore_errors=True)


def _describe(source: Path) -> dict[str, Any]:
    """The source and a digest of its names, sizes and times, by which a change in it is noticed."""
    if not source.exists():
        raise DataError(f"{source}: does not exist. Give the archive or the folder that you have with --source.")
    total = hashlib.blake2b(digest_size=16)
    for file in [source] if source.is_file() else _files(source):
        state = file.stat()
        total.update(f"{file.relative_to(source)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="replace"))
    return {"source": str(source.resolve()), "digest": total.hexdigest()}


def _files(folder: Path) -> list[Path]:
    return sorted(Path(at) / name for at, _, names in os.walk(folder) for name in names if (Path(at) / name).is_file())


def _check_same(folder: Path, made_of: dict[str, Any]) -> None:
    """Raise `OptionError` when `folder` was not made by us, or of something else."""
    if not (folder / MARKER).is_file():
        raise OptionError(
            f"{folder} exists and was not made from a --source. It is read as it is: look at it with --check, or move "
            "it and run the command again."
        )
    before = read_json(folder / MARKER)
    others = {key: value for key, value in made_of.items() if before.get(key) != value}
    if list(others) == ["digest"]:
        raise OptionError(
            f"{folder} was made of {made_of['source']} before files there changed. Remove that folder to make it anew."
        )
    if others:
        changed = [f"{key}: {before.get(key)!r} -> {value!r}" for key, value in others.items()]
        raise OptionError(
            f"{folder} was made of something else ({'; '.join(changed)}). Remove that folder to make it anew, or give "
            "another --root."
        )


def _begin(part: Path, made_of: dict[str, Any], progress: Progress) -> None:
    """A folder to work in: what a stopped `prepare` left there stays if it was made of the same."""
    note = part / "made_of.json"
    if note.is_file() and read_json(note) == made_of:
        progress.note(f"{part}: a stopped prepare goes on")
    elif part.exists():
        shutil.rmtree(part)
    (part / "whole").mkdir(parents=True, exist_ok=True)
    write_json(note, made_of)


def _name(whole: Path, folder: Path) -> None:
    """Rename the finished dataset, its files on the disk before its name is."""
    if hasattr(os, "sync"):
        os.sync()
    whole.rename(folder)
