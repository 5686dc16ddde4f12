"""How an image file becomes the array that a network sees. Frozen, and able to describe themselves.

A view decodes, resizes and augments in uint8, every choice drawn from a generator that it is handed; `standardize`
makes floats of whole batches where the network is, so that loader processes send a quarter of the bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ptlreid.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# Of ImageNet, as all of torchvision's weights expect: docs.pytorch.org/vision/stable/models.html
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EvalView:
    """The one way an image is seen in evaluation: resized, nothing drawn by chance."""

    height: int
    width: int

    def __call__(self, path: Path, rng: np.random.Generator | None = None) -> np.ndarray:
        """(height, width, 3) uint8 RGB; `rng` is not used. `DataError` for a file that cannot be decoded."""
        return _read(path, self.height, self.width)

    def describe(self) -> dict[str, Any]:
        """What features depend on, for JSON."""
        return {"view": "eval", **asdict(self), "interpolation": "bilinear, antialiased", "mean": MEAN, "std": STD}


@dataclass(frozen=True)
class TrainView:
    """Resized; then, each by chance, mirrored, cropped from a padded copy, and partly erased.

    `flip`: probability of the mirror. `pad`: rows and columns of black on each side, of which a crop of the same size
    as before is taken anywhere; 0 for none. `erase`: probability of random erasing (Zhong et al., AAAI 2020): a
    rectangle of 2 to 40% of the image, its sides at a ratio of 0.3 to 3.3, is filled with the mean colour.
    """

    height: int
    width: int
    flip: float = 0.5
    pad: int = 0
    erase: float = 0.0

    def __call__(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        """(height, width, 3) uint8 RGB, every choice drawn from `rng`."""
        image = _read(path, self.height, self.width)
        if rng.random() < self.flip:
            image = _mirrored(image)
        if self.pad:
            top, left = rng.integers(0, 2 * self.pad, size=2, endpoint=True)
            around = ((self.pad, self.pad), (self.pad, self.pad), (0, 0))
            image = np.pad(image, around)[top : top + self.height, left : left + self.width]
        if rng.random() < self.erase:
            image = _erased(image, rng)
        return np.ascontiguousarray(image)

    def describe(self) -> dict[str, Any]:
        """Every setting by name, for JSON."""
        return {"view": "train", **asdict(self), "interpolation": "bilinear, antialiased", "mean": MEAN, "std": STD}


def standardize(images: Tensor) -> Tensor:
    """(B, 3, H, W) float32 with ImageNet's mean and deviation, from (B, H, W, 3) uint8, on the same device."""
    import torch

    scale = 1 / (255 * torch.tensor(STD, device=images.device))
    shift = -torch.tensor(MEAN, device=images.device) / torch.tensor(STD, device=images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2).contiguous()


def _read(path: Path, height: int, width: int) -> np.ndarray:
    try:
        with Image.open(path) as file:
            pixels = np.array(file if file.mode == "RGB" else file.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: not an image that can be decoded ({error}). Replace the file, or take it out of the data set."
        ) from None
    return pixels if pixels.shape[:2] == (height, width) else _resize(pixels, height, width)


def _resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    # The kernel behind torchvision's v2 resize: the same numbers as Pillow's, in a fifth of the time where the
    # channels lie last in memory, as here.
    import torch
    from torch.nn import functional as F

    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
    return np.asarray(resized[0].permute(1, 2, 0).numpy())


def _mirrored(image: np.ndarray) -> np.ndarray:
    # A ninth of the time that NumPy takes, which copies reversed triples one by one.
    import torch

    return np.asarray(torch.from_numpy(image).flip(1).numpy())


def _erased(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with one rectangle in the mean colour; as it was where ten tries find none that fits."""
    rows, columns = image.shape[:2]
    for _ in range(10):
        area = rng.uniform(0.02, 0.4) * rows * columns
        ratio = rng.uniform(0.3, 1 / 0.3)
        height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < height <= rows and 0 < width <= columns:
            top, left = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
            image = image.copy()
            image[top : top + height, left : left + width] = np.rint(255 * np.array(MEAN))
            return image
    return image
