"""Damage to the strings of HDF5 files with which the HDF5 library would never return, or take gigabytes.

Variable-length strings are in heaps (`GCOL`): each a list of objects, every one with its size. The library (2.0 and
earlier) walks a list from one object to the next, and stays forever at a free object of size 0. An array of strings
holds the length and place of each, and the library reserves that length unchecked.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import h5py
import numpy as np

_SIGNATURE = b"GCOL\x01"
_REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])
_HEADER = 16  # bytes: of a heap and of each object in it
_LENGTH_SIZES = {0: 14, 1: 14, 2: 10, 3: 10}  # by version of the superblock, the position of the size of lengths


def check_heaps(file: Path, skip: range = range(0)) -> None:
    """Raises `OSError` where a list of strings in the HDF5 `file` has no end; other damage the library finds itself.

    `skip`: bytes that hold an array of numbers, and no list.
    """
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if len(content) <= _HEADER or content[_LENGTH_SIZES.get(content[8], 14)] != 8:
            return
        # A heap is after the superblock; one that ends in the skipped part begins before it.
        for part in (range(_HEADER, skip.start), range(max(_HEADER, skip.stop), len(content))):
            position = content.find(_SIGNATURE, part.start, part.stop)
            while position >= 0:
                _walk(content, position)
                position = content.find(_SIGNATURE, position + 1, part.stop)


def check_lengths(file: Path, strings: h5py.Dataset) -> None:
    """Raises `OSError` where an array of variable-length strings has more text than the HDF5 `file` has bytes.

    Compressed arrays are not looked into.
    """
    storage = strings.id
    if strings.chunks is None:
        parts = [(storage.get_offset(), storage.get_storage_size())]
    elif storage.get_create_plist().get_nfilters():
        return
    else:
        parts = []
        storage.chunk_iter(lambda chunk: parts.append((chunk.byte_offset, chunk.size)))
    for offset, size in parts:
        if offset is not None:
            references = np.fromfile(file, _REFERENCE, count=size // _REFERENCE.itemsize, offset=offset)
            if references["length"].sum(dtype=np.int64) > file.stat().st_size:
                raise OSError(f"{strings.name}: the length of a string is damaged")


def _walk(content: mmap.mmap, position: int) -> None:
    """Follows the objects of the heap at `position`, as the library does."""
    size = int.from_bytes(content[position + 8 : position + 16], "little")
    end = min(position + size, len(content))
    position += _HEADER
    while position + _HEADER <= end:
        index, size = struct.unpack_from("<H6xQ", content, position)
        step = (_HEADER + (size + 7) // 8 * 8) % 2**64 if index else size
        if not step:
            raise OSError("a list of strings in it is damaged")
        position += step
