"""Files in tar files, read where they are: `city/000.tar/17.jpg` names the member `17.jpg` of `city/000.tar`.

The headers of a tar file are read once in each process, and any member is then read by its place, in any order and by
any number of processes: nothing is unpacked. A path of an ordinary file costs nothing more, as its members are looked
for only where the system finds no such file. A folder that is called like a tar file is a folder.
"""

from __future__ import annotations

import errno
import io
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from threading import RLock
from typing import BinaryIO

from ptlreid.errors import DataError
from ptlreid.files import MAX_BYTES, open_regular
from ptlreid.tar_headers import Entry, read_entries

SUFFIX = ".tar"
_ANY_SIZE = 1 << 62  # of a tar file
_MOST_MEMBERS = 4_000_000  # whose places are kept, of the tar files used last: 300 MB with names of 50 bytes


def split_member(path: Path | str) -> tuple[str, str] | None:
    """The tar file that is a part of `path`, and the name of the member behind it; None if no part is one."""
    text, at = str(path), -1
    while (at := text.find(SUFFIX + os.sep, at + 1)) >= 0:
        end = at + len(SUFFIX)
        if os.path.isfile(text[:end]):  # noqa: PTH113 - for each of a million images
            return text[:end], text[end + 1 :].replace(os.sep, "/")
    return None


def open_content(path: Path | str, *, most_bytes: int = MAX_BYTES) -> BinaryIO:
    """The regular file at `path`, or the member of a tar file that it names, opened for reading its bytes.

    `OSError` as from `open_regular`, and for a tar file without such a member. `DataError` for a tar file that cannot
    be read.
    """
    try:
        return open_regular(path, most_bytes=most_bytes)
    except (NotADirectoryError, FileNotFoundError):  # the latter on Windows
        found = split_member(path)
        if found is None:
            raise
    with OpenTar(found[0]) as tar:
        return tar.open(found[1], most_bytes=most_bytes)


def stat_content(path: Path | str) -> os.stat_result:
    """The state of the file at `path`; of a member, existing or not, that of its tar file. `OSError` if none is there.

    As long as it is the same, so are the bytes that `open_content` reads.
    """
    try:
        return os.stat(path)  # noqa: PTH116 - half the time of Path.stat
    except (NotADirectoryError, FileNotFoundError):
        found = split_member(path)
        if found is None:
            raise
    return os.stat(found[0])  # noqa: PTH116


def stat_opened(stream: BinaryIO) -> os.stat_result:
    """The same of the file that `open_content` opened."""
    return stream.state if isinstance(stream, _Member) else os.fstat(stream.fileno())


class OpenTar:
    """A context manager: a tar file whose members are known by name.

    Raises `OSError` if it cannot be opened, and `DataError` if it is incomplete, damaged, compressed, or has members
    that are not plain files, or whose names do not say which they are.
    """

    def __init__(self, path: Path | str) -> None:
        self._stream = open_regular(path, most_bytes=_ANY_SIZE)
        try:
            self._state = os.fstat(self._stream.fileno())
            self._index = _find_index(str(path), self._stream, self._state)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> OpenTar:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def names(self) -> list[str]:
        """The names of all regular files, with `/` and without `./`, sorted by their bytes."""
        return [os.fsdecode(self._index.name(row)) for row in range(len(self._index))]

    def __contains__(self, name: str) -> bool:
        return self._index.find(os.fsencode(name)) is not None

    def open(self, name: str, *, most_bytes: int = MAX_BYTES) -> BinaryIO:
        """The bytes of a member in memory; `OSError` if there is none, if it is larger, or if it cannot be read."""
        row = self._index.find(os.fsencode(name))
        if row is None:
            raise FileNotFoundError(errno.ENOENT, "the tar file has no such member", name)
        size = self._index.sizes[row]
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", name)
        self._stream.seek(self._index.offsets[row])
        content = self._stream.read(size)
        if len(content) < size:
            raise OSError(errno.EIO, "the tar file was cut while it was read", name)
        return _Member(content, self._state)


class _Member(io.BytesIO):
    """The bytes of a member, and the state of its tar file. It has no descriptor, from which a decoder could read."""

    def __init__(self, content: bytes, state: os.stat_result) -> None:
        super().__init__(content)
        self.state = state


@dataclass(frozen=True)
class _Index:
    """N members, sorted by name. `names`: joined; that of row i ends at `ends[i]`. `offsets`, `sizes`: of the content.

    25 bytes a member, and its name: a dictionary would take six times as much.
    """

    names: bytes
    ends: array[int]
    offsets: array[int]
    sizes: array[int]

    @classmethod
    def of(cls, tar: str, entries: Iterable[Entry]) -> _Index:
        """Raises `DataError` for two members of one name."""
        names, offsets, sizes = [], array("q"), array("q")
        for entry in entries:
            names.append(entry.name)
            offsets.append(entry.offset)
            sizes.append(entry.size)
        order = sorted(range(len(names)), key=names.__getitem__)
        names, offsets, sizes = [names[row] for row in order], _take(offsets, order), _take(sizes, order)
        double = next((one for one, other in pairwise(names) if one == other), None)
        if double is not None:
            raise DataError(
                f"{tar}: two members are called {os.fsdecode(double)}: expected each name once, as it says which file "
                "is meant. Repack them with names of their own."
            )
        return cls(b"".join(names), array("q", accumulate(map(len, names))), offsets, sizes)

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, row: int) -> bytes:
        return self.names[self.ends[row - 1] if row else 0 : self.ends[row]]

    def find(self, name: bytes) -> int | None:
        """The row of a member; None if there is none."""
        row = bisect_left(range(len(self)), name, key=self.name)
        return row if row < len(self) and self.name(row) == name else None


def _take(values: array[int], order: Sequence[int]) -> array[int]:
    return array("q", map(values.__getitem__, order))


_lock = RLock()  # guards the indexes, for callers in several threads
_indexes: dict[tuple[str, int, int, int, int], _Index] = {}  # by path and state of the tar file, the last used one last


def _find_index(tar: str, stream: BinaryIO, state: os.stat_result) -> _Index:
    """The index of the opened tar file `tar`: the one that was made when its state was the same, or a new one."""
    key = tar, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino
    with _lock:
        if key in _indexes:
            _indexes[key] = _indexes.pop(key)
        else:
            _indexes[key] = _Index.of(tar, read_entries(tar, stream.fileno()))
            while len(_indexes) > 1 and sum(map(len, _indexes.values())) > _MOST_MEMBERS:
                del _indexes[next(iter(_indexes))]
        return _indexes[key]
