"""Views: the preprocessing from an image file to the network's input, as frozen values with a description.

Images are decoded, resized and augmented in uint8, with random numbers from a generator that is passed in;
`standardize` converts whole batches to float on the network's device, so that loader processes send a quarter of the
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from ptlreid.errors import DataError
from ptlreid.image_files import DECODING, read_image, to_rgb
from ptlreid.network_types import Interpolation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# ImageNet's, which all of torchvision's weights expect: docs.pytorch.org/vision/stable/models.html
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_constants: dict[torch.device, tuple[Tensor, Tensor]] = {}  # what `standardize` adds and multiplies by, by device

_PIXELS = {"decoding": DECODING, "mean": MEAN, "std": STD}


@dataclass(frozen=True)
class EvalView:
    """Preprocessing for evaluation: resizing, nothing random."""

    height: int
    width: int
    interpolation: Interpolation = "bilinear"
    crop: ClassVar[float] = 0.0

    def cut(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image: evaluation sees all of it."""
        return image

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> None:
        """Leaves the image unchanged."""

    def describe(self) -> dict[str, Any]:
        """Everything that features depend on, for JSON."""
        return {"view": "eval", **asdict(self), **_PIXELS, "interpolation": f"{self.interpolation}, antialiased"}


@dataclass(frozen=True)
class GraphView(EvalView):
    """Preprocessing for an ONNX graph: as `EvalView`, with the mean and std, in RGB order, and the colour order that it
    expects.
    """

    _: KW_ONLY
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool

    def describe(self) -> dict[str, Any]:
        """Everything that features depend on, for JSON."""
        return super().describe() | {"mean": self.mean, "std": self.std, "bgr": self.bgr}


@dataclass(frozen=True)
class TrainView:
    """Augmentation for training: random rectangle crop, resizing, horizontal flip, padded random crop, random erasing.

    `crop`: probability of open-reid's rectangle crop (github.com/Cysu/open-reid): of the original image, a rectangle of
    64 to 100% of its area, two to three times as high as wide, is resized instead of all of it. `flip`: probability of
    the horizontal flip. `pad`: black rows and columns added on each side before a crop of the original size is taken at
    a random position; 0 for none. `erase`: probability of random erasing (Zhong et al., AAAI 2020): a rectangle of 2 to
    40% of the image, with an aspect ratio of 0.3 to 3.3, is filled with the mean colour.
    """

    height: int
    width: int
    interpolation: Interpolation = "bilinear"
    _: KW_ONLY
    crop: float
    flip: float
    pad: int
    erase: float

    def cut(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The part of an original (H, W, 3) image that is resized, with random numbers from `rng`: not a copy."""
        if rng.random() >= self.crop:
            return image
        window = _sample_window(image, rng, areas=(0.64, 1), ratios=(2, 3))
        return image if window is None else image[window]

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> None:
        """Changes the (height, width, 3) uint8 image in place, with random numbers from `rng`."""
        if rng.random() < self.flip:
            _mirror(image)
        if self.pad:
            _crop(image, self.pad, *rng.integers(0, 2 * self.pad, size=2, endpoint=True).tolist())
        if rng.random() < self.erase:
            _erase(image, rng)

    def describe(self) -> dict[str, Any]:
        """Every setting by name, for JSON."""
        return {"view": "train", **asdict(self), **_PIXELS, "interpolation": f"{self.interpolation}, antialiased"}


View = EvalView | TrainView


def standardize(images: Tensor) -> Tensor:
    """(B, 3, H, W) float32, standardised by ImageNet's mean and std, from (B, H, W, 3) uint8, same device."""
    import torch

    if images.device not in _constants:  # each copy to a GPU waits for it: once, not with every batch
        with torch.inference_mode(False):  # whoever comes first, training may use them too
            mean, std = torch.tensor(MEAN, device="cpu"), torch.tensor(STD, device="cpu")
            _constants[images.device] = ((-mean / std).to(images.device), (1 / (255 * std)).to(images.device))
    shift, scale = _constants[images.device]
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2).contiguous()


def decode(source: Path | np.ndarray | Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file, a PIL image or such an array, read-only. `DataError` if it is not an image.

    A PIL image is not turned by its EXIF orientation, as it may have been turned already.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise DataError(f"An array of {source.dtype}, shape {source.shape}: expected (H, W, 3) uint8 RGB.")
        return source
    if isinstance(source, Image.Image):
        try:
            return np.asarray(to_rgb(source))
        except ValueError as error:
            raise DataError(f"A PIL image of mode {source.mode}: {error}. Convert it to RGB.") from None
    return np.asarray(read_image(source))


def resize(images: Sequence[np.ndarray], view: View) -> np.ndarray:
    """(B, height, width, 3) uint8 in the size of `view`: B images of any size, (H, W, 3) uint8 each.

    Images that have that size already are copied. The result for an image does not depend on the others.
    """
    resized = np.empty((len(images), view.height, view.width, 3), dtype=np.uint8)
    sizes = [image.shape for image in images]
    for size in dict.fromkeys(sizes):  # one call per size takes two thirds of the time
        rows = [row for row, other in enumerate(sizes) if other == size]
        batch = np.stack([images[row] for row in rows])
        if size != resized.shape[1:]:
            batch = _interpolate(batch, view)
        if len(rows) == len(images):
            return batch
        resized[rows] = batch
    return resized


def _interpolate(images: np.ndarray, view: View) -> np.ndarray:
    # The kernel behind torchvision's v2 resize: Pillow's result in a fifth of the time if, as here, the channels are
    # last in memory.
    import torch
    from torch.nn import functional as F

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (view.height, view.width), mode=view.interpolation, antialias=True)
    return np.asarray(resized.permute(0, 2, 3, 1).contiguous().numpy())


def _mirror(image: np.ndarray) -> None:
    # Takes a ninth of the time of NumPy, which copies reversed triples one by one.
    import torch

    pixels = torch.from_numpy(image)
    pixels.copy_(pixels.flip(1))


def _crop(image: np.ndarray, pad: int, top: int, left: int) -> None:
    """Replaces the image by the window at `top`, `left` of a copy with `pad` black pixels on each side."""
    height, width = image.shape[:2]
    padded = np.zeros((height + 2 * pad, width + 2 * pad, 3), dtype=np.uint8)
    padded[pad : pad + height, pad : pad + width] = image
    image[:] = padded[top : top + height, left : left + width]


def _erase(image: np.ndarray, rng: np.random.Generator) -> None:
    """Fills one rectangle with the mean colour; none if none of ten random ones fits."""
    window = _sample_window(image, rng, areas=(0.02, 0.4), ratios=(0.3, 1 / 0.3))
    if window is not None:
        image[window] = np.rint(255 * np.array(MEAN))


def _sample_window(
    image: np.ndarray, rng: np.random.Generator, *, areas: tuple[float, float], ratios: tuple[float, float]
) -> tuple[slice, slice] | None:
    """Rows and columns of a random rectangle of the image; None if none of ten random ones fits.

    `areas`: limits of its share of the image's area. `ratios`: limits of its height divided by its width.
    """
    rows, columns = image.shape[:2]
    for _ in range(10):
        area = rng.uniform(*areas) * rows * columns
        ratio = rng.uniform(*ratios)
        height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < height <= rows and 0 < width <= columns:
            top, left = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
            return slice(top, top + height), slice(left, left + width)
    return None
