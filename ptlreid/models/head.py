"""The head of plain and PTL networks: pooling, reduction, neck and classifier.

The defaults are the paper's. The other choices are those of strong baselines: Luo et al., "Bag of Tricks and a Strong
Baseline for Deep Person Re-identification" (CVPRW 2019), and for GeM Radenović et al. (TPAMI 2019), as in AGW (Ye et
al., TPAMI 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ptlreid.devices import without_autocast
from ptlreid.network_types import Classifier, NetworkSpec, Output, Readout

GEM_POWER = 3.0
GEM_FLOOR = 1e-6  # smaller values of the map, negative ones too, count as this


class GeM(nn.Module):
    """The generalised mean over positions, (mean of max(x, floor)^p)^(1/p), with one p for all channels that is learnt.

    p = 1 is the mean, p towards infinity the maximum. Computed in float32 even under autocast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(GEM_POWER))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, 1, 1) from (B, C, H, W)."""
        with without_autocast(maps.device):
            values = maps.float().clamp(min=GEM_FLOOR).pow(self.power.float())
            return values.mean(dim=(2, 3), keepdim=True).pow(1 / self.power.float()).to(maps.dtype)


class Head(nn.Module):
    """The embedding of the last map and, in training, logits from a classifier.

    `in_channels`: of the map. `default_width`: of the reduction where `spec` states none; `reduction`: the layer from
    the channels of the pooled map to that width. With a neck (BNNeck), a triplet loss compares the feature before it;
    classifier and retrieval get the one after it.
    """

    def __init__(
        self, in_channels: int, spec: NetworkSpec, default_width: int, reduction: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        width = default_width if spec.feature_width is None else spec.feature_width
        self.width = width or in_channels
        average = nn.AdaptiveAvgPool2d(1)
        # The map of a backbone with a class token holds it at every position; cells are averaged.
        self.pool = {"avg": average, "token": average, "max": nn.AdaptiveMaxPool2d(1), "gem": GeM()}[spec.pool]
        self.reduce = reduction(in_channels, width) if width else nn.Identity()
        self.neck = _neck(self.width) if spec.neck == "bn" else nn.Identity()
        self.classifier = _classifier(spec.classifier, self.width, spec.num_classes)

    @property
    def readout(self) -> Readout:
        """The features are compared as they are; with a neck by their direction, as Luo et al. do."""
        return Readout(normalize=not isinstance(self.neck, nn.Identity))

    def forward(self, top: Tensor) -> Output:
        # A 1×1 convolution and average pooling commute: pooled first, the convolution costs one position.
        feature = self.reduce(self.pool(top)).flatten(1)  # (B, width)
        embedding = self.neck(feature)
        if not self.training:
            return Output(embedding)
        return Output(embedding, {"pid": self.classifier(embedding)}, {"global": feature})


def convolution(in_channels: int, width: int) -> nn.Conv2d:
    """The reduction of the paper: a 1×1 convolution."""
    return nn.Conv2d(in_channels, width, kernel_size=1)


def _neck(width: int) -> nn.BatchNorm1d:
    """Batch norm whose bias stays zero: the classes' regions meet at the origin, as the cosine distance has it."""
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck


def _classifier(kind: Classifier, width: int, num_classes: int) -> nn.Module:
    if kind == "linear":
        linear = nn.Linear(width, num_classes, bias=False)
        nn.init.normal_(linear.weight, std=0.001)
        return linear
    # The paper states three fully connected layers only. Batch norm between them is our choice: without it, training
    # from scratch takes several times as many epochs.
    return nn.Sequential(
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, num_classes),
    )
