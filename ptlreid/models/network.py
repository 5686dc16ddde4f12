"""The interface of every network: images to an `Output` in training, and to features in retrieval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptlreid.devices import AUTOCAST, float32_arithmetic
from ptlreid.network_types import NetworkSpec, Output, Readout


class Network(nn.Module):
    """The base class of all networks. `feature_width`: D. `readout`: how its features are read by default."""

    feature_width: int
    readout = Readout()

    def forward(self, images: Tensor) -> Output:
        """The `Output` for (B, 3, H, W) standardised images."""
        raise NotImplementedError

    def features(self, images: Tensor, readout: Readout | None = None, centres: Tensor | None = None) -> Tensor:
        """(B, D) float32 features for retrieval, read by `readout` or the network's own; needs eval mode.

        `centres`: (2, B, D), subtracted from the features of images and of their mirror images. A zero vector stays
        zero when it is normalised.
        """
        assert not self.training, "features are read in eval mode"
        readout = readout or self.readout
        if readout.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        dtype = AUTOCAST[readout.amp]
        mixed = torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None)
        with float32_arithmetic(tf32=readout.amp == "tf32"), mixed:
            features = self._centred(images, None if centres is None else centres[0])
            if readout.flip:
                features = features + self._centred(images.flip(3), None if centres is None else centres[1])
        return F.normalize(features) if readout.normalize else features

    def _centred(self, images: Tensor, centres: Tensor | None) -> Tensor:
        features: Tensor = self(images).embedding.float()
        return features if centres is None else features - centres


@dataclass(frozen=True)
class Backbone:
    """The definition of a backbone, one per file in `models/backbones`: how to build, initialise and list its network.

    `network(spec)`: a new network, `OptionError` where the backbone cannot be as described. `multiples`: the image's
    height and width must be multiples of these. `input_size`: height and width in the paper, or as usual in the field.
    `paper`: #Param in the paper's Table 1 or text, in millions, without and with PTL. `imagenet()`: torchvision's
    weights under torchvision's names (timm's under timm's), downloaded or from its cache. `rename(key)`: the names in
    the network, none, one or several, of torchvision's tensor `key`. `layers`: torchvision's names of the layers in
    sequence, for files that number them. `convert(network, tensors, prefix, size)`: the tensors of a file, below
    `prefix`, with the names and shapes of this network; they are for images of that height and width, None if unknown.
    """

    network: Callable[[NetworkSpec], Network]
    imagenet: Callable[[], dict[str, Any]]
    rename: Callable[[str], tuple[str, ...]]
    layers: Sequence[str] = ()
    convert: Callable[[nn.Module, dict[str, Tensor], str, tuple[int, int] | None], dict[str, Tensor]] | None = None
    multiples: tuple[int, int] = (32, 32)
    input_size: tuple[int, int] = (256, 128)
    paper: tuple[int | None, int | None] = (None, None)
