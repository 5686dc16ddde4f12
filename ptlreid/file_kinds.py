"""What a file is, in words, from its content: for messages about a file of another kind than its name says."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from pathlib import Path

_HEAD_BYTES = 4096  # enough for every signature and for the first line of a text
_SHOWN = 60  # characters of a text

# By the first bytes of the content, most specific first.
_SIGNATURES = {
    r"version https://git-lfs\.github\.com/": "a Git LFS pointer (run `git lfs pull` for the file itself)",
    r"/annex/objects/|\.\./\.git/annex/": "a git-annex pointer (run `git annex get` for the file itself)",
    r"(?i)(\xef\xbb\xbf)?\s*<(.*<)?(!doctype\s+html|html|head|body)\b": (
        "an HTML page (often a login or error page in place of a download)"
    ),
    r"(\xef\xbb\xbf)?\s*<\?xml": "an XML file",
    r"\x89HDF\r\n\x1a\n": "an HDF5 file",
    r"MATLAB 7\.3 MAT-file": "a MATLAB 7.3 file",
    r"MATLAB 5\.0 MAT-file": "a MATLAB 5 file",
    r"\x93NUMPY": "a NumPy array",
    r"\x1f\x8b": "a gzip archive",
    r"BZh[1-9]": "a bzip2 archive",
    r"\xfd7zXZ\x00": "an xz archive",
    r"\x28\xb5\x2f\xfd": "a zstd archive",
    r"7z\xbc\xaf\x27\x1c": "a 7z archive",
    r"Rar!\x1a\x07": "a RAR archive",
    r".{257}ustar": "a tar archive",
    r"\xff\xd8\xff": "a JPEG image",
    r"\x89PNG\r\n\x1a\n": "a PNG image",
    r"GIF8[79]a": "a GIF image",
    r"RIFF.{4}WEBP": "a WebP image",
    r"(II\*\x00|MM\x00\*)": "a TIFF image",
    r"BM.{4}\x00{4}": "a BMP image",
    r"%!PS": "a PostScript file",
    r"%PDF-": "a PDF document",
    r".{4}\x00{4}\{": "a safetensors file",  # the length of its JSON header, then the header
    r"\x08[\x01-\x20]\x12[\x01-\x7f][\w.\- ]+[\x1a\x22\x2a\x3a\x42]": "an ONNX model",  # version, producer, next field
    r"\x80.\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.": "a file of torch.save (old format)",
    r"\x80[\x02-\x05]": "a pickle",
    r"\x7fELF|MZ": "a program",
    r"\x00{16}": "a file of zeros (as a broken copy or download leaves it)",
}
# By the name of a member of a ZIP file.
_MEMBERS = {
    r".*\.npy": "a NumPy archive (.npz)",
    r"[^/]+/constants\.pkl": "a TorchScript archive",
    r"[^/]+/data\.pkl": "a file of torch.save",
    r"word/.*|xl/.*|ppt/.*": "an Office document",
}


def identify(source: Path | bytes) -> str:
    """What the file `source`, or the content of one, is: `an HTML page`, `a TorchScript archive`, `an empty file`.

    Raises `OSError` if it cannot be read. Nothing but a regular file is opened.
    """
    if isinstance(source, Path):
        if not source.is_file():
            source.stat()  # raises where there is nothing
            return "a folder" if source.is_dir() else "a pipe or device"
        with source.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    else:
        head = source[:_HEAD_BYTES]
    if not head:
        return "an empty file"
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _identify_zip(source, head)
    for pattern, words in _SIGNATURES.items():
        if re.match(pattern.encode("latin-1"), head, re.DOTALL):
            return words
    return _identify_text(head)


def printable(text: str, limit: int = 200) -> str:
    """`text` in one line for a message: what no terminal should be sent is escaped, and the rest cut at `limit`."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def _identify_zip(source: Path | bytes, head: bytes) -> str:
    """What is packed as a ZIP file. An incomplete one is known by its first member, as its directory is at the end."""
    try:
        with zipfile.ZipFile(source if isinstance(source, Path) else io.BytesIO(source)) as file:
            names, damaged = file.namelist(), ""
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, zlib.error):
        length = int.from_bytes(head[26:28], "little")
        names, damaged = [head[30 : 30 + length].decode("utf-8", "replace")], ", incomplete or damaged"
    for pattern, words in _MEMBERS.items():
        if any(re.fullmatch(pattern, name) for name in names):
            return words + damaged
    return f"a ZIP archive{damaged}"


def _identify_text(head: bytes) -> str:
    """A text with its beginning; otherwise a file of an unknown kind."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a character cut by the limit
            return "a file of an unknown kind"
        text = head[: error.start].decode("utf-8-sig")
    if any(one < " " and one not in "\t\n\r\f" for one in text):
        return "a file of an unknown kind"
    kind = "JSON" if text.lstrip().startswith(("{", "[")) else "text"
    first, *_ = text.strip().splitlines() or [""]
    return f"{kind} ({printable(first, _SHOWN)!r})"
