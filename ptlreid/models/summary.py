"""Stages, parameters and multiply-adds of a network, without allocating its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ptlreid import models
from ptlreid.models.network import Network
from ptlreid.models.staged import Staged
from ptlreid.network_types import NetworkSpec


@dataclass(frozen=True)
class Summary:
    """Figures of one network.

    `params`: all weights, with the classifier. `macs`: multiply-adds of the forward pass in training for one image of
    `input_size` (height, width), all gates and the classifier included. `stages`: channels and stride of each
    Conv-block; empty for a network that is not `Staged`. `paper_params_m`: #Param in the paper, in millions.
    """

    name: str
    ptl: bool
    params: int
    macs: int
    feature_width: int
    input_size: tuple[int, int]
    stages: list[tuple[int, int]]
    paper_params_m: int | None


def summarize(name: str, ptl: bool, num_classes: int) -> Summary:
    """The figures of one network; `OptionError` for an unknown name."""
    backbone = models.find(name)
    spec = NetworkSpec(name, ptl, "slot", num_classes, *backbone.input_size)
    with torch.device("meta"):
        network = models.build(spec, seed=0).train()
    staged = next((module for module in network.modules() if isinstance(module, Staged)), None)
    return Summary(
        name=name,
        ptl=ptl,
        params=sum(parameter.numel() for parameter in network.parameters()),
        macs=count_macs(network, spec),
        feature_width=network.feature_width,
        input_size=backbone.input_size,
        stages=list(zip(staged.channels, staged.strides, strict=True)) if staged else [],
        paper_params_m=backbone.paper[ptl],
    )


def count_macs(network: Network, spec: NetworkSpec) -> int:
    """Multiply-adds of the forward pass for one image; `network` is that of `spec`, on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, spec.height, spec.width))  # batch norm needs more than one image
    return counter.get_total_flops() // (2 * 2)  # a multiply-add is two operations, and there were two images
