"""Progressive transfer learning (paper section 3, Figure 1): BConv-Cells beside the Conv-blocks of any backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ptlreid.models.bconv import BConvCell
from ptlreid.models.staged import Staged
from ptlreid.outputs import Memory, Output

FEATURE_WIDTH = 1024
FIRST_CELL = 32  # channels of cell 0, which sees the image itself


class Head(nn.Module):
    """A map to the feature vector, and in training to a classifier of three fully connected layers."""

    def __init__(self, in_channels: int, num_classes: int, width: int = FEATURE_WIDTH) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, width, kernel_size=1)
        # The paper names three fully connected layers and no more. Batch norm between them is our choice: without
        # it, training from scratch takes several times as many epochs.
        self.classifier = nn.Sequential(
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, num_classes),
        )

    def forward(self, top: Tensor) -> Output:
        # A 1×1 convolution and the average over positions change places freely: pooled first, it costs one position.
        pooled = nn.functional.adaptive_avg_pool2d(top, 1)
        embedding = self.reduce(pooled).flatten(1)  # (B, width)
        return Output(embedding, {"pid": self.classifier(embedding)} if self.training else {})


class Plain(nn.Module):
    """The backbone alone: the baseline, and the student of a distillation."""

    def __init__(self, backbone: Staged, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Head(backbone.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Output:
        """(B, 3, H, W) standardised images to their `Output`."""
        return self.head(self.backbone(images)[-1])


class PTL(nn.Module):
    """The backbone with BConv-Cells 0 to 4 beside it (Eq. 3).

    Cell i strides as Conv-block i + 1 does, so that its y meets that block's map; cell 0 takes the image to the
    size of the first block's map.
    """

    def __init__(
        self,
        backbone: Staged,
        num_classes: int,
        *,
        fusions: Sequence[int],
        cells: Sequence[int],
        memory: Memory = "slot",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        first = BConvCell(3, FIRST_CELL, kernel_size=7, stride=backbone.strides[0], memory=memory)
        self.cells = nn.ModuleList([first])
        self.fusions = nn.ModuleList()
        before = FIRST_CELL
        for channels, fused, cell, stride in zip(
            backbone.channels[:-1], fusions, cells, backbone.strides[1:], strict=True
        ):
            self.fusions.append(_fusion(channels + before, fused))
            self.cells.append(BConvCell(fused, cell, stride=stride, memory=memory))
            before = cell
        self.head = Head(backbone.channels[-1] + before, num_classes)

    def forward(self, images: Tensor) -> Output:
        """(B, 3, H, W) standardised images to their `Output`."""
        *maps, top = self.backbone(images)  # x1 .. x4, x5
        first, *cells = self.cells
        y = first(images)  # y0
        for x, fusion, cell in zip(maps, self.fusions, cells, strict=True):
            y = cell(fusion(torch.cat((x, y), dim=1)))
        return self.head(torch.cat((top, y), dim=1))


def _fusion(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
