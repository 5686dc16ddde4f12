"""The completed rows of an interrupted extraction, from which it resumes.

They are in a file of their own next to the cache file: one line of JSON, the fingerprint, then blocks of rows with a
digest each. Rows count up to the first block that is incomplete or damaged.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ptlreid.locks import try_lock

BLOCK_ROWS = 512
_SHAPE = struct.Struct("<II")  # rows, width
_DIGEST_BYTES = 16


class Partial:
    """The completed rows, and where to append more. Made by `open_partial`; without a stream, nothing is kept."""

    def __init__(self, stream: BinaryIO | None, rows: np.ndarray) -> None:
        """`rows`: (n, D) as stored, (0, 0) where there are none."""
        self.rows = rows
        self._stream = stream
        self._waiting: list[np.ndarray] = []

    def append(self, rows: np.ndarray) -> None:
        """Add rows; they are written as soon as they fill a block."""
        if self._stream is None:
            return
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) < BLOCK_ROWS:
            return
        block = np.concatenate(self._waiting)
        self._stream.write(_SHAPE.pack(*block.shape) + block.tobytes() + _digest(block))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._waiting = []


NOTHING = Partial(None, np.empty((0, 0)))  # keeps no rows


def partial_path(file: Path) -> Path:
    """Where the rows of `file` are kept until it is complete."""
    return file.with_suffix(".partial")


@contextmanager
def open_partial(file: Path, fingerprint: Mapping[str, str]) -> Iterator[Partial]:
    """The completed rows of the features that will be `file`: none where those on disk have another fingerprint.

    One process at a time keeps rows: it holds a lock of the operating system, which ends with the process. A second
    process keeps none. The rows are removed when the block ends, and stay when it fails.
    """
    path = partial_path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        if not try_lock(stream):
            yield NOTHING
            return
        stream.seek(0)
        rows, end = _read(stream, fingerprint)
        stream.truncate(end)
        if not end:
            stream.write(_head(fingerprint))
        yield Partial(stream, rows)
        path.unlink()


def count_rows(file: Path, fingerprint: Mapping[str, str]) -> int:
    """How many rows of `file` an interrupted extraction completed."""
    path = partial_path(file)
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        return len(_read(stream, fingerprint)[0])


def _head(fingerprint: Mapping[str, str]) -> bytes:
    return json.dumps(dict(fingerprint), sort_keys=True).encode() + b"\n"


def _read(stream: BinaryIO, fingerprint: Mapping[str, str]) -> tuple[np.ndarray, int]:
    """The rows of the complete blocks, and where the last of these ends: 0 where the fingerprint differs."""
    head, dtype = _head(fingerprint), np.dtype(fingerprint["dtype"])
    blocks: list[np.ndarray] = []
    size = os.fstat(stream.fileno()).st_size
    end = len(head) if stream.read(len(head)) == head else 0
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
