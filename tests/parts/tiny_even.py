"""A tiny network without batch norm: two half batches give the same update as one full batch."""

import torch
from ptlreid.models.backbones.tiny import BACKBONE as TINY
from torch import Tensor, nn

from ptlreid.models.network import Backbone, Network
from ptlreid.network_types import Output


class Even(Network):
    """Two convolutions, a mean over positions and a classifier."""

    feature_width = 8

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
        self.classifier = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Output:
        embedding = torch.flatten(self.backbone(images).mean(dim=(2, 3)), 1)
        return Output(embedding, {"pid": self.classifier(embedding)}, {"global": embedding})


BACKBONE = Backbone(plain=Even, ptl=lambda classes, memory: Even(classes), imagenet=TINY.imagenet, rename=TINY.rename)
