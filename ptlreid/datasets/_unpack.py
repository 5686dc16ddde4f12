"""Archives as they are published, unpacked so that nothing lands outside the folder that was meant."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from ptlreid.datasets._link_or_copy import is_stray
from ptlreid.errors import DataError, PtlreidError
from ptlreid.progress import Progress

MAX_BYTES = 64 << 30  # ten times the largest dataset that is known here
_BLOCK_BYTES = 1 << 20
_REPORT_EVERY = 100

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive. `content` is read once, before the next entry is asked for."""

    name: str
    size: int
    kind: Literal["file", "folder", "other"]
    content: IO[bytes] | None


def is_archive(path: Path) -> bool:
    """Whether `path` is a zip file or a tar file, plain or compressed."""
    if path.suffix.lower() in (".mat", ".csv") or not path.is_file():
        return False
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unpack(archive: Path, target: Path, progress: Progress, max_bytes: int = MAX_BYTES) -> None:
    """Write the files in `archive` below `target`; those that are there already, with their size, are left.

    Raises `DataError` for a path that leads out of `target`, a link or a device, more than `max_bytes` in all, and
    an archive that is damaged or encrypted. What was written until then stays: the caller's folder is not yet a
    dataset.
    """
    written, done = 0, 0
    try:
        with progress.task(f"unpack {archive.name}", None) as advance, _members(archive) as members:
            for member in members:
                place = target / _safe(archive, member)
                written += member.size
                if written > max_bytes:
                    raise DataError(
                        f"{archive}: holds more than {max_bytes:,} bytes. Unpack it by hand, if you trust it."
                    )
                if member.content is not None and not is_stray(place.name):
                    _write(member, place)
                    done += 1
                    if done % _REPORT_EVERY == 0:
                        advance(done)
    except _DAMAGED as error:
        raise DataError(
            f"{archive}: cannot be unpacked ({error}). Get it again; if it has a password, unpack it by hand and give "
            "the folder with --source."
        ) from error
    except OSError as error:
        raise PtlreidError(
            f"{archive}: cannot be unpacked into {target} ({error.strerror or error}). Check that the disk has room, "
            "then run the command again: it goes on from here."
        ) from error


def _safe(archive: Path, member: _Member) -> Path:
    """The member's path below the target; `DataError` when it leads elsewhere, or the member is no plain file."""
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in member.name or "\0" in member.name:
        fault = "leads out of the folder it is unpacked to"
    elif member.kind == "other":
        fault = "is a link or a device"
    else:
        return Path(*name.parts)
    raise DataError(
        f"{archive}: its entry {member.name!r} {fault}, which no dataset needs. Do not trust this archive; get it "
        "from the page of its authors."
    )


def _write(member: _Member, place: Path) -> None:
    assert member.content is not None
    if place.is_file() and place.stat().st_size == member.size:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.part")
    left = member.size
    with aside.open("wb") as stream:
        # As many bytes as the entry promised, which were counted, and not what its compressed stream may hold.
        while left and (block := member.content.read(min(left, _BLOCK_BYTES))):
            stream.write(block)
            left -= len(block)
    if left:
        raise EOFError(f"{member.name} ends early")
    aside.replace(place)


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            yield _of_zip(content)
    else:
        with tarfile.open(archive) as stream:
            yield _of_tar(stream)


def _of_zip(content: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in content.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on a Unix
        if entry.is_dir():
            yield _Member(entry.filename, 0, "folder", None)
        elif kind not in (0, stat.S_IFREG):
            yield _Member(entry.filename, 0, "other", None)
        else:
            with content.open(entry) as stream:
                yield _Member(entry.filename, entry.file_size, "file", stream)


def _of_tar(content: tarfile.TarFile) -> Iterator[_Member]:
    for entry in content:
        if entry.isreg():
            yield _Member(entry.name, entry.size, "file", content.extractfile(entry))
        else:
            yield _Member(entry.name, 0, "folder" if entry.isdir() else "other", None)
