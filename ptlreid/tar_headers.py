"""The headers of a tar file: where the content of each regular file is (ustar and pax of POSIX.1-2001, GNU long names).

`tarfile` of the standard library reads the same, but makes an object of each member, which takes many times as long,
and takes a damaged header or a cut file for the end. Here they are errors.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ptlreid.errors import DataError
from ptlreid.file_kinds import identify, printable

_BLOCK = 512
_END = bytes(_BLOCK)
_BUFFER = 1 << 15  # bytes read at once: some headers of crops, and little of large files
_MOST_METADATA = 1 << 20  # bytes of a long name or of a pax header
_ADLER = 65521  # zlib.adler32 holds the sum of all bytes by this modulus, in a tenth of the time of sum()
_REGULAR, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _PAX, _IGNORED = b"L", b"x", (b"K", b"g")  # of one member; long link targets, and pax headers of all
_OTHERS = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file"}
_UNPACKERS = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz", "zstd": "unzstd"}


class Entry(NamedTuple):
    """A regular file in a tar file: its name with `/`, and where its content is, in bytes."""

    name: bytes
    offset: int
    size: int


def read_entries(tar: str, descriptor: int) -> Iterator[Entry]:
    """The regular files in the tar file called `tar`, which is open, in its order. Folders are passed over.

    Raises `DataError` for a file that is no tar file, compressed or damaged, that ends before its end mark or holds
    more behind it; and for members that are links or anything else but files, or whose names lead elsewhere.
    """
    with open(descriptor, "rb", buffering=_BUFFER, closefd=False) as stream:
        yield from _read_members(tar, stream, os.fstat(descriptor).st_size)
        while block := stream.read(1 << 20):
            if block.count(0) < len(block):
                raise DataError(
                    f"{tar}: holds more behind its end mark: expected one tar file, and not several joined. Repack it, "
                    "or join the parts with `tar --concatenate`."
                )


def _read_members(tar: str, stream: BinaryIO, length: int) -> Iterator[Entry]:
    """The regular files up to the end mark, behind which the stream then is."""
    at, name, size = 0, b"", -1  # name and size: as headers in front of the member state them
    while (header := _read_at(stream, at)) != _END:
        kind, start = header[156:157], at + _BLOCK
        content = _check_header(tar, header, at, length)
        if size >= 0 and kind in _REGULAR:
            content = size
        at = start + -(-content // _BLOCK) * _BLOCK
        called = name or _read_name(header)
        if start + content > length:
            raise _make_cut(tar, f"inside {_show(called)}, which ends at byte {start + content:,}", length)
        if kind == _LONG_NAME:
            name = _read_metadata(tar, stream, start, content).partition(b"\0")[0]
        elif kind == _PAX:
            name, size = _read_pax(tar, _read_metadata(tar, stream, start, content), start)
        elif kind not in _IGNORED:
            if kind in _REGULAR and not called.endswith(b"/"):
                yield Entry(_check_name(tar, called), start, content)
            elif kind not in (*_REGULAR, _FOLDER):
                raise _make_refusal(tar, called, _OTHERS.get(kind, "a device, a pipe or of an unknown kind"))
            name, size = b"", -1


def _read_at(stream: BinaryIO, at: int) -> bytes:
    stream.seek(at)
    return stream.read(_BLOCK)


def _check_header(tar: str, header: bytes, at: int, length: int) -> int:
    """The size of the content behind a header; `DataError` for one that is incomplete or damaged."""
    if len(header) < _BLOCK and at:
        raise _make_cut(tar, "without the zeros that mark the end of a tar file", length)
    try:
        checksum = int(header[148:156].strip(b" \0"), 8)
        size = header[124:136]
        stated = int.from_bytes(size[1:]) if size[0] == 0x80 else int(size.strip(b" \0") or b"0", 8)
    except (ValueError, IndexError):
        checksum, stated = -1, -1
    # The sum of all bytes, with spaces in place of the checksum itself.
    found = (zlib.adler32(header) & 0xFFFF) - 1 - sum(header[148:156]) + 8 * ord(" ")
    if stated < 0 or (found - checksum) % _ADLER:
        raise _make_damage(tar, header, at)
    return stated


def _read_name(header: bytes) -> bytes:
    """The name in a header; of POSIX, its first part may be in a field of its own."""
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _read_metadata(tar: str, stream: BinaryIO, start: int, size: int) -> bytes:
    if size > _MOST_METADATA:
        raise DataError(
            f"{tar}: a name or pax header of {size:,} bytes at byte {start:,}: expected at most {_MOST_METADATA:,}. It "
            "may be damaged: copy or download it again, or repack it."
        )
    stream.seek(start)
    return stream.read(size)


def _read_pax(tar: str, records: bytes, start: int) -> tuple[bytes, int]:
    """Name and size in a pax header's records, `LENGTH KEY=VALUE` and a line end each; b"" and -1 for none."""
    found, at = {}, 0
    try:
        while at < len(records):
            digits, _, _ = records[at : at + 20].partition(b" ")
            end = at + int(digits)
            key, equals, value = records[at + len(digits) + 1 : end - 1].partition(b"=")
            if not equals or records[end - 1 : end] != b"\n":
                raise ValueError
            found[key], at = value, end
        size = int(found.get(b"size", b"-1"))
    except ValueError:
        raise _make_damage(tar, records, start) from None
    name = found.get(b"path", b"")
    if any(key.startswith(b"GNU.sparse.") for key in found):
        raise _make_refusal(tar, found.get(b"GNU.sparse.name", name), _OTHERS[b"S"])
    return name, size


def _check_name(tar: str, name: bytes) -> bytes:
    """The name as a path spells it, without `./`; `DataError` for one that would lead out of a folder."""
    if name and not (b"/." in name or b"//" in name or name[0] in b"./"):
        return name
    parts = name.split(b"/")
    if not name or not parts[0] or b".." in parts:
        raise DataError(
            f"{tar}: a member is called {_show(name) or 'nothing'}: expected a name without `..` that does not begin "
            "with `/`. Repack it from the folder that holds the images."
        )
    return b"/".join(part for part in parts if part not in (b"", b"."))


def _make_cut(tar: str, where: str, length: int) -> DataError:
    return DataError(
        f"{tar}: ends at byte {length:,}, {where}: expected a complete tar file. Copy or download it again; what "
        "was cut off is not known."
    )


def _make_damage(tar: str, found: bytes, at: int) -> DataError:
    what = identify(found)
    packed = next((command for name, command in _UNPACKERS.items() if f" {name} archive" in f" {what}"), "")
    if not at and packed:
        return DataError(
            f"{tar}: is {what}: expected a tar file without compression, as images are read by their place in it. "
            f"Unpack it with `{packed}`; images are compressed already."
        )
    if not at:
        return DataError(f"{tar}: is {what}: expected a tar file. Make one with `tar -cf`, or give the images.")
    return DataError(
        f"{tar}: no header of a member at byte {at:,}: it is damaged. Copy or download it again, or repack it."
    )


def _make_refusal(tar: str, name: bytes, kind: str) -> DataError:
    return DataError(
        f"{tar}: {_show(name) or 'a member'} is {kind}: expected files and folders. Repack the images themselves with "
        "`tar --dereference --hard-dereference -cf`."
    )


def _show(name: bytes) -> str:
    return printable(os.fsdecode(name))
