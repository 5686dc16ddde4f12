"""How an image file becomes the array that a network sees. Frozen, and able to describe themselves.

A view decodes, resizes and augments in uint8 with Pillow; `standardize` makes floats of whole batches where the
network is, so that loader processes send a quarter of the bytes and need no torch.
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
        return np.asarray(_decode(path, self.height, self.width))

    def describe(self) -> dict[str, Any]:
        """What features depend on, for JSON."""
        return {"view": "eval", **asdict(self), "interpolation": "bilinear", "mean": MEAN, "std": STD}


@dataclass(frozen=True)
class TrainView:
    """Resized, and mirrored with probability `flip`."""

    height: int
    width: int
    flip: float = 0.5

    def __call__(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        """(height, width, 3) uint8 RGB, every choice drawn from `rng`."""
        image = np.asarray(_decode(path, self.height, self.width))
        if rng.random() < self.flip:
            image = np.ascontiguousarray(image[:, ::-1])
        return image


def standardize(images: Tensor) -> Tensor:
    """(B, 3, H, W) float32 with ImageNet's mean and deviation, from (B, H, W, 3) uint8, on the same device."""
    import torch

    scale = 1 / (255 * torch.tensor(STD, device=images.device))
    shift = -torch.tensor(MEAN, device=images.device) / torch.tensor(STD, device=images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2).contiguous()


def _decode(path: Path, height: int, width: int) -> Image.Image:
    try:
        with Image.open(path) as file:
            # Pillow's bilinear filter widens with the reduction, so that shrinking does not alias.
            return file.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: not an image that can be decoded ({error}). Replace the file, or take it out of the data set."
        ) from None
