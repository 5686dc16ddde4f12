"""How an image file becomes the array that a network sees. Frozen, and able to describe themselves.

Images are decoded, resized and augmented in uint8, every choice drawn from a generator that a view is handed;
`standardize` makes floats of whole batches where the network is, so that loader processes send a quarter of the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
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
INTERPOLATION = "bilinear, antialiased"


@dataclass(frozen=True)
class EvalView:
    """The one way an image is seen in evaluation: resized, nothing drawn by chance."""

    height: int
    width: int

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> None:
        """Leaves the image as it is."""

    def describe(self) -> dict[str, Any]:
        """What features depend on, for JSON."""
        return {"view": "eval", **asdict(self), "interpolation": INTERPOLATION, "mean": MEAN, "std": STD}


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

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> None:
        """Changes the (height, width, 3) uint8 image itself, every choice drawn from `rng`."""
        if rng.random() < self.flip:
            _mirror(image)
        if self.pad:
            _crop(image, self.pad, *rng.integers(0, 2 * self.pad, size=2, endpoint=True).tolist())
        if rng.random() < self.erase:
            _erase(image, rng)

    def describe(self) -> dict[str, Any]:
        """Every setting by name, for JSON."""
        return {"view": "train", **asdict(self), "interpolation": INTERPOLATION, "mean": MEAN, "std": STD}


def standardize(images: Tensor) -> Tensor:
    """(B, 3, H, W) float32 with ImageNet's mean and deviation, from (B, H, W, 3) uint8, on the same device."""
    import torch

    scale = 1 / (255 * torch.tensor(STD, device=images.device))
    shift = -torch.tensor(MEAN, device=images.device) / torch.tensor(STD, device=images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2).contiguous()


def decode(source: Path | np.ndarray | Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file, a PIL image or such an array, read-only. `DataError` for what is no image."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise DataError(f"An array of {source.dtype}, shape {source.shape}: expected (H, W, 3) uint8 RGB.")
        return source
    if isinstance(source, Image.Image):
        return np.asarray(source.convert("RGB"))
    path = source
    try:
        with Image.open(path) as file:
            return np.asarray(file if file.mode == "RGB" else file.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: not an image that can be decoded ({error}). Replace the file, or take it out of the dataset."
        ) from None


def resize(images: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """(B, height, width, 3) uint8: B images of any size, (H, W, 3) uint8 each. One that fits already is copied.

    What an image becomes does not depend on the others.
    """
    resized = np.empty((len(images), height, width, 3), dtype=np.uint8)
    sizes = [image.shape for image in images]
    for size in dict.fromkeys(sizes):  # all of one size in one call, which takes two thirds of the time
        places = [place for place, other in enumerate(sizes) if other == size]
        alike = np.stack([images[place] for place in places])
        done = alike if size == resized.shape[1:] else _interpolate(alike, height, width)
        if len(places) == len(images):
            return done
        resized[places] = done
    return resized


def _interpolate(images: np.ndarray, height: int, width: int) -> np.ndarray:
    # The kernel behind torchvision's v2 resize: the same numbers as Pillow's, in a fifth of the time where the
    # channels lie last in memory, as here.
    import torch
    from torch.nn import functional as F

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return np.asarray(resized.permute(0, 2, 3, 1).contiguous().numpy())


def _mirror(image: np.ndarray) -> None:
    # A ninth of the time that NumPy takes, which copies reversed triples one by one.
    import torch

    pixels = torch.from_numpy(image)
    pixels.copy_(pixels.flip(1))


def _crop(image: np.ndarray, pad: int, top: int, left: int) -> None:
    """Leaves what a window of the image's size shows at `top`, `left` of a copy with `pad` black rows all round."""
    height, width = image.shape[:2]
    framed = np.zeros((height + 2 * pad, width + 2 * pad, 3), dtype=np.uint8)
    framed[pad : pad + height, pad : pad + width] = image
    image[:] = framed[top : top + height, left : left + width]


def _erase(image: np.ndarray, rng: np.random.Generator) -> None:
    """Fills one rectangle with the mean colour; none where ten tries find none that fits."""
    rows, columns = image.shape[:2]
    for _ in range(10):
        area = rng.uniform(0.02, 0.4) * rows * columns
        ratio = rng.uniform(0.3, 1 / 0.3)
        height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < height <= rows and 0 < width <= columns:
            top, left = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
            image[top : top + height, left : left + width] = np.rint(255 * np.array(MEAN))
            return
