"""Image crops, small enough to be embedded in a page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ptlreid.errors import DataError
from ptlreid.image_files import read_image

_LARGEST = (96, 192)  # width and height: a crop of Market-1501, 64×128, keeps its size
_QUALITY = 80
_DARKEST, _FINER = 190, 4  # of 255, where two images do not agree; pixels for each position, both ways
_MISSING, _GREY = (64, 128), (128, 128, 128)  # size and colour of a crop that cannot be read


@dataclass(frozen=True)
class Crop:
    """An image on the page: `name` is its id there, `uri` a JPEG as a data URI, `width` and `height` in pixels."""

    name: str
    width: int
    height: int
    uri: str


def embed_crops(paths: Iterable[Path], *, incomplete: bool = False) -> dict[Path, Crop]:
    """One crop per distinct path.

    `DataError` for a file that cannot be decoded; if `incomplete`, its crop is a grey box.
    """
    crops: dict[Path, Crop] = {}
    for path in paths:
        if path not in crops:
            try:
                image = read_crop(path)
            except DataError:
                if not incomplete:
                    raise
                image = Image.new("RGB", _MISSING, _GREY)
            uri = _make_uri(image, "jpeg", quality=_QUALITY)
            crops[path] = Crop(f"crop{len(crops)}", *image.size, uri)
    return crops


def embed_spotlight(values: np.ndarray) -> str:
    """An image that darkens what is below it, as the data URI of a PNG.

    `values`: (H, W) between 0, where it darkens most, and 1; between positions they are interpolated.
    """
    alpha = np.rint(_DARKEST * (1 - np.clip(values, 0, 1))).astype(np.uint8)
    size = (_FINER * alpha.shape[1], _FINER * alpha.shape[0])
    smooth = Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC)
    return _make_uri(Image.merge("LA", (Image.new("L", size), smooth)), "png")


def _make_uri(image: Image.Image, kind: str, **settings: int) -> str:
    stream = BytesIO()
    image.save(stream, format=kind, optimize=True, **settings)
    return f"data:image/{kind};base64,{b64encode(stream.getvalue()).decode()}"


def read_crop(path: Path) -> Image.Image:
    """The image in RGB, scaled down to at most 96×192. Raises `DataError` for a file that cannot be decoded."""
    image = read_image(path, draft=_LARGEST)
    image.thumbnail(_LARGEST)
    return image
