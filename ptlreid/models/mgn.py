"""MGN (Wang et al. 2018) on ResNet-50, without and with BConv-Cells: branches for the whole map, halves and thirds.

The branches share everything up to the first block of layer 3. Widths and positions of the cells are those of the
code that the paper's authors released.
"""

from __future__ import annotations

import re
from copy import deepcopy

import torch
import torchvision
from torch import Tensor, nn

from ptlreid.errors import OptionError
from ptlreid.models import resnet
from ptlreid.models.bconv import BConvCell
from ptlreid.models.initialisation import kaiming
from ptlreid.models.network import Network
from ptlreid.models.ptl import fusion
from ptlreid.models.staged import Staged
from ptlreid.network_types import HEAD, Memory, NetworkSpec, Output, Readout

PARTS = {"global": 1, "halves": 2, "thirds": 3}  # the number of stripes of each branch
PART_WIDTH = 256
TOP = 2048  # channels of layer 4


class MGNBackbone(nn.Module):
    """ResNet-50 with a shared trunk and three branches; the part branches do not downsample in layer 4."""

    def __init__(self) -> None:
        super().__init__()
        net = torchvision.models.resnet50(weights=None)
        blocks = {"stem": resnet.stem(net), "layer1": net.layer1, "layer2": net.layer2, "layer3": net.layer3[0]}
        self.trunk = Staged(blocks, channels=(64, 256, 512, 1024), strides=(4, 1, 2, 2))
        self.tops = nn.ModuleDict()
        for branch in PARTS:
            layer4 = deepcopy(net.layer4)
            if branch != "global":
                layer4[0].conv2.stride = layer4[0].downsample[0].stride = (1, 1)
            self.tops[branch] = nn.Sequential(deepcopy(net.layer3[1:]), layer4)

    def forward(self, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The trunk's four maps, and the top map of each branch by its name."""
        maps = self.trunk(images)
        return maps, {branch: top(maps[-1]) for branch, top in self.tops.items()}

    def distances(self) -> dict[str, int]:
        """As for a `Staged` backbone, of which the branches are the last Conv-block."""
        trunk = {f"trunk.{name}": 1 + distance for name, distance in self.trunk.distances().items()}
        return trunk | {f"tops.{name}": 1 for name, _ in self.tops.named_parameters()}


class MGNHead(nn.Module):
    """Eight part features of 256 channels from the top maps, by one shared reduction, each with its own classifier."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.reduce = fusion(in_channels, PART_WIDTH)
        names = [name for branch in PARTS for name in _part_names(branch)]
        self.classifiers = nn.ModuleDict({name: kaiming(nn.Linear(PART_WIDTH, num_classes)) for name in names})

    def forward(self, tops: dict[str, Tensor]) -> Output:
        pooled = {}
        for branch, top in tops.items():
            global_part, *stripes = _part_names(branch)
            pooled[global_part] = top.amax(dim=(2, 3), keepdim=True)
            for name, stripe in zip(stripes, top.chunk(max(1, len(stripes)), dim=2), strict=False):
                pooled[name] = stripe.amax(dim=(2, 3), keepdim=True)
        parts = {name: self.reduce(part).flatten(1) for name, part in pooled.items()}  # 8 x (B, 256)
        embedding = torch.cat(list(parts.values()), dim=1)  # (B, 2048)
        if not self.training:
            return Output(embedding)
        logits = {name: self.classifiers[name](part) for name, part in parts.items()}
        return Output(embedding, logits, {branch: parts[branch] for branch in PARTS})


class MGN(Network):
    """MGN without cells."""

    feature_width = 8 * PART_WIDTH
    readout = Readout(flip=True, normalize=True)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = MGNBackbone()
        self.head = MGNHead(TOP, num_classes)

    def forward(self, images: Tensor) -> Output:
        _, tops = self.backbone(images)
        return self.head(tops)


class MGNPTL(Network):
    """MGN with five cells along the trunk and one per branch, whose 128 channels are concatenated to its top map."""

    feature_width = 8 * PART_WIDTH
    readout = Readout(flip=True, normalize=True)

    def __init__(self, num_classes: int, memory: Memory) -> None:
        super().__init__()
        self.backbone = MGNBackbone()
        self.image_cells = nn.Sequential(
            BConvCell(3, 16, stride=2, memory=memory), BConvCell(16, 32, stride=2, memory=memory)
        )
        self.fusions = nn.ModuleList(
            fusion(x + y, fused) for x, y, fused in ((64, 32, 64), (256, 64, 128), (512, 256, 256), (1024, 512, 512))
        )
        self.cells = nn.ModuleList(
            [
                BConvCell(64, 64, memory=memory),
                BConvCell(128, 256, stride=2, memory=memory),
                BConvCell(256, 512, stride=2, memory=memory),
            ]
        )
        self.top_cells = nn.ModuleDict(
            {branch: BConvCell(512, 128, stride=2 if branch == "global" else 1, memory=memory) for branch in PARTS}
        )
        self.head = MGNHead(TOP + 128, num_classes)

    def forward(self, images: Tensor) -> Output:
        maps, tops = self.backbone(images)
        y = self.image_cells(images)
        *fusions, last = self.fusions
        for x, fuse, cell in zip(maps[:-1], fusions, self.cells, strict=True):
            y = cell(fuse(torch.cat((x, y), dim=1)))
        y = last(torch.cat((maps[-1], y), dim=1))
        return self.head({branch: torch.cat((top, self.top_cells[branch](y)), dim=1) for branch, top in tops.items()})


def build(spec: NetworkSpec) -> Network:
    """MGN as `spec` describes it; `OptionError` for another head than its own."""
    own = NetworkSpec(spec.backbone, spec.ptl, spec.memory, spec.num_classes, spec.height, spec.width)
    for name in HEAD:
        value = getattr(spec, name)
        if value != getattr(own, name):
            raise OptionError(
                f"{name} = {value!r} does not suit {spec.backbone}, whose eight parts have a head of their own: "
                f"expected the default. Leave {name} out, or choose another --backbone."
            )
    return MGNPTL(spec.num_classes, spec.memory) if spec.ptl else MGN(spec.num_classes)


def rename(key: str) -> tuple[str, ...]:
    """The names in the network of tensor `key` of torchvision's ResNet-50 or of fast-reid's MGN.

    Of ResNet-50, one in the trunk or three in the branches. fast-reid numbers the layers, from 0 in each sequence.
    """
    if branch := re.fullmatch(r"b([123])\.([01])\.(\d)\.(.+)", key):
        number, part, block, rest = branch.groups()
        first = 1 if part == "0" else 0  # the first block of layer 3 is in the trunk
        return (f"backbone.tops.{list(PARTS)[int(number) - 1]}.{part}.{int(block) + first}.{rest}",)
    if trunk := re.fullmatch(r"backbone\.([0-6])\.(.+)", key):
        layer = resnet.LAYERS[int(trunk[1])]
        key = f"{layer}.0.{trunk[2]}" if layer == "layer3" else f"{layer}.{trunk[2]}"
    name = resnet.rename(key)
    if name is None:
        return ()
    _, layer, block, *rest = [*name.split(".", 3), "", ""]
    if layer in ("stem", "layer1", "layer2"):
        return (f"backbone.trunk.{name}",)
    if layer == "layer3" and block == "0":
        return (f"backbone.trunk.blocks.layer3.{rest[0]}",)
    position = f"{0 if layer == 'layer3' else 1}.{block}"
    return tuple(f"backbone.tops.{branch}.{position}.{rest[0]}" for branch in PARTS)


def _part_names(branch: str) -> list[str]:
    """The name of the branch's global part, then those of its stripes from top to bottom, if it has any."""
    count = PARTS[branch]
    return [branch] + [f"{branch}-{stripe}" for stripe in range(1, count + 1) if count > 1]
