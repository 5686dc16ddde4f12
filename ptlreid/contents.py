"""Digests of image files: each computed once from the file's bytes, and kept in an index in the dataset's folder.

An entry is valid as long as the file has the size, times and inode that it had when it was read. The change time
(ctime) is among them, and no program can set it: an edit is noticed even if the modification time was restored (not on
Windows, which has no such time). The index is an .npz file, as NumPy reads 100,000 entries of it in 0.1 s and its
checksums reveal damage; a lost one costs only time.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from threading import RLock
from time import time_ns

import numpy as np

from ptlreid.errors import DataError, PtlreidError
from ptlreid.files import MAX_BYTES, atomic_write
from ptlreid.progress import Progress
from ptlreid.tar_members import open_content, stat_content, stat_opened

INDEX = ".contents.npz"

_SCHEMA = 1
_DIGEST_BYTES = 16
_BLOCK = 1 << 14  # files at a time, so that a million need little memory
# A file that changed this shortly before it was read is not indexed: it could change again within a tick, FAT's 2 s.
MARGIN_NS = 2 * 10**9


def use_index(folder: Path, file: Path | None = None, *, most_bytes: int = MAX_BYTES) -> None:
    """From now on, keep the digests of files below `folder` in the index `file`, by default there, and look them up.

    Those of other files, and of a folder that cannot be written to, stay in this process. `most_bytes`: of a file.
    """
    place = os.path.abspath(folder)  # noqa: PTH100 - resolves no links, unlike Path.resolve
    with _lock:
        if place not in _indexes:
            _indexes[place] = _Index(os.path.join(place, ""), file or folder / INDEX, most_bytes)  # noqa: PTH118


def dataset_folder(file: Path) -> str:
    """The absolute path of the folder, given to `use_index`, that `file` is in; otherwise that of its own folder."""
    with _lock:
        return _find_index(str(file.parent))[0].folder or os.path.join(os.path.abspath(file.parent), "")  # noqa: PTH100, PTH118


def digest_all(paths: Iterable[Path], *, verify: Progress | None = None) -> str:
    """One digest of the bytes of all files, in their order, 32 hexadecimal digits; whatever their names and folders.

    `verify`, errors: see `digest_each`.
    """
    return blake2b(digest_each(paths, verify=verify).tobytes(), digest_size=_DIGEST_BYTES).hexdigest()


def digest_each(paths: Iterable[Path], *, verify: Progress | None = None) -> np.ndarray:
    """(N, 16) uint8: the BLAKE2b digest of the bytes of each file.

    A file is read only if it is not in the index, or has changed since. With `verify`, every file that this process
    has not read yet is read, and `verify` gets a note on each wrong digest in the index. Raises `DataError` for a file
    that cannot be read.
    """
    verify = verify or _verify.get()
    files = [str(path) for path in paths]
    digests = np.empty((len(files), _DIGEST_BYTES), dtype=np.uint8)
    used: set[_Index] = set()
    with _lock:
        try:
            for start in range(0, len(files), _BLOCK):
                for index, rows, names in _group(files[start : start + _BLOCK]):
                    used.add(index)
                    digests[start + rows] = index.digest(names, verify)
        finally:  # after an error or Ctrl-C, what was read is not read again
            for index in used:
                index.save()
    return digests


def verifying() -> bool:
    """Whether digests are computed from bytes that this process reads itself: see `verify_all`."""
    return _verify.get() is not None


@contextmanager
def verify_all(progress: Progress) -> Iterator[None]:
    """Within the block, all digests are computed with `verify=progress`: from bytes that this process read itself."""
    token = _verify.set(progress)
    try:
        yield
    finally:
        _verify.reset(token)


def find_stale(paths: Sequence[Path], digests: Sequence[str]) -> list[tuple[Path, Path]]:
    """(file, index) for each file whose digest in the index is wrong although the file seems unchanged.

    `digests`: hexadecimal, of the bytes that the caller has just read; "" for files that could not be read.
    """
    stale = []
    with _lock:
        for index, rows, names in _group([str(path) for path in paths]):
            known, current = index.look_up(names, read_states(index.folder, names))
            for row, entry in zip(rows[current], known[current], strict=True):
                if index.file and digests[row] and index.digests[entry].tobytes().hex() != digests[row]:
                    stale.append((paths[row], index.file))
    return stale


def read_states(folder: str, names: Iterable[str]) -> np.ndarray:
    """(N, 4) int64: size, mtime, ctime and inode of the files or tar files at `folder` + name; -1 if missing."""
    states = array("q")
    for name in names:
        try:
            states.extend(_state(stat_content(folder + name)))
        except OSError:
            states.extend((-1, -1, -1, -1))
    return np.frombuffer(states, dtype=np.int64).reshape(-1, 4)


def file_state(path: str | Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds, which a copy keeps; (-1, -1) if there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, for each image of an epoch
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


class _Index:
    """The digests of the files below one folder, whose path ends in a separator: from its index file, and new ones.

    `states`: (N, 4) int64, size, mtime, ctime and inode. `digests`: (N, 16) uint8. `read_here`: (N,) bool, whether
    this process has read the file itself.
    """

    def __init__(self, folder: str, file: Path | None = None, most_bytes: int = MAX_BYTES) -> None:
        self.folder, self.file, self.most_bytes = folder, file, most_bytes
        self.rows: dict[str, int] = {}
        self.states = np.empty((0, 4), dtype=np.int64)
        self.digests = np.empty((0, _DIGEST_BYTES), dtype=np.uint8)
        self.read_here = np.empty(0, dtype=bool)
        self._changed = False
        if file:
            self._add(_read(file), read_here=False)

    def digest(self, names: list[str], verify: Progress | None) -> np.ndarray:
        """(N, 16) uint8: the digests of the files called `names`, looked up or computed."""
        states = read_states(self.folder, names)
        known, current = self.look_up(names, states)
        trusted = current.copy()
        if verify:
            trusted[current] = self.read_here[known[current]]
        digests = np.empty((len(names), _DIGEST_BYTES), dtype=np.uint8)
        digests[trusted] = self.digests[known[trusted]]
        missing = np.flatnonzero(~trusted)
        if not len(missing):
            return digests
        began = time_ns()
        with ThreadPoolExecutor() as pool:  # hashing lets other threads run
            most = [self.most_bytes] * len(missing)
            read = list(pool.map(_digest, (self.folder + names[row] for row in missing), most))
        digests[missing] = np.frombuffer(b"".join(digest for digest, _ in read), np.uint8).reshape(-1, _DIGEST_BYTES)
        if verify:
            again = np.flatnonzero(current & ~trusted)
            for row in again[(self.digests[known[again]] != digests[again]).any(axis=1)]:
                verify.note(
                    f"{self.folder}{names[row]}: its bytes changed although its size and times did not. Its digest in "
                    f"{INDEX} was out of date and is corrected."
                )
        after = np.array([state for _, state in read], dtype=np.int64)
        kept = missing[(after == states[missing]).all(axis=1) & (after[:, 2] < began - MARGIN_NS)]
        self._add(_Entries([names[row] for row in kept], states[kept], digests[kept]), read_here=True)
        return digests

    def look_up(self, names: list[str], states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 and bool: the row of each name, 0 if it has none, and whether its entry has this state."""
        known = np.fromiter((self.rows.get(name, -1) for name in names), dtype=np.int64, count=len(names))
        current = known >= 0
        current[current] = (self.states[known[current]] == states[current]).all(axis=1)
        return np.maximum(known, 0), current

    def save(self) -> None:
        """Write new entries to the index file, and keep those that another process wrote meanwhile."""
        if not self.file or not self._changed:
            return
        other = _read(self.file)
        unknown = np.array([name not in self.rows for name in other.names], dtype=bool)
        names = [name for name, new in zip(other.names, unknown, strict=True) if new]
        self._add(_Entries(names, other.states[unknown], other.digests[unknown]), read_here=False)
        try:
            _write(self.file, _Entries(list(self.rows), self.states, self.digests))
        except PtlreidError:  # the disk is full or read-only: the index is optional
            self.file = None
        self._changed = False

    def _add(self, entries: _Entries, *, read_here: bool) -> None:
        """Add `entries`, replacing older ones of the same names."""
        if not entries.names:
            return
        rows = np.array([self.rows.setdefault(name, len(self.rows)) for name in entries.names], dtype=np.int64)
        more = len(self.rows) - len(self.states)
        self.states = np.concatenate([self.states, np.full((more, 4), -1)])
        self.digests = np.concatenate([self.digests, np.zeros((more, _DIGEST_BYTES), np.uint8)])
        self.read_here = np.concatenate([self.read_here, np.zeros(more, bool)])
        same = (self.states[rows] == entries.states).all() and (self.digests[rows] == entries.digests).all()
        self.states[rows], self.digests[rows], self.read_here[rows] = entries.states, entries.digests, read_here
        self._changed |= read_here and not same


@dataclass(frozen=True)
class _Entries:
    """N files: their paths below the index's folder, states (N, 4) and digests (N, 16)."""

    names: list[str]
    states: np.ndarray
    digests: np.ndarray


_lock = RLock()  # guards the indexes, for callers in several threads
_indexes: dict[str, _Index] = {}  # by absolute folder
_unindexed = _Index("")  # files outside every folder with an index, by absolute path; never written to disk
_verify: ContextVar[Progress | None] = ContextVar("verify", default=None)


def _group(files: list[str]) -> Iterator[tuple[_Index, np.ndarray, list[str]]]:
    """For each index that `files` belong to: the index, their rows (N,), and their paths below its folder."""
    homes: dict[str, tuple[_Index, str]] = {}
    groups: dict[_Index, tuple[list[int], list[str]]] = {}
    for row, file in enumerate(files):
        cut = file.rfind(os.sep) + 1
        folder = file[:cut]
        if folder not in homes:
            homes[folder] = _find_index(folder)
        index, prefix = homes[folder]
        rows, names = groups.setdefault(index, ([], []))
        rows.append(row)
        names.append(prefix + file[cut:])
    for index, (rows, names) in groups.items():
        yield index, np.array(rows), names


def _find_index(folder: str) -> tuple[_Index, str]:
    """The nearest index for files in `folder`, and the path from there to it, such as `query/`."""
    parent = os.path.abspath(folder)  # noqa: PTH100 - see use_index
    path = os.path.join(parent, "")  # noqa: PTH118
    while parent not in _indexes:
        parent, child = os.path.dirname(parent), parent  # noqa: PTH120
        if parent == child:  # the root
            return _unindexed, path
    return _indexes[parent], path.removeprefix(_indexes[parent].folder)


def _digest(file: str, most_bytes: int) -> tuple[bytes, tuple[int, int, int, int]]:
    """The digest of a file's bytes, and its state after they were read."""
    try:
        with open_content(file, most_bytes=most_bytes) as stream:
            digest = file_digest(stream, lambda: blake2b(digest_size=_DIGEST_BYTES))  # type: ignore[arg-type]
            return digest.digest(), _state(stat_opened(stream))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}). Restore the file, or prepare again.") from None


def _state(found: os.stat_result) -> tuple[int, int, int, int]:
    # Some file systems number inodes from 2 ** 63 on, which an int64 does not hold.
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (2**63 - 1)


def _read(file: Path) -> _Entries:
    """The entries in `file`; none if it is missing or damaged: it is then rewritten."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            names = os.fsdecode(content["names"].tobytes()).split("\0")
            entries = _Entries(names, content["states"], content["digests"])
            found = [(values.dtype.name, values.shape) for values in (entries.states, entries.digests)]
            expected = [("int64", (len(names), 4)), ("uint8", (len(names), _DIGEST_BYTES))]
            return entries if found == expected and int(content["schema"]) == _SCHEMA else _NOTHING
    except _UNREADABLE:
        return _NOTHING


def _write(file: Path, entries: _Entries) -> None:
    names = np.frombuffer(os.fsencode("\0".join(entries.names)), dtype=np.uint8)
    with atomic_write(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, schema=np.int64(_SCHEMA), names=names, states=entries.states, digests=entries.digests)


_NOTHING = _Entries([], np.empty((0, 4), dtype=np.int64), np.empty((0, _DIGEST_BYTES), dtype=np.uint8))
# What NumPy raises for files that are truncated, overwritten or of another kind.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
