"""The completed rows of an interrupted extraction, from which it resumes.

They are in a separate file next to the cache file: the fingerprint, as one line of JSON, then blocks of rows with a
digest each. Rows from the first incomplete or damaged block on are ignored.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ptlreid.files import unwritable
from ptlreid.locks import open_own, try_lock

BLOCK_ROWS = 512
_SHAPE = struct.Struct("<II")  # rows, width
_DIGEST_BYTES = 16


class Partial:
    """The completed rows, to which more can be appended: see `open_partial`. Without a stream, no rows are saved."""

    def __init__(self, stream: BinaryIO | None, rows: np.ndarray, path: Path = Path()) -> None:
        """`path`: that of `stream`. `rows`: (n, D) as stored, (0, 0) where there are none."""
        self._path = path
        self.rows = rows
        self._stream = stream
        self._buffered: list[np.ndarray] = []

    def append(self, rows: np.ndarray) -> None:
        """Append rows; they are written once they fill a block."""
        if self._stream is None:
            return
        self._buffered.append(rows)
        if sum(map(len, self._buffered)) < BLOCK_ROWS:
            return
        block = np.concatenate(self._buffered)
        content = _SHAPE.pack(*block.shape) + block.tobytes() + _digest(block)
        try:
            self._stream.write(content)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise unwritable(self._path, error, len(content)) from error
        self._buffered = []


NOTHING = Partial(None, np.empty((0, 0)))  # saves no rows


def partial_path(file: Path) -> Path:
    """The path of the rows of `file` until it is complete."""
    return file.with_suffix(".partial")


@contextmanager
def open_partial(file: Path, fingerprint: Mapping[str, str]) -> Iterator[Partial]:
    """The completed rows of the feature file `file`; none if those on disk have another fingerprint.

    One process at a time saves rows: it holds a lock of the operating system, which is released when the process ends.
    A second process saves none. The rows are removed at the end of the block, but kept if it raises.
    Raises `PtlreidError` for a file that cannot be written, or a link.
    """
    path = partial_path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open_own(path)
    except OSError as error:
        raise unwritable(path, error) from error
    with stream:
        if not try_lock(stream):
            yield NOTHING
            return
        stream.seek(0)
        rows, end = _read(stream, fingerprint)
        stream.truncate(end)
        if not end:
            stream.write(_header(fingerprint))
        yield Partial(stream, rows, path)
        path.unlink(missing_ok=True)


def remove_abandoned(file: Path) -> None:
    """Remove the rows that a killed process left of `file`, which another has completed; not those in use."""
    path = partial_path(file)
    if path.is_symlink() or not path.is_file():
        return
    with suppress(OSError), path.open("rb") as stream:  # a folder that cannot be written to
        if try_lock(stream):
            path.unlink()


def count_rows(file: Path, fingerprint: Mapping[str, str]) -> int:
    """The number of rows of `file` that an interrupted extraction completed."""
    path = partial_path(file)
    if path.is_symlink() or not path.is_file():
        return 0
    with path.open("rb") as stream:
        return len(_read(stream, fingerprint)[0])


def _header(fingerprint: Mapping[str, str]) -> bytes:
    return json.dumps(dict(fingerprint), sort_keys=True).encode() + b"\n"


def _read(stream: BinaryIO, fingerprint: Mapping[str, str]) -> tuple[np.ndarray, int]:
    """The rows of the complete blocks, and the offset where the last of these ends: 0 if the fingerprint differs."""
    header, dtype = _header(fingerprint), np.dtype(fingerprint["dtype"])
    blocks: list[np.ndarray] = []
    size = os.fstat(stream.fileno()).st_size
    end = len(header) if stream.read(len(header)) == header else 0
    if not end:
        return np.empty((0, 0)), end
    while len(shape := stream.read(_SHAPE.size)) == _SHAPE.size:
        rows, width = _SHAPE.unpack(shape)
        length = rows * width * dtype.itemsize
        if stream.tell() + length > size:
            break
        block = np.frombuffer(stream.read(length), dtype).reshape(rows, width)
        if stream.read(_DIGEST_BYTES) != _digest(block) or (blocks and width != blocks[0].shape[1]):
            break
        blocks.append(block)
        end = stream.tell()
    return (np.concatenate(blocks) if blocks else np.empty((0, 0))), end


def _digest(block: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(block).data, digest_size=_DIGEST_BYTES).digest()
