"""Image files: the formats that are read, and how their pixels become 8-bit RGB, upright.

Every part of the package that needs pixels decodes them here, so that training, features, packs, checks and reports see
the same ones.
"""

from __future__ import annotations

import ctypes
import logging
import struct
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging
from PIL.ImageFile import ImageFile

from ptlreid.errors import DataError
from ptlreid.file_kinds import identify
from ptlreid.tar_members import open_content

# Pillow's names of the formats, most frequent first, and the suffixes of their files, in any case. Pillow opens no
# other format, whatever the suffix: for EPS, it would start Ghostscript.
_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
IMAGE_SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
FORMATS = "JPEG, PNG, BMP, WebP or TIFF"  # for messages

# The version of this file's rules. Features and packs state it: another one may give other pixels for the same bytes.
DECODING = 2

_REFUSED = {
    "I": "32-bit or signed integers",
    "F": "floating-point numbers",
}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the last two
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Without a handler, Python prints what Pillow logs about damaged files.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# What Pillow raises for EXIF data that it cannot parse.
_BROKEN_EXIF = (OSError, SyntaxError, ValueError, TypeError, struct.error)


def read_image(path: Path, draft: tuple[int, int] | None = None) -> Image.Image:
    """The image in the file at `path`, or in a member of a tar file that it names; see `decode_image`.

    `DataError` if it is not a regular file or not an image.
    """
    try:
        with open_content(path) as stream:
            return decode_image(stream, draft and ("RGB", draft))
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise DataError(
            f"{path}: not an image that can be decoded ({reason}). Replace the file, or remove it from the dataset."
        ) from None


def decode_image(stream: BinaryIO, draft: tuple[str, tuple[int, int]] | None = None) -> Image.Image:
    """The first image in `stream`, in RGB, see `to_rgb`, turned as its EXIF orientation says.

    `draft`: a mode and the least width and height that are needed; from a JPEG, fewer pixels are then computed. Raises
    `ValueError` for anything that is not an image of a known format, complete and of at most the number of pixels that
    Pillow takes for safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files that Pillow reads with a warning can be trained on,
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # but for this one
            with Image.open(stream, formats=tuple(_FORMATS)) as image:
                if draft:
                    image.draft(*draft)
                if image.format == "TIFF":
                    _silence_libtiff()
                _check_coverage(image)
                image.load()
                return _turn_upright(to_rgb(image), image)
    except UnidentifiedImageError:  # its message contains a memory address
        raise ValueError(_describe_unknown(stream)) from None
    except Exception as error:  # noqa: BLE001 - on damaged files, Pillow's readers raise exceptions of any kind
        raise ValueError(str(error) or type(error).__name__) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; `ValueError` for pixels that 8 bits cannot represent, or whose range is unknown.

    16-bit values become their high byte, as Pillow itself reads 16-bit colours. Transparency is ignored.
    """
    if image.mode == "RGB":
        return image
    if image.mode in _REFUSED or _tiff_tag(image, _SAMPLE_FORMAT, 1) == _SIGNED:
        kind = _REFUSED.get(image.mode, "signed integers")
        raise ValueError(f"its pixels are {kind}: expected unsigned integers of at most 16 bits per channel")
    if image.mode.startswith("I;16"):
        image = _take_high_bytes(image)
    return image.convert("RGB")


def _describe_unknown(stream: BinaryIO) -> str:
    """Why Pillow finds no image in `stream`."""
    stream.seek(0)
    kind = identify(stream.read())
    if kind.endswith(" image") and kind.split()[1].upper() in _FORMATS:
        return f"{kind} of a kind that is not supported, or with a damaged header"
    return f"expected a {FORMATS} file, found {kind}"


def _check_coverage(image: ImageFile) -> None:
    """`ValueError` if the file has data for a part of the image only, where Pillow leaves the rest black."""
    boxes = [tile[1] for tile in image.tile if tile[1] is not None]
    areas = [(right - left) * (lower - upper) for left, upper, right, lower in boxes]
    if areas and sum(areas) < image.width * image.height:  # a WebP has none before it is loaded
        raise ValueError("it lacks the pixels of some rows")


@cache
def _silence_libtiff() -> None:
    """Its messages on damaged files go to standard error, although each ends in an exception of Pillow's, too."""
    with suppress(OSError, AttributeError):  # where libtiff is no library of its own
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _take_high_bytes(image: Image.Image) -> Image.Image:
    pixels = (np.asarray(image) >> (_tiff_tag(image, _BITS, 16) - 8)).astype(np.uint8)  # TIFF also has 12 bits
    return Image.fromarray(255 - pixels if _tiff_tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO else pixels)


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """The first value of a tag of a TIFF; `default` if it has none, or if the image is not from a TIFF."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _turn_upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """`rgb` turned as the EXIF data of `image` says. Pillow turns a TIFF itself when it loads one."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN_EXIF:  # the pixels are fine
        return rgb
    return rgb if turn is None else rgb.transpose(turn)
