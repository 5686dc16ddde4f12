"""Progressive transfer learning (paper section 3, Figure 1): BConv-Cells beside the Conv-blocks of any backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ptlreid.models.bconv import BConvCell
from ptlreid.models.network import Backbone, Network
from ptlreid.models.staged import Staged
from ptlreid.network_types import Memory, Output

FEATURE_WIDTH = 1024

# Channels of the 1×1 convolutions and of cells 0 to 4 where the paper gives no parameter count to meet. Doubling from
# stage to stage costs each the same, and more weights sit where maps are small. MobileNets take half.
FUSIONS, CELLS = (32, 64, 128, 256), (32, 32, 64, 128, 256)
SMALL_FUSIONS, SMALL_CELLS = (16, 32, 64, 128), (16, 16, 32, 64, 128)


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
        if not self.training:
            return Output(embedding)
        return Output(embedding, {"pid": self.classifier(embedding)}, {"global": embedding})


class Plain(Network):
    """The backbone alone: the baseline, and the student of a distillation."""

    feature_width = FEATURE_WIDTH

    def __init__(self, backbone: Staged, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Head(backbone.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Output:
        return self.head(self.backbone(images)[-1])


class PTL(Network):
    """The backbone with BConv-Cells 0 to 4 beside it (Eq. 3).

    `fusions`: channels of the four 1×1 convolutions; `cells`: of cells 0 to 4. Cell i strides as Conv-block i + 1 does,
    so that its y meets that block's map; cell 0 takes the image to the size of the first block's map.
    """

    feature_width = FEATURE_WIDTH

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
        self.fusions = nn.ModuleList(
            fusion(x + y, fused) for x, y, fused in zip(backbone.channels[:-1], cells[:-1], fusions, strict=True)
        )
        first = BConvCell(3, cells[0], kernel_size=7, stride=backbone.strides[0], memory=memory)
        others = zip(fusions, cells[1:], backbone.strides[1:], strict=True)
        self.cells = nn.ModuleList(
            [first, *(BConvCell(fused, cell, stride=stride, memory=memory) for fused, cell, stride in others)]
        )
        self.head = Head(backbone.channels[-1] + cells[-1], num_classes)

    def forward(self, images: Tensor) -> Output:
        *maps, top = self.backbone(images)  # x1 .. x4, x5
        first, *cells = self.cells
        y = first(images)  # y0
        for x, fuse, cell in zip(maps, self.fusions, cells, strict=True):
            y = cell(fuse(torch.cat((x, y), dim=1)))
        return self.head(torch.cat((top, y), dim=1))


def fusion(in_channels: int, channels: int) -> nn.Sequential:
    """The 1×1 convolution of Figure 1, with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )


def with_cells(
    stages: Callable[[], Staged],
    *,
    rename: Callable[[str], str | None],
    imagenet: Callable[[], dict[str, Any]],
    fusions: tuple[int, ...] = FUSIONS,
    cells: tuple[int, ...] = CELLS,
    paper: tuple[int | None, int | None] = (None, None),
) -> Backbone:
    """The `Backbone` of staged Conv-blocks. `rename(key)`: torchvision's name in `Staged`, None where it has no use."""

    def places(key: str) -> tuple[str, ...]:
        name = rename(key)
        return () if name is None else (f"backbone.{name}",)

    return Backbone(
        plain=lambda classes: Plain(stages(), classes),
        ptl=lambda classes, memory: PTL(stages(), classes, fusions=fusions, cells=cells, memory=memory),
        imagenet=imagenet,
        rename=places,
        paper=paper,
    )
