"""Published archives, unpacked so that nothing is written outside the target folder."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Literal, Self

from ptlreid.datasets.reader import is_stray
from ptlreid.errors import DataError
from ptlreid.file_kinds import identify
from ptlreid.files import unsynced_write, unwritable
from ptlreid.progress import Progress

MAX_BYTES = 64 << 30  # ten times the largest dataset of this package
MAX_FILES = 2_000_000
_BYTES_PER_IMAGE = 1 << 17  # of a public dataset, far more than any has; and what comes with the images:
_OTHER_BYTES = 8 << 30
_MAX_RATIO = 100  # of what an archive holds to its own size: images hardly get smaller
_SMALL = 100 << 20  # bytes, whatever the ratio
_BLOCK_BYTES = 1 << 20
_REPORT_EVERY = 100
LISTS = (".mat", ".csv", ".tsv", ".txt")  # sources that are read as they are

# What zipfile, tarfile and the decompressors raise for damaged files, besides an OSError without a number.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,
    ValueError,
    IndexError,
    OverflowError,
)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive. `content` is read once, before the next entry is requested."""

    name: str
    size: int
    kind: Literal["file", "folder", "other"]
    content: IO[bytes] | None


def is_archive(path: Path) -> bool:
    """Whether `path` is a zip file or a tar file, plain or compressed; False for a folder, a list and a `.mat` file.

    Any other file is a `DataError` that says what it is.
    """
    if path.suffix.lower() in LISTS or not path.is_file():
        return False
    try:
        if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
            return True
    except _DAMAGED:  # a compressed file that ends in its first bytes
        pass
    raise DataError(f"{path}: not an archive that can be unpacked: it is {identify(path)}. {_ADVICE}")


def most_bytes(counts: Mapping[str, Mapping[str, int]]) -> int:
    """The most that an archive of a dataset may hold, by the published `counts` of its variants."""
    images = [sum(number for name, number in one.items() if name.endswith("_images")) for one in counts.values()]
    return min(MAX_BYTES, _OTHER_BYTES + _BYTES_PER_IMAGE * max(images)) if images else MAX_BYTES


def unpack(archive: Path, target: Path, progress: Progress, max_bytes: int = MAX_BYTES) -> None:
    """Write the files in `archive` below `target`; existing files of the right size are kept.

    Raises `DataError` for a path that leads out of `target`, a link or a device, more than `max_bytes` or `MAX_FILES`
    in all, an archive that no images give, one that is damaged or encrypted, and one without files; and `PtlreidError`
    if the disk has no room. Files written before the error stay, as the target is not a dataset yet.
    """
    held, done = _Held(archive, archive.stat().st_size, max_bytes), 0
    try:
        _check_totals(archive, target, held)
        with progress.task(f"unpack {archive.name}", None) as advance, _open_members(archive, held) as members:
            for member in members:
                path = target / _resolve_path(archive, member)
                if member.content is not None and not is_stray(path.name):
                    _write(member, path)
                    done += 1
                    if done % _REPORT_EVERY == 0:
                        advance(done)
    except _DAMAGED as error:
        raise _make_damage(archive, error) from error
    except OSError as error:
        if error.errno is None:  # of a decompressor
            raise _make_damage(archive, error) from error
        raise unwritable(target, error) from error
    if not done:
        raise DataError(f"{archive}: holds no file: it is {identify(archive)}. {_ADVICE}")


_ADVICE = (
    "Expected a complete zip or tar file. Download it again, or unpack it yourself and give the folder with --source."
)


@dataclass
class _Held:
    """What an archive holds so far, by its own account: checked before any of it is written."""

    archive: Path
    size: int
    max_bytes: int
    bytes: int = 0
    files: int = 0

    def add(self, size: int, files: int = 1) -> None:
        """Count `files` of `size` bytes in all; `DataError` if that is more than a dataset may hold."""
        self.bytes += size
        self.files += files
        if self.files > MAX_FILES:
            fault = f"holds more than {MAX_FILES:,} files"
        elif self.bytes > self.max_bytes:
            fault = f"holds more than {self.max_bytes:,} bytes"
        elif self.bytes > max(_SMALL, _MAX_RATIO * self.size):
            fault = f"holds more than {_MAX_RATIO} times its own size, which no images give"
        else:
            return
        raise DataError(f"{self.archive}: {fault}. If you trust it, unpack it yourself, and give the folder instead.")


def _check_totals(archive: Path, target: Path, held: _Held) -> None:
    """Raise an error for a zip file that holds too much, and where the disk has no room for `archive`.

    A tar file has no list of what it holds: it needs at least its own size.
    """
    needed = archive.stat().st_size
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
        needed = sum(entry.file_size for entry in entries)
        replace(held).add(needed, len(entries))
    existing = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())  # of an interrupted prepare
    folder = next(parent for parent in (target, *target.absolute().parents) if parent.is_dir())
    if needed - existing > shutil.disk_usage(folder).free:
        raise unwritable(target, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), needed)


def _make_damage(archive: Path, error: Exception) -> DataError:
    return DataError(
        f"{archive}: cannot be unpacked ({str(error) or type(error).__name__}). Download it again; if it has a "
        "password, unpack it yourself and give the folder with --source."
    )


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
    left = member.size
    with unsynced_write(path, member.size) as temporary, temporary.open("wb") as stream:
        # No more bytes than the entry states, which were counted: its compressed stream may hold more.
        while left and (block := member.content.read(min(left, _BLOCK_BYTES))):
            stream.write(block)
            left -= len(block)
        if left:
            raise EOFError(f"{member.name} ends early")


@contextmanager
def _open_members(archive: Path, held: _Held) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            yield _read_zip(content, held)
    else:
        with tarfile.open(archive, tarinfo=_TarInfo) as stream:
            yield _read_tar(stream, held)


def _read_zip(content: zipfile.ZipFile, held: _Held) -> Iterator[_Member]:
    for entry in content.infolist():
        held.add(entry.file_size)
        kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on a Unix
        if entry.is_dir():
            yield _Member(entry.filename, 0, "folder", None)
        elif kind not in (0, stat.S_IFREG):
            yield _Member(entry.filename, 0, "other", None)
        else:
            with content.open(entry) as stream:
                yield _Member(entry.filename, entry.file_size, "file", stream)


def _read_tar(content: tarfile.TarFile, held: _Held) -> Iterator[_Member]:
    for entry in content:
        held.add(entry.size)
        if entry.isreg():
            yield _Member(entry.name, entry.size, "file", content.extractfile(entry))
        else:
            yield _Member(entry.name, 0, "folder" if entry.isdir() else "other", None)
    # Only at the end of a compressed file its checksum is compared.
    after = 0
    while block := content.fileobj.read(_BLOCK_BYTES):
        after += len(block)
        if after > _SMALL:
            raise tarfile.ReadError("its end is followed by other data")


class _TarInfo(tarfile.TarInfo):
    """An entry of a tar file. Damage between two entries is an error: `tarfile` takes it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.count(b"\0") == len(buf) > 0:  # the end
                raise
            raise tarfile.ReadError(str(error) if buf else "it ends early") from error
