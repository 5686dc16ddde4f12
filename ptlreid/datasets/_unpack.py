"""Published archives, unpacked so that nothing is written outside the target folder."""

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

from ptlreid.datasets.reader import is_stray
from ptlreid.errors import DataError, PtlreidError
from ptlreid.progress import Progress

MAX_BYTES = 64 << 30  # ten times the largest dataset of this package
_BLOCK_BYTES = 1 << 20
_REPORT_EVERY = 100

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive. `content` is read once, before the next entry is requested."""

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
    """Write the files in `archive` below `target`; existing files of the right size are kept.

    Raises `DataError` for a path that leads out of `target`, a link or a device, more than `max_bytes` in all, and
    an archive that is damaged or encrypted. Files written before the error stay, as the target is not a dataset yet.
    """
    written, done = 0, 0
    try:
        with progress.task(f"unpack {archive.name}", None) as advance, _open_members(archive) as members:
            for member in members:
                path = target / _resolve_path(archive, member)
                written += member.size
                if written > max_bytes:
                    raise DataError(
                        f"{archive}: holds more than {max_bytes:,} bytes. If you trust it, unpack it yourself."
                    )
                if member.content is not None and not is_stray(path.name):
                    _write(member, path)
                    done += 1
                    if done % _REPORT_EVERY == 0:
                        advance(done)
    except _DAMAGED as error:
        raise DataError(
            f"{archive}: cannot be unpacked ({error}). Download it again; if it has a password, unpack it yourself "
            "and give the folder with --source."
        ) from error
    except OSError as error:
        raise PtlreidError(
            f"{archive}: cannot be unpacked into {target} ({error.strerror or error}). Check that the disk has room, "
            "then run the command again: it resumes from here."
        ) from error


def _resolve_path(archive: Path, member: _Member) -> Path:
    """The member's path relative to the target; `DataError` if it leads out of it, or the member is no plain file."""
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in member.name or "\0" in member.name:
        fault = "leads out of the target folder"
    elif member.kind == "other":
        fault = "is a link or a device"
    else:
        return Path(*name.parts)
    raise DataError(
        f"{archive}: its entry {member.name!r} {fault}, which no dataset needs. Do not trust this archive: download "
        "it from the authors' page."
    )


def _write(member: _Member, path: Path) -> None:
    assert member.content is not None
    if path.is_file() and path.stat().st_size == member.size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    left = member.size
    with temporary.open("wb") as stream:
        # No more bytes than the entry states, which were counted: its compressed stream may hold more.
        while left and (block := member.content.read(min(left, _BLOCK_BYTES))):
            stream.write(block)
            left -= len(block)
    if left:
        raise EOFError(f"{member.name} ends early")
    temporary.replace(path)


@contextmanager
def _open_members(archive: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            yield _read_zip(content)
    else:
        with tarfile.open(archive) as stream:
            yield _read_tar(stream)


def _read_zip(content: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in content.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on a Unix
        if entry.is_dir():
            yield _Member(entry.filename, 0, "folder", None)
        elif kind not in (0, stat.S_IFREG):
            yield _Member(entry.filename, 0, "other", None)
        else:
            with content.open(entry) as stream:
                yield _Member(entry.filename, entry.file_size, "file", stream)


def _read_tar(content: tarfile.TarFile) -> Iterator[_Member]:
    for entry in content:
        if entry.isreg():
            yield _Member(entry.name, entry.size, "file", content.extractfile(entry))
        else:
            yield _Member(entry.name, 0, "folder" if entry.isdir() else "other", None)
