"""Networks by name. Listing the names does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptlreid import plugins
from ptlreid.errors import OptionError
from ptlreid.models import backbones
from ptlreid.network_types import TIMM, NetworkSpec

if TYPE_CHECKING:
    from ptlreid.models.network import Backbone, Network


def names() -> list[str]:
    """The backbones' names, sorted."""
    return plugins.names(backbones)


def find(name: str) -> Backbone:
    """The backbone called `name`, timm's network NAME for `timm:NAME`; `OptionError` with the closest names if there is
    none.
    """
    if name.startswith(TIMM):
        from ptlreid.models import timm

        return timm.backbone(name.removeprefix(TIMM))
    backbone: Backbone = plugins.find(backbones, name, "backbone").BACKBONE
    return backbone


def build(spec: NetworkSpec, seed: int) -> Network:
    """The network that `spec` describes, randomly initialised from `seed`; the global generator is left alone.

    Raises `OptionError` for an unknown backbone, an image size that its strides do not divide, and a head or stride
    that it cannot have.
    """
    import torch

    check_size(spec.backbone, spec.height, spec.width)
    backbone = find(spec.backbone)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not those of GPUs, as torch.manual_seed would
        return backbone.network(spec)


def check_size(name: str, height: int, width: int) -> None:
    """Raise `OptionError` for an image size that the strides of the backbone called `name` do not divide."""
    for side, value, multiple in zip(("height", "width"), (height, width), find(name).multiples, strict=True):
        if value % multiple:
            raise OptionError(
                f"--{side} {value} does not suit {name}: expected a multiple of {multiple}. "
                f"Use {multiple * max(1, round(value / multiple))}, for example."
            )
