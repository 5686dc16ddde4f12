"""Networks by name: built anew, or again from the weights of a run. Listing names does not import torch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.models import backbones
from ptlreid.outputs import NetworkSpec

if TYPE_CHECKING:
    from torch import nn

    from ptlreid.models.staged import Backbone


def names() -> list[str]:
    """The backbones' names, sorted."""
    return plugins.names(backbones)


def find(name: str) -> Backbone:
    """The backbone called `name`; `OptionError` with a near-miss hint when there is none."""
    backbone: Backbone = plugins.find(backbones, name, "backbone").BACKBONE
    return backbone


def build(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """The network that `spec` describes, its weights drawn from `seed`; the global generator is left as it was.

    Raises `OptionError` for an unknown backbone, and for an image size that its strides do not divide.
    """
    import torch

    from ptlreid.models.ptl import PTL, Plain

    backbone = find(spec.backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages = backbone.stages()
        _check_size(spec, stages.strides)
        if not spec.ptl:
            return Plain(stages, spec.num_classes)
        return PTL(stages, spec.num_classes, fusions=backbone.fusions, cells=backbone.cells, memory=spec.memory)


def _check_size(spec: NetworkSpec, strides: tuple[int, ...]) -> None:
    total = prod(strides)
    if spec.height % total or spec.width % total:
        raise OptionError(
            f"{spec.backbone} halves images of {spec.height}×{spec.width} (height × width) until they are {total} "
            f"times smaller: both must be multiples of {total}. Change --height or --width."
        )
