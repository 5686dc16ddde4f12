"""What every network is: images to an `Output` in training, and to features in retrieval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptlreid.network_types import Memory, Output, Readout


class Network(nn.Module):
    """The base of all networks. `feature_width`: D. `readout`: how its features are read unless asked otherwise."""

    feature_width: int
    readout = Readout()

    def forward(self, images: Tensor) -> Output:
        """(B, 3, H, W) standardised images to their `Output`."""
        raise NotImplementedError

    def features(self, images: Tensor, readout: Readout | None = None) -> Tensor:
        """(B, D) float32, what retrieval compares, read as `readout` says; the module is in eval mode.

        A feature of length 0 stays 0 when it is normalised.
        """
        assert not self.training, "features are those of eval mode"
        readout = readout or self.readout
        if readout.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        dtype = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[readout.amp]
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            features = self(images).embedding.float()
            if readout.flip:
                features = features + self(images.flip(3)).embedding.float()
        return F.normalize(features) if readout.normalize else features


@dataclass(frozen=True)
class Backbone:
    """What one file in `models/backbones` says of itself: all that the rest needs to build, start and list it.

    `plain(classes)` and `ptl(classes, memory)`: the network without and with BConv-Cells, freshly made.
    `multiples`: what the image's height and width must be multiples of. `input_size`: the paper's, or this field's.
    `paper`: #Param in the paper's Table 1 or text, in millions, without and with PTL. `imagenet()`: torchvision's
    weights in torchvision's names, downloaded or from its cache. `rename(key)`: where a tensor of that name belongs in
    the network: nowhere, in one place or in several.
    """

    plain: Callable[[int], Network]
    ptl: Callable[[int, Memory], Network]
    imagenet: Callable[[], dict[str, Any]]
    rename: Callable[[str], tuple[str, ...]]
    multiples: tuple[int, int] = (32, 32)
    input_size: tuple[int, int] = (256, 128)
    paper: tuple[int | None, int | None] = (None, None)
