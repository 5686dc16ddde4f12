"""A tiny network without batch norm: two half batches give the same update as one full batch."""

import torch
from ptlreid.models.backbones.tiny import BACKBONE as TINY
from torch import Tensor, nn

from ptlreid.models.bconv import BConvCell
from ptlreid.models.network import Backbone, Network
from ptlreid.network_types import Memory, Output


class Even(Network):
    """Two convolutions, with or without a cell after them, a mean over positions and a classifier."""

    feature_width = 8

    def __init__(self, classes: int, memory: Memory | None = None) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
        self.cell = nn.Identity() if memory is None else BConvCell(8, 8, memory=memory)
        self.classifier = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Output:
        embedding = torch.flatten(self.cell(self.backbone(images)).mean(dim=(2, 3)), 1)
        return Output(embedding, {"pid": self.classifier(embedding)}, {"global": embedding})


BACKBONE = Backbone(
    network=lambda spec: Even(spec.num_classes, spec.memory if spec.ptl else None),
    imagenet=TINY.imagenet,
    rename=TINY.rename,
)
