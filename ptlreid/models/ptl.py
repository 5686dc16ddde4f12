"""Progressive transfer learning (paper section 3, Figure 1): BConv-Cells alongside the Conv-blocks of any backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ptlreid.errors import OptionError
from ptlreid.models.bconv import BConvCell
from ptlreid.models.head import Head, convolution
from ptlreid.models.initialisation import kaiming, near_one
from ptlreid.models.network import Backbone, Network
from ptlreid.models.staged import Staged
from ptlreid.network_types import Memory, NetworkSpec, Output

FEATURE_WIDTH = 1024

# Channels of the 1×1 convolutions and of cells 0 to 4 where the paper gives no parameter count to match. Doubling from
# stage to stage costs the same at each stage, with more weights where maps are small. MobileNets use half.
FUSIONS, CELLS = (32, 64, 128, 256), (32, 32, 64, 128, 256)
SMALL_FUSIONS, SMALL_CELLS = (16, 32, 64, 128), (16, 16, 32, 64, 128)


class Plain(Network):
    """The backbone alone: the baseline, and the student in distillation. `head`: from the channels of its input."""

    def __init__(self, backbone: Staged, head: Callable[[int], Head]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head(backbone.channels[-1])
        self.feature_width, self.readout = self.head.width, self.head.readout

    def forward(self, images: Tensor) -> Output:
        return self.head(self.backbone(images)[-1])


class PTL(Network):
    """The backbone with BConv-Cells 0 to 4 alongside (Eq. 3).

    `fusions`: channels of the four 1×1 convolutions; `cells`: of cells 0 to 4. Fewer Conv-blocks have the last of them.
    Cell i has the stride of Conv-block i + 1, so that its y has the size of that block's map; cell 0 (7×7, or as large
    as its stride) takes the image to the size of the first map. `head`: from the channels of its input.
    """

    def __init__(
        self,
        backbone: Staged,
        head: Callable[[int], Head],
        *,
        fusions: Sequence[int],
        cells: Sequence[int],
        memory: Memory,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        count = len(backbone.channels)
        cells, fusions = cells[-count:], fusions[len(fusions) - count + 1 :]
        self.fusions = nn.ModuleList(
            fusion(x + y, fused) for x, y, fused in zip(backbone.channels[:-1], cells[:-1], fusions, strict=True)
        )
        first = BConvCell(3, cells[0], kernel_size=first_kernel(backbone), stride=backbone.strides[0], memory=memory)
        others = zip(fusions, cells[1:], backbone.strides[1:], strict=True)
        self.cells = nn.ModuleList(
            [first, *(BConvCell(fused, cell, stride=stride, memory=memory) for fused, cell, stride in others)]
        )
        self.head = head(backbone.channels[-1] + cells[-1])
        self.feature_width, self.readout = self.head.width, self.head.readout

    def forward(self, images: Tensor) -> Output:
        *maps, top = self.backbone(images)  # x1 .. x4, x5
        first, *cells = self.cells
        y = first(images)  # y0
        for x, fuse, cell in zip(maps, self.fusions, cells, strict=True):
            y = cell(fuse(torch.cat((x, y), dim=1)))
        return self.head(torch.cat((top, y), dim=1))


def first_kernel(backbone: Staged) -> int:
    """The size of cell 0's kernel: 7, or the next odd number that covers the patch of a ViT."""
    return max(7, backbone.strides[0] // 2 * 2 + 1)


def fusion(in_channels: int, channels: int) -> nn.Sequential:
    """The 1×1 convolution of Figure 1, with batch norm and ReLU."""
    convolution = kaiming(nn.Conv2d(in_channels, channels, kernel_size=1, bias=False))
    return nn.Sequential(convolution, near_one(nn.BatchNorm2d(channels)), nn.ReLU(inplace=True))


def with_cells(
    stages: Callable[[NetworkSpec], Staged],
    *,
    rename: Callable[[str], str | None],
    imagenet: Callable[[], dict[str, Any]],
    layers: Sequence[str] = (),
    fusions: tuple[int, ...] = FUSIONS,
    cells: tuple[int, ...] = CELLS,
    default_width: int = FEATURE_WIDTH,
    reduction: Callable[[int, int], nn.Module] = convolution,
    skips_blocks: bool = False,
    class_token: bool = False,
    paper: tuple[int | None, int | None] = (None, None),
) -> Backbone:
    """The `Backbone` of `stages(spec)`, with and without cells.

    `rename(key)`: the name in `Staged`, or in the network if it begins with `head.`; None if unused. `fusions`,
    `cells`: the widths of the 1×1 convolutions and the cells; `default_width`: of the features where the description
    states none. `reduction`: as in `Head`. `skips_blocks`: whether it can in training. `class_token`: whether it has
    one. `imagenet`, `layers`, `paper`: as in `Backbone`.
    """

    def network(spec: NetworkSpec) -> Network:
        if spec.drop_path and not skips_blocks:
            raise OptionError(
                f"drop_path = {spec.drop_path} does not suit {spec.backbone}, which skips no block in training: "
                "expected 0. Leave it out, or choose another --backbone, such as timm:vit_small_patch16_224."
            )
        if spec.pool == "token" and not class_token:
            raise OptionError(
                f"pool = 'token' does not suit {spec.backbone}, which has no class token: expected 'avg', 'max' or "
                "'gem'. Leave it out, or choose another --backbone, such as timm:vit_small_patch16_224."
            )
        backbone = stages(spec)
        if spec.last_stride == 1:
            backbone.keep_last_size(spec.backbone)
        head = partial(Head, spec=spec, default_width=default_width, reduction=reduction)
        if not spec.ptl:
            return Plain(backbone, head)
        return PTL(backbone, head, fusions=fusions, cells=cells, memory=spec.memory)

    def names(key: str) -> tuple[str, ...]:
        name = rename(key)
        if name is None:
            return ()
        return (name if name.startswith("head.") else f"backbone.{name}",)

    return Backbone(network=network, imagenet=imagenet, rename=names, layers=layers, paper=paper)
